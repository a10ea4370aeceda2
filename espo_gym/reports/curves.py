"""Runs grouped into curves: runs that differ only in their seed form one curve.

The interval is that of the mean over seeds at each point, 95 %: Student's, ``mean +- t(0.975, n - 1) s / sqrt(n)``, or,
of a share, Wilson's with Student's quantile (:func:`espo_gym.estimate.over_seeds`), which stays in [0, 1]. A curve of
one seed has none, and where all seeds are equal it has no width. Seeds that were recorded at different timesteps are
interpolated linearly between their own points, and a curve covers the timesteps that all of its seeds have reached.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espo_gym.estimate import over_seeds
from espo_gym.experiments.run_folder import CONFIG, Run, is_run
from espo_gym.experiments.shares import is_share

# Okabe and Ito's colors, which people with any common form of color blindness can distinguish; without the yellow, too
# pale for a line on white, and the black, invisible on dark pages. Line styles distinguish curves without color.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (1.5, 2), (8, 2, 1.5, 2))

NOT_SETTINGS = ("seed", "verbose", "versions", "eval_problems", "eval_k", "eval_every", "save_every")
"""Entries of a config that do not make a run a different experiment."""
EVERYWHERE = ("policy", "env", "env_args", "dtype")
"""Entries that a label names if any two curves differ in them; other entries only within one algorithm."""


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs at ``paths``, each once. A path is the folder of a run, or of folders that hold runs at any depth.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: the config of a run cannot be read.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        here = [path] if is_run(path) else sorted(p.parent for p in path.rglob(CONFIG) if is_run(p.parent))
        if not here:
            raise FileNotFoundError(f"no run in {path}: the folder of a run holds config.json and progress.json")
        for folder in here:
            folders.setdefault(folder.resolve(), folder)
    return [Run.read(folder) for folder in folders.values()]


@dataclass(frozen=True)
class Curve:
    """A metric over completions: the mean over seeds, and its 95 % interval if there are two seeds or more."""

    x: NDArray[np.float64]
    """(P,) completions drawn."""
    mean: NDArray[np.float64]
    """(P,)"""
    low: NDArray[np.float64] | None
    """(P,), None for one seed."""
    high: NDArray[np.float64] | None
    """(P,), None for one seed."""
    n: int
    """Number of seeds."""


@dataclass
class Group:
    """Runs that differ only in their seed."""

    label: str
    runs: list[Run]

    def metrics(self) -> set[str]:
        """Names of the metrics that any of the runs has."""
        return set[str]().union(*(run.metrics() for run in self.runs))

    def curve(self, metric: str) -> Curve | None:
        """``metric`` over completions; None if no run has it, or the runs have no timesteps in common."""
        series = [(x, y) for x, y in (run.points(metric) for run in self.runs) if len(x)]
        if not series:
            return None
        first, last = max(x[0] for x, _ in series), min(x[-1] for x, _ in series)
        grid = np.unique(np.concatenate([x for x, _ in series]))
        grid = grid[(grid >= first) & (grid <= last)]
        if not len(grid):
            return None
        values = np.stack([np.interp(grid, x, y) for x, y in series])
        mean, low, high = interval(values, share=is_share(metric, self.runs))
        return Curve(grid, mean, low, high, len(series))


def interval(
    values: NDArray[np.float64], *, share: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """``(mean, low, high)``, (...) each, over the first axis of ``values`` (n, ...), for a band.

    With n = 1 there is no interval: ``low`` and ``high`` are None. Where all values are equal both are the mean.
    """
    mean, low, high = over_seeds(values, share=share)
    if len(values) < 2:
        return mean, None, None
    return mean, np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group ``runs`` by their config without the seed.

    Two runs with the same config and seed carry no information about seeds: the second one goes into a separate group,
    whose label names the folder.
    """
    by_settings: dict[tuple[str, int], list[Run]] = {}
    copies: dict[tuple[str, int], int] = {}
    for run in runs:
        key = json.dumps(settings(run), sort_keys=True)
        copy = copies.get((key, run.seed), 0)
        copies[key, run.seed] = copy + 1
        by_settings.setdefault((key, copy), []).append(run)
    groups = list(by_settings.values())
    return [Group(label, members) for label, members in zip(_labels(groups), groups, strict=True)]


def settings(run: Run) -> dict[str, Any]:
    """The config of ``run`` and its hyperparameters in one dict, without entries that make no difference."""
    flat = run.config | run.hyperparameters
    return {name: value for name, value in flat.items() if name not in (*NOT_SETTINGS, "hyperparameters")}


def _labels(groups: list[list[Run]]) -> list[str]:
    """The name in the config if it has one, else the algorithm and what differs, and the folder if that is not enough.

    Entries of ``EVERYWHERE`` are compared over all groups, all other settings among the groups of one algorithm.
    """
    all_settings = [settings(members[0]) for members in groups]
    labels = []
    for members, mine in zip(groups, all_settings, strict=True):
        peers = [other for other in all_settings if other.get("algo") == mine.get("algo")]
        differs = [k for k in mine if k != "algo" and any(p.get(k) != mine[k] for p in peers)]
        differs += [k for k in EVERYWHERE if k not in differs and any(p.get(k) != mine.get(k) for p in all_settings)]
        parts = [members[0].algo, *(f"{k}={_short(mine.get(k))}" for k in differs)]
        labels.append(str(mine.get("name") or " ".join(parts)))
    return [
        label if labels.count(label) == 1 else f"{label} ({_folder(members)})"
        for label, members in zip(labels, groups, strict=True)
    ]


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return f"{value:g}" if isinstance(value, float) else str(value).removeprefix("espo_gym/")


def _folder(members: list[Run]) -> str:
    """What distinguishes these runs from others with the same config: the folder, or of several runs its parent."""
    return str(members[0].folder if len(members) == 1 else members[0].folder.parent)
