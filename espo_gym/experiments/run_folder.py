"""The folder of a run: the names of its files, and the code that writes and reads them.

config.json         what was run, every hyperparameter included; ``espo-gym train --config`` runs it again
progress.csv        metrics of each rollout, one row each; progress.json has the same as JSON lines
evaluation.json     held-out accuracy before and after, with intervals
samples.jsonl       held-out problems with completions and verdicts, before and after
curves.png          the curves, drawn by ``espo-gym train`` (espo-gym plot, report and inspect show more)
checkpoint.zip      everything needed to resume training
policy/             the policy, for plain transformers
outcome.json        of a run in a comparison: whether it failed, and why
pairing.json        of a run in a comparison: fingerprints of what all entries have in common at a seed

This module loads no torch, so runs can be read and drawn without it.
"""

from __future__ import annotations

import csv
import json
import reprlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from espo_gym.files import read_object, write_text

if TYPE_CHECKING:
    from espo_gym.evaluation import Evaluation

CONFIG = "config.json"
PROGRESS = "progress"
"""Stem of the metrics files, as Stable-Baselines3 names them; a resumed run adds ``progress_STEPS``."""
TIMESTEPS = "time/timesteps"
EVALUATION = "evaluation.json"
SAMPLES = "samples.jsonl"
CURVES = "curves.png"
CHECKPOINT = "checkpoint.zip"
BEGINNING = ".beginning"
"""Stands in the folder until the run can be resumed: without a config.json beside it, nothing in it is of use."""
POLICY = "policy"
OUTCOME = "outcome.json"
PAIRING = "pairing.json"

