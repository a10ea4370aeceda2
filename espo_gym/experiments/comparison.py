"""What came of a comparison: read from its folder, run by run, and turned into curves and scores."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .run import write_json

THRESHOLD = 0.8
"""Mean reward that counts as having learnt the task."""

METRICS: dict[str, str] = {
    "auc": "mean reward of the completions trained on, over the whole budget: area under the learning curve",
    "final": "the same over the last fifth of the rollouts",
    "rollouts_to_0.8": f"rollouts until one has a mean reward of at least {THRESHOLD}; infinite where none has",
    "greedy": "share of held-out problems that the most likely completion solves, after training",
    "avg@k": "share of sampled completions of held-out problems that are correct (pass@1)",
    "pass@k": "share of held-out problems of which one of k completions is correct",
    "collapsed": "1 if training failed, or ended (last fifth) below half of the best rollout, else 0",
}
"""Scores of a run. k is that of the evaluation: ``avg@8``."""


def run_folder(out: Path, entry: str, seed: int) -> Path:
    return out / "runs" / entry / f"seed_{seed:04}"


@dataclass(frozen=True, eq=False)
class Run:
    """One run that is over."""

    entry: str
    seed: int
    folder: Path
    config: dict[str, Any]
    """What config.json holds: every hyper-parameter, and the versions of the packages."""
    rows: dict[str, np.ndarray]
    """Metric -> (U,) one value for each rollout trained on, NaN where there was none; see docs/metrics.md."""
    evaluation: dict[str, float]
    """``greedy``, ``avg@k``, ``pass@k``, ``maj@k`` on held-out problems after training; all 0 if it failed."""
    pairing: dict[str, str]
    """Fingerprints of what all entries have in common at a seed."""
    failure: str | None
    """Why training could not go on, if it could not."""

    @classmethod
    def read(cls, folder: Path, entry: str, seed: int) -> Run:
        config = json.loads((folder / "config.json").read_text())
        outcome = json.loads((folder / "outcome.json").read_text())
        if outcome["reason"] is None:
            after = json.loads((folder / "evaluation.json").read_text())["after"]
            evaluation = {name: row["value"] for name, row in after.items() if isinstance(row, dict)}
        else:
            k = config["eval_k"]
            names = ["greedy", *([f"avg@{k}", f"pass@{k}", f"maj@{k}"] if k else [])]
            evaluation = dict.fromkeys(names, 0.0)
        pairing = folder / "pairing.json"
        return cls(
            entry=entry,
            seed=seed,
            folder=folder,
            config=config,
            rows=read_rows(folder),
            evaluation=evaluation,
            pairing=json.loads(pairing.read_text()) if pairing.is_file() else {},
            failure=outcome["reason"],
        )

    @property
    def timesteps(self) -> int:
        """Completions drawn."""
        return int(self._last("time/timesteps"))

    @property
    def updates(self) -> int:
        """Optimizer steps taken."""
        return int(self._last("train/n_updates"))

    @property
    def cpu_seconds(self) -> float:
        """Of training alone."""
        return self._last("time/cpu_seconds")

    @property
    def wall_seconds(self) -> float:
        """Of training alone."""
        return self._last("time/wall_seconds")

    def _last(self, metric: str) -> float:
        values = self.rows.get(metric, np.zeros(0))
        return float(values[-1]) if len(values) else 0.0

    @property
    def rollout_size(self) -> int:
        return int(self.config["hyperparameters"]["rollout_size"])

    def curve(self, metric: str, length: int | None = None) -> np.ndarray:
        """(length,) the metric for every ``rollout_size`` completions drawn, NaN where there is no value.

        Where dynamic sampling drew several rollouts for one update, they share what was measured on them together;
        evaluations stand at the last of them.
        """
        ends = self._ends()
        curve = np.full(max(int(ends[-1]) if len(ends) else 0, length or 0), np.nan)
        begin = 0
        for end, value in zip(ends, self.rows.get(metric, np.full(len(ends), np.nan)), strict=True):
            curve[end - 1 if metric.startswith("eval/") else begin : end] = value
            begin = end
        return curve[:length]

    def _ends(self) -> np.ndarray:
        return (self.rows["time/timesteps"] // self.rollout_size).astype(int) if self.rows else np.zeros(0, int)

    def score(self, metric: str, budget: float, *, clock: str = "time/timesteps") -> float:
        """One of ``METRICS``.

        Args:
            budget: of the run, in units of ``clock``. What a failed run has left of it counts with reward 0.
        """
        if metric in self.evaluation:
            return self.evaluation[metric]
        rewards = self.rows.get("rollout/reward_mean", np.zeros(0))  # (U,)
        if metric == "auc":
            spans = np.diff(self.rows[clock], prepend=0.0) if self.rows else np.zeros(0)
            whole = max(budget, spans.sum()) if self.failure else spans.sum()
            return float(rewards @ spans / whole) if whole else 0.0
        curve = self.curve("rollout/reward_mean")
        if metric == "rollouts_to_0.8":
            reached = np.flatnonzero(curve >= THRESHOLD)
            return float(reached[0] + 1) if len(reached) else np.inf
        ending = float(curve[-max(len(curve) // 5, 1) :].mean()) if len(curve) and not self.failure else 0.0
        if metric == "final":
            return ending
        if metric == "collapsed":
            best = float(rewards.max()) if len(rewards) else 0.0
            return float(self.failure is not None or (best >= 0.1 and ending < best / 2))
        raise ValueError(f"no metric {metric!r}; there are {', '.join(METRICS)}, with k = {self.config['eval_k']}")


def read_rows(folder: Path) -> dict[str, np.ndarray]:
    """Metric -> (U,) of a run, one value for each rollout; where it was resumed the later file wins."""
    rows: dict[int, dict[str, float]] = {}
    for path in sorted(folder.glob("progress*.json"), key=lambda p: int(p.stem.partition("_")[2] or 0)):
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break  # the process was killed in the middle of it
            rows[int(row["time/timesteps"])] = row
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {name: np.array([rows[step].get(name, np.nan) for step in sorted(rows)], dtype=float) for name in names}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of several entries with the same seeds."""

    entries: tuple[str, ...]
    seeds: tuple[int, ...]
    setting: dict[str, Any]
    """What all entries share, as comparison.json has it."""
    runs: dict[tuple[str, int], Run]
    """(entry, seed) -> run; those that are not over are not in it."""
    folder: Path | None = None

    @classmethod
    def read(cls, folder: str | Path) -> Comparison:
        """Raises FileNotFoundError: there is no comparison in ``folder``."""
        folder = Path(folder)
        path = folder / "comparison.json"
        if not path.is_file():
            raise FileNotFoundError(f"no comparison.json in {folder}: it is not the folder of a comparison")
        made = json.loads(path.read_text())
        names = tuple(entry["name"] for entry in made["entries"])
        runs = {
            (name, seed): Run.read(run_folder(folder, name, seed), name, seed)
            for name in names
            for seed in made["seeds"]
            if (run_folder(folder, name, seed) / "outcome.json").is_file()
        }
        return cls(names, tuple(made["seeds"]), made["setting"], runs, folder)

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Runs that are not over."""
        return [(e, s) for e in self.entries for s in self.seeds if (e, s) not in self.runs]

    def of(self, entry: str) -> list[Run]:
        """The runs of an entry that are over, in the order of the seeds."""
        return [self.runs[entry, seed] for seed in self.seeds if (entry, seed) in self.runs]

    def curves(self, metric: str = "rollout/reward_mean") -> dict[str, np.ndarray]:
        """Entry -> (seeds, rollouts); NaN where there is no value, because a run failed for instance."""
        lengths = [len(run.curve("time/timesteps")) for run in self.runs.values()]
        return {
            entry: np.array([run.curve(metric, max(lengths)) for run in self.of(entry)]).reshape(-1, max(lengths))
            for entry in self.entries
        }

    def scores(self, metric: str = "auc") -> dict[str, np.ndarray]:
        """Entry -> (seeds,) one of ``METRICS``; NaN for a run that is not over. A failed one counts as what it is."""
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

    @property
    def budget(self) -> tuple[float, str]:
        """How much a run may use, and the metric that tells how much it has used."""
        seconds, timesteps = self.setting["seconds"], self.setting["timesteps"]
        if seconds is not None:
            on_gpu = any(run.pairing.get("device") == "cuda" for run in self.runs.values())
            return float(seconds), "time/wall_seconds" if on_gpu else "time/cpu_seconds"
        sizes = {run.rollout_size for run in self.runs.values()}
        return max((-(-timesteps // size) * size for size in sizes), default=timesteps), "time/timesteps"

    @cached_property
    def k(self) -> int:
        return int(self.setting["eval_k"])

    def metrics(self) -> list[str]:
        """The names of METRICS with this comparison's k."""
        return [m.replace("@k", f"@{self.k}") for m in METRICS if self.k or "@" not in m]

    def report(self) -> str:
        """Tables and sentences, as Markdown."""
        from .comparison_report import report

        return report(self)

    def write(self) -> None:
        """report.md, results.csv and results.json into the folder of the comparison."""
        assert self.folder is not None
        from .comparison_report import results

        write_json(self.folder / "results.json", results(self))
        with (self.folder / "results.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            metrics = self.metrics()
            writer.writerow(
                ["entry", "seed", *metrics, "timesteps", "updates", "cpu_seconds", "wall_seconds", "failure"]
            )
            budget, clock = self.budget
            for (entry, seed), run in self.runs.items():
                scores = [run.score(metric, budget, clock=clock) for metric in metrics]
                used = [run.timesteps, run.updates, run.cpu_seconds, run.wall_seconds]
                writer.writerow([entry, seed, *scores, *used, run.failure or ""])
        (self.folder / "report.md").write_text(self.report())
