"""Runs read from their folders, gathered into curves: runs that differ in their seed alone are one curve.

The interval is Student's t over seeds, 95 %, of the mean at each point: ``mean +- t(0.975, n - 1) s / sqrt(n)``. A
curve of one seed has none. Seeds that were recorded at different timesteps are interpolated linearly between their own
points, and a curve is drawn over the timesteps that all of its seeds have reached.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

# Okabe and Ito's colours, which people with any of the common colour blindnesses tell apart; without the yellow, too
# pale for a line on white, and the black, invisible in the dark. Line styles tell curves apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (1.5, 2), (8, 2, 1.5, 2))

NOT_SETTINGS = ("seed", "verbose", "versions", "eval_problems", "eval_k", "eval_every", "save_every")
"""Entries of a config that do not make another experiment."""
EVERYWHERE = ("policy", "env", "env_args", "dtype")
"""Entries that a label names as soon as any two curves differ in them; others only within one algorithm."""

Progress = dict[str, list[tuple[int, float]]]


def read_progress(run: Path) -> Progress:
    """Metric -> ``[(timesteps, value), ...]`` of a run; where it was resumed, the later file wins.

    Values that are not finite are left out, and so is a last row that is still being written.

    Raises FileNotFoundError: no metrics in ``run``.
    """
    files = sorted(run.glob("progress*.csv"), key=lambda p: int(p.stem.partition("_")[2] or 0))
    if not files:
        raise FileNotFoundError(f"no progress.csv in {run}: it is not the folder of a run")
    rows: dict[int, dict[str, str]] = {}
    for path in files:
        with path.open(newline="") as file:
            rows |= {int(row["time/timesteps"]): row for row in csv.DictReader(file) if None not in row.values()}
    curves: Progress = {}
    for step in sorted(rows):
        for name, value in rows[step].items():
            if value and math.isfinite(number := float(value)):
                curves.setdefault(name, []).append((step, number))
    return curves


@dataclass(frozen=True)
class Run:
    """The folder of a run, as :mod:`espo_gym.experiments.run` leaves it; it need not be finished."""

    path: Path
    config: dict[str, Any]
    progress: Progress = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Run:
        """Raises FileNotFoundError or ValueError where ``path`` is not the folder of a run."""
        try:
            config = json.loads((path / "config.json").read_text())
            if not isinstance(config, dict) or not isinstance(config.get("hyperparameters", {}), dict):
                raise ValueError("a JSON object is needed")
        except FileNotFoundError:
            raise FileNotFoundError(f"no config.json in {path}: it is not the folder of a run") from None
        except ValueError as error:
            raise ValueError(f"{path / 'config.json'} is not the config of a run: {error}") from error
        return cls(path, config, read_progress(path))

    @property
    def algo(self) -> str:
        return str(self.config.get("algo", "?"))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config on one level, without what makes no difference."""
        flat = self.config | self.config.get("hyperparameters", {})
        return {k: v for k, v in flat.items() if k not in (*NOT_SETTINGS, "hyperparameters")}

    @property
    def seed(self) -> Any:
        return self.config.get("hyperparameters", {}).get("seed", 0)

    @property
    def timesteps(self) -> int:
        """Completions trained on, as far as the metrics have been written."""
        return max((steps for points in self.progress.values() for steps, _ in points), default=0)

    @property
    def checkpoint(self) -> Path | None:
        path = self.path / "checkpoint.zip"
        return path if path.is_file() else None

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """What evaluation.json holds; empty where there is none yet."""
        path = self.path / "evaluation.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def samples(self) -> list[dict[str, Any]]:
        """The rows of samples.jsonl; a last line that is still being written is left out."""
        path = self.path / "samples.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs at ``paths``: each the folder of a run, or of folders that hold runs at any depth.

    Raises FileNotFoundError: no such folder, or no run in it.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        here = [path] if _is_run(path) else sorted(p.parent for p in path.rglob("config.json") if _is_run(p.parent))
        if not here:
            raise FileNotFoundError(f"no run in {path}: a run's folder holds config.json and progress.csv")
        found |= {run.resolve(): run for run in here if run.resolve() not in found}
    return [Run.read(path) for path in found.values()]


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file() and any(path.glob("progress*.csv"))


@dataclass(frozen=True)
class Curve:
    """A metric over completions: the mean over seeds, and its 95 % interval where there are two seeds or more."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    n: int
    """Seeds."""


@dataclass
class Group:
    """Runs that differ in their seed alone."""

    label: str
    runs: list[Run]

    def metrics(self) -> set[str]:
        return set().union(*(run.progress for run in self.runs))

    def curve(self, metric: str) -> Curve | None:
        """``metric`` over completions; None where no run has it, or they have no timesteps in common."""
        series = [np.array(run.progress[metric]).T for run in self.runs if metric in run.progress]
        if not series:
            return None
        first, last = max(x[0] for x, _ in series), min(x[-1] for x, _ in series)
        grid = np.unique(np.concatenate([x for x, _ in series]))
        grid = grid[(grid >= first) & (grid <= last)]
        if not len(grid):
            return None
        mean, low, high = interval(np.stack([np.interp(grid, x, y) for x, y in series]))
        return Curve(grid, mean, low, high, len(series))


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """``(mean, low, high)`` over the first axis of ``values`` (n, ...): Student's t, 95 %; no interval of one."""
    n, mean = len(values), values.mean(0)
    if n < 2:
        return mean, None, None
    half = student.ppf(0.975, n - 1) * values.std(0, ddof=1) / math.sqrt(n)
    return mean, mean - half, mean + half


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """``runs`` gathered by their config without the seed.

    Two runs of one config and one seed say nothing about seeds: the second one goes into a group of its own, whose
    label names the folder.
    """
    gathered: dict[tuple[str, int], list[Run]] = {}
    seen: dict[str, int] = {}
    for run in runs:
        key = json.dumps(run.settings, sort_keys=True)
        same = json.dumps([key, run.seed])
        copy = seen[same] = seen.get(same, -1) + 1
        gathered.setdefault((key, copy), []).append(run)
    groups = list(gathered.values())
    return [Group(label, members) for label, members in zip(_labels(groups), groups, strict=True)]


def _labels(groups: list[list[Run]]) -> list[str]:
    """The entry's name if its config has one, else the algorithm and what differs; the folder where that is not enough.

    What differs is said of the top level of all groups, and of everything else among groups of one algorithm.
    """
    labels = []
    for members in groups:
        mine = members[0].settings
        peers = [g[0].settings for g in groups if g[0].algo == members[0].algo]
        others = [g[0].settings for g in groups]
        differs = [k for k in mine if k != "algo" and any(p.get(k) != mine[k] for p in peers)]
        differs += [k for k in EVERYWHERE if k not in differs and any(p.get(k) != mine.get(k) for p in others)]
        named = mine.get("name")
        said = str(named) if named else " ".join([members[0].algo, *(f"{k}={_short(mine.get(k))}" for k in differs)])
        labels.append(said)
    return [
        label if labels.count(label) == 1 else f"{label} ({_folder(members)})"
        for label, members in zip(labels, groups, strict=True)
    ]


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return f"{value:g}" if isinstance(value, float) else str(value).removeprefix("espo_gym/")


def _folder(members: list[Run]) -> str:
    """What tells these runs from others of the same config: the folder, or where there are several their parent's."""
    return str(members[0].path if len(members) == 1 else members[0].path.parent)