SAMPLE_PROBLEMS = 16
"""Problems whose completions are kept in samples.jsonl."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run as read from its folder, finished or not."""

    folder: Path
    config: dict[str, Any]
    """Contents of config.json: every hyperparameter, and the versions of the packages."""
    rows: dict[str, NDArray[np.float64]] = field(repr=False)
    """Metric -> (U,), one value for each rollout trained on, NaN where there is none; see docs/metrics.md."""
    evaluation: dict[str, Any] = field(repr=False)
    """Contents of evaluation.json, by ``before`` and ``after``; empty if there is none yet."""

    @staticmethod
    def read(folder: Path) -> Run:
        """Read the run in ``folder``.

        Raises:
            FileNotFoundError: ``folder`` has no config or no metrics.
            ValueError: config.json is not the config of a run, or another file is damaged.
        """
        run = Run(folder, read_config(folder), read_progress(folder), read_evaluation(folder))
        trained = run.evaluation.get("after", {}).get("timesteps", 0)
        if run.timesteps < trained:
            raise ValueError(
                f"{PROGRESS}.json in {folder} has metrics of {run.timesteps} of {trained} timesteps: it is damaged"
            )
        return run

    @property
    def algo(self) -> str:
        """Name of the algorithm, ``?`` if the config does not name one."""
        return str(self.config.get("algo", "?"))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Those in the config."""
        return dict(self.config.get("hyperparameters", {}))

    @property
    def seed(self) -> int:
        """Seed of the run, 0 if the config does not give one."""
        return int(self.hyperparameters.get("seed", 0))

    @property
    def timesteps(self) -> int:
        """Completions drawn, as far as metrics have been written."""
        return int(self.last(TIMESTEPS))

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint, None if there is none."""
        path = self.folder / CHECKPOINT
        return path if path.is_file() else None

    def last(self, metric: str) -> float:
        """``metric`` in the last row; 0 if there is no row, or no such metric."""
        values = self.rows.get(metric, np.zeros(0))
        return float(values[-1]) if len(values) else 0.0

    def points(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``(timesteps, values)``, (n,) each, of the rows in which ``metric`` has a finite value."""
        if metric not in self.rows:
            return np.zeros(0), np.zeros(0)
        finite = np.isfinite(self.rows[metric])
        return self.rows[TIMESTEPS][finite], self.rows[metric][finite]

    def metrics(self) -> set[str]:
        """Names of the metrics that have a finite value in some row."""
        return {name for name, values in self.rows.items() if np.isfinite(values).any()}

    def samples(self) -> list[Any]:
        """The rows of samples.jsonl; empty if there is none yet. Raises ValueError: a line is not JSON."""
        path = self.folder / SAMPLES
        return _json_lines(path, appended=False) if path.is_file() else []


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is the folder of a run that has metrics."""
    return (folder / CONFIG).is_file() and bool(_progress_files(folder))


# -- reading -----------------------------------------------------------------------------------------------------------


def read_progress(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Metric -> (U,), a value for each rollout in order of timesteps, NaN where there is none.

    Where a resumed run has written a row again, the later file counts. A last line that is still being written, or that
    a killed process left incomplete, is skipped. JSON lines are read where there are any: they keep types and are only
    ever appended to, while Stable-Baselines3 rewrites the CSV file in place when a metric is new.

    Raises:
        FileNotFoundError: no metrics in ``folder``.
        ValueError: a file of metrics holds something else.
    """
    files = _progress_files(folder)
    if not files:
        raise FileNotFoundError(f"no {PROGRESS}.json or {PROGRESS}.csv in {folder}: it is not the folder of a run")
    rows: dict[int, dict[str, Any]] = {}
    for path in files:
        for row in _json_lines(path, appended=True) if path.suffix == ".json" else _csv_rows(path):
            if not _is_row(row):
                raise ValueError(f"{path} does not hold the metrics of a run: {reprlib.repr(row)}")
            rows[int(row[TIMESTEPS])] = row
    ordered = [rows[timesteps] for timesteps in sorted(rows)]
    names = dict.fromkeys(name for row in ordered for name in row)
    return {name: np.array([row.get(name, np.nan) for row in ordered], dtype=np.float64) for name in names}


def _is_row(row: Any) -> bool:
    """Whether ``row`` has metrics, and of how many timesteps."""
    numbers = isinstance(row, dict) and all(isinstance(value, int | float | None) for value in row.values())
    return numbers and 0 < (row.get(TIMESTEPS) or 0) < np.inf


def _progress_files(folder: Path) -> list[Path]:
    """One file for each time the run was started, in that order: JSON lines, or CSV if there is only that."""
    starts: dict[int, Path] = {}
    for ending in (".csv", ".json"):  # of two files of one start, the JSON lines
        for path in folder.glob(f"{PROGRESS}*{ending}"):
            starts[int(path.stem.partition("_")[2] or 0)] = path
    return [starts[timesteps] for timesteps in sorted(starts)]


def _json_lines(path: Path, *, appended: bool) -> list[Any]:
    """The values of a file of JSON lines.

    ``appended``: a last line that is incomplete is left out. It is still being written, or a process was killed while
    it wrote it.

    Raises ValueError: a line is not JSON.
    """
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number < len(lines) or not appended:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    return rows


def _csv_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers without their empty fields; an incomplete last line is skipped."""
    try:
        complete = path.read_text(encoding="utf-8").rpartition("\n")[0]
        rows = csv.DictReader(complete.splitlines())
        return [{n: float(value) for n, value in row.items() if value} for row in rows if None not in row.values()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold the metrics of a run: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Contents of config.json.

    Raises:
        FileNotFoundError: there is none in ``folder``.
        ValueError: it is not the config of a run.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"no {CONFIG} in {folder}: it is not the folder of a run")
    config = read_object(path, "the config of a run")
    if not isinstance(config.get("hyperparameters", {}), dict):
        raise ValueError(f"{path} is not the config of a run: its hyperparameters are not a JSON object")
    return config


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Contents of evaluation.json, by ``before`` and ``after``; empty if there is none yet.

    Raises ValueError: it holds something else.
    """
    path = folder / EVALUATION
    evaluations = read_object(path, "the evaluation of a run") if path.is_file() else {}
    if evaluations.keys() - {"before", "after"} or not all(isinstance(e, dict) for e in evaluations.values()):
        raise ValueError(f"{path} is not the evaluation of a run: expected JSON objects, before and after")
    return evaluations


def check_record(
    evaluations: dict[str, Any], when: str, path: Path, parts: Collection[str], others: Collection[str] = ()
) -> None:
    """Raise ValueError unless the evaluation ``when`` in ``path`` has these ``parts`` of each figure, and the
    ``others``.
    """
    record = evaluations.get(when, {})
    figures = [figure for figure in record.values() if isinstance(figure, dict)]
    numbers = all(isinstance(figure.get(part), int | float) for figure in figures for part in parts)
    if not figures or not numbers or not record.keys() >= {*others}:
        raise ValueError(f"{path} is damaged: its evaluation {when} training is not complete")


# -- writing -----------------------------------------------------------------------------------------------------------


def evaluation_record(evaluation: Evaluation, timesteps: int) -> dict[str, Any]:
    """``evaluation`` after ``timesteps`` completions of training, as evaluation.json holds it."""
    figures = {name: {"value": e.value, "low": e.low, "high": e.high} for name, e in evaluation.items()}
    return figures | {
        "env": evaluation.env,
        "split": evaluation.split,
        "n_problems": evaluation.n_problems,
        "no_verdict": evaluation.no_verdict,
        "timesteps": timesteps,
    }


def write_samples(folder: Path, evaluation: Evaluation, when: str, timesteps: int) -> None:
    """Put the first problems of ``evaluation`` with their completions and verdicts into samples.jsonl.

    Args:
        evaluation: made with ``details=True``.
        when: ``before`` or ``after`` training; rows of the same time are replaced.
        timesteps: completions trained on so far.
    """
    path = folder / SAMPLES
    rows = [
        row
        for row in (_json_lines(path, appended=False) if path.is_file() else [])
        if isinstance(row, dict) and row.get("when") != when
    ]
    for problem in evaluation.problems[:SAMPLE_PROBLEMS]:
        rows += [{"when": when, "timesteps": timesteps, **row} for row in problem.rows()]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
