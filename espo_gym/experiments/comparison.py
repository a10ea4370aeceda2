"""The results of a comparison: read from its folder, run by run, and turned into curves and scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espo_gym.files import read_object

from .health import Health, collapsed, ending, health, per_rollout
from .run_folder import EVALUATION, OUTCOME, PAIRING, Run, check_record
from .shares import is_share

COMPARISON = "comparison.json"
TUNING = "tuning.json"

THRESHOLD = 0.8
"""Mean reward at which a task counts as learned."""

METRICS: dict[str, str] = {
    "auc": "mean reward of the completions trained on, over the whole budget: area under the learning curve",
    "final": "the same over the last fifth of the rollouts",
    "rollouts_to_0.8": f"rollouts until one has a mean reward of at least {THRESHOLD}; infinite if none has",
    "greedy": "share of held-out problems that greedy decoding solves, after training",
    "avg@k": "share of sampled completions of held-out problems that are correct (pass@1)",
    "pass@k": "share of held-out problems of which at least one of k completions is correct",
    "collapsed": "1 if training failed, or ended (last fifth) below half of the best rollout and not by chance, else 0",
}
"""Scores of a run. k is that of the evaluation: ``avg@8``."""


def seed_folder(out: Path, entry: str, seed: int) -> Path:
    """The folder of one run of the comparison in ``out``."""
    return out / "runs" / entry / f"seed_{seed:04}"


def failure(folder: Path) -> str | None:
    """Why training of the run in ``folder`` could not continue; None if it did, or is not known to have ended.

    Raises ValueError: outcome.json is not the outcome of a run.
    """
    path = folder / OUTCOME
    if not path.is_file():
        return None
    reason = read_object(path, "the outcome of a run").get("reason")
    return None if reason is None else str(reason)


@dataclass(frozen=True, eq=False)
class ComparedRun(Run):
    """A finished run of a comparison."""

    entry: str
    """Name of the entry."""
    pairing: dict[str, str]
    """Fingerprints of what all entries have in common at a seed."""
    failure: str | None
    """Why training could not continue, None if it did."""

    @classmethod
    def of(cls, entry: str, folder: Path) -> ComparedRun:
        """Read the finished run of ``entry`` in ``folder``. Raises like :meth:`Run.read`."""
        pairing, run, reason = folder / PAIRING, Run.read(folder), failure(folder)
        if reason is None:
            check_record(run.evaluation, "after", folder / EVALUATION, ("value",))
        return cls(
            **vars(run),
            entry=entry,
            pairing=read_object(pairing, "the pairing of a run") if pairing.is_file() else {},
            failure=reason,
        )

    @cached_property
    def accuracies(self) -> dict[str, float]:
        """``greedy``, ``avg@k``, ``pass@k``, ``maj@k`` on held-out problems after training; 0 if training failed."""
        if self.failure is not None:
            k = self.config["eval_k"]
            return dict.fromkeys(["greedy", *([f"avg@{k}", f"pass@{k}", f"maj@{k}"] if k else [])], 0.0)
        return {name: figure["value"] for name, figure in self.evaluation["after"].items() if isinstance(figure, dict)}

    @cached_property
    def health(self) -> Health:
        """What became of it."""
        return health(self.rows, self.rollout_size, self.failure)

    @property
    def updates(self) -> int:
        """Optimizer steps taken."""
        return int(self.last("train/n_updates"))

    @property
    def cpu_seconds(self) -> float:
        """CPU time of training alone."""
        return self.last("time/cpu_seconds")

    @property
    def wall_seconds(self) -> float:
        """Wall-clock time of training alone."""
        return self.last("time/wall_seconds")

    @property
    def rollout_size(self) -> int:
        """Completions in a rollout."""
        return int(self.hyperparameters["rollout_size"])

    def curve(self, metric: str, length: int | None = None) -> NDArray[np.float64]:
        """(length,) the metric for every ``rollout_size`` completions drawn, NaN where there is no value.

        Where dynamic sampling drew several rollouts for one update, they share the value measured on all of them;
        evaluations stand at the last of them.
        """
        curve = per_rollout(self.rows, metric, self.rollout_size)
        if metric.startswith("eval/"):
            later = np.diff(per_rollout(self.rows, "time/timesteps", self.rollout_size), append=np.inf) == 0
            curve = np.where(later, np.nan, curve)
        padded: NDArray[np.float64] = np.concatenate([curve, np.full(max((length or 0) - len(curve), 0), np.nan)])
        return padded[:length]

    def score(self, metric: str, budget: float, *, clock: str = "time/timesteps") -> float:
        """One of ``METRICS``.

        Args:
            budget: of the run, in units of ``clock``. What a failed run has not used of it counts with reward 0.
            clock: the metric that measures how much of the budget is used.

        Raises ValueError: unknown metric.
        """
        if metric in self.accuracies:
            return self.accuracies[metric]
        rewards = self.rows.get("rollout/reward_mean", np.zeros(0))  # (U,)
        if metric == "auc":
            spans = np.diff(self.rows[clock], prepend=0.0) if self.rows else np.zeros(0)
            whole = max(budget, spans.sum()) if self.failure else spans.sum()
            return float(rewards @ spans / whole) if whole else 0.0
        curve = self.curve("rollout/reward_mean")
        if metric == "rollouts_to_0.8":
            reached = np.flatnonzero(curve >= THRESHOLD)
            return float(reached[0] + 1) if len(reached) else np.inf
        if metric == "final":
            return float(ending(curve).mean()) if len(curve) and not self.failure else 0.0
        if metric == "collapsed":
            return float(self.failure is not None or collapsed(self.rows, self.rollout_size))
        raise ValueError(f"no metric {metric!r}; there are {', '.join(METRICS)}, with k = {self.config['eval_k']}")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of several entries with the same seeds."""

    entries: tuple[str, ...]
    seeds: tuple[int, ...]
    setting: dict[str, Any]
    """What all entries share, as in comparison.json."""
    runs: dict[tuple[str, int], ComparedRun]
    """(entry, seed) -> run, for those that have finished."""
    folder: Path | None = None

    @classmethod
    def read(cls, folder: str | Path) -> Comparison:
        """Read the comparison in ``folder``, finished or not.

        Raises:
            FileNotFoundError: there is no comparison in ``folder``.
            ValueError: comparison.json or a file of a run is not what it should be.
        """
        folder = Path(folder)
        path = folder / COMPARISON
        if not path.is_file():
            raise FileNotFoundError(f"no {COMPARISON} in {folder}: it is not the folder of a comparison")
        contents = read_object(path, "a comparison")
        try:
            names = tuple(str(entry["name"]) for entry in contents["entries"])
            seeds = tuple(int(seed) for seed in contents["seeds"])
            setting = dict(contents["setting"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} does not describe a comparison: {error!r}") from error
        runs = {
            (name, seed): ComparedRun.of(name, seed_folder(folder, name, seed))
            for name in names
            for seed in seeds
            if (seed_folder(folder, name, seed) / OUTCOME).is_file()
        }
        return cls(names, seeds, setting, runs, folder)

    @property
    def missing(self) -> list[tuple[str, int]]:
        """(entry, seed) of the runs that have not finished."""
        return [(e, s) for e in self.entries for s in self.seeds if (e, s) not in self.runs]

    def of(self, entry: str) -> list[ComparedRun]:
        """The finished runs of ``entry``, in the order of the seeds."""
        return [self.runs[entry, seed] for seed in self.seeds if (entry, seed) in self.runs]

    def curves(self, metric: str = "rollout/reward_mean") -> dict[str, NDArray[np.float64]]:
        """Entry -> (seeds, rollouts); NaN where there is no value, for instance because a run failed."""
        lengths = [len(run.curve("time/timesteps")) for run in self.runs.values()]
        return {
            entry: np.array([run.curve(metric, max(lengths)) for run in self.of(entry)]).reshape(-1, max(lengths))
            for entry in self.entries
        }

    def scores(self, metric: str = "auc") -> dict[str, NDArray[np.float64]]:
        """Entry -> (seeds,) one of ``METRICS``; NaN for an unfinished run. A failed run counts, with what it reached.

        Raises ValueError: unknown metric.
        """
        budget, clock = self.budget
        return {
            entry: np.array(
                [
                    self.runs[entry, seed].score(metric, budget, clock=clock) if (entry, seed) in self.runs else np.nan
                    for seed in self.seeds
                ]
            )
            for entry in self.entries
        }

    def health(self) -> dict[str, list[Health]]:
        """Entry -> what became of its finished runs, in the order of the seeds."""
        return {entry: [run.health for run in self.of(entry)] for entry in self.entries}

    def is_share(self, metric: str) -> bool:
        """Whether a score is known to lie in [0, 1]; see :func:`~.shares.is_share`."""
        return is_share(metric, self.runs.values())

    @property
    def budget(self) -> tuple[float, str]:
        """How much a run may use, and the metric that measures how much it has used."""
        seconds, timesteps = self.setting["seconds"], self.setting["timesteps"]
        if seconds is not None:
            on_gpu = any(run.pairing.get("device") == "cuda" for run in self.runs.values())
            return float(seconds), "time/wall_seconds" if on_gpu else "time/cpu_seconds"
        sizes = {run.rollout_size for run in self.runs.values()}
        return max((-(-timesteps // size) * size for size in sizes), default=timesteps), "time/timesteps"

    @cached_property
    def k(self) -> int:
        """Sampled completions of each held-out problem."""
        return int(self.setting["eval_k"])

    def metrics(self) -> list[str]:
        """The names of ``METRICS`` with this comparison's k."""
        return [m.replace("@k", f"@{self.k}") for m in METRICS if self.k or "@" not in m]
