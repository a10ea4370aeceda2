"""A run: one algorithm on one environment, and a folder with everything that came of it.

config.json         what was run, every hyper-parameter included; ``espo-gym train --config`` runs it again
progress.csv        metrics of each rollout, one row each; progress.json has the same as JSON lines
evaluation.json     held-out accuracy before and after, with intervals
samples.jsonl       held-out problems with completions and verdicts, before and after
curves.png          the curves
checkpoint.zip      everything that training goes on from
policy/             the policy, for plain transformers
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback, EveryNTimesteps
from stable_baselines3.common.logger import Logger, make_output_format

from espo_gym import __version__
from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
from espo_gym.callbacks import EvaluateCallback
from espo_gym.evaluation import Evaluation

from .plot import plot_run

SAMPLES = 16
"""Problems whose completions are kept in samples.jsonl."""


@dataclass
class RunConfig:
    """What to run."""

    algo: str = "espo"
    policy: str = "espo_gym/teaching"
    env: str = "espo_gym/Addition-v0"
    env_args: dict[str, Any] = field(default_factory=dict)
    timesteps: int = 20_000
    eval_problems: int = 256
    eval_k: int = 8
    eval_every: int = 3
    save_every: int = 2_560
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """The config that a run left behind. Raises FileNotFoundError or ValueError that says what is wrong."""
        if not path.is_file():
            raise FileNotFoundError(f"no config at {path}")
        try:
            values = json.loads(path.read_text())
            values.pop("versions", None)
            return cls(**values)
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not the config of a run: {error}") from error

    def write(self, path: Path, algorithm: PolicyOptimizer) -> None:
        """Keep it with every hyper-parameter as it turned out, so that later defaults do not change the run."""
        self.hyperparameters = {name: getattr(algorithm, name) for name in algorithm.hyperparameters()}
        packages = ("torch", "transformers", "gymnasium", "stable-baselines3", "numpy")
        versions = {"espo-gym": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in packages}
        path.write_text(json.dumps(asdict(self) | {"versions": versions}, indent=2) + "\n")

    def make(self) -> PolicyOptimizer:
        """The algorithm, ready to learn."""
        if self.algo not in ALGORITHMS:
            raise ValueError(f"no algorithm {self.algo!r}; there are {', '.join(ALGORITHMS)}")
        cls, known = ALGORITHMS[self.algo], ALGORITHMS[self.algo].hyperparameters()
        for name in self.hyperparameters:
            if name not in known:
                raise ValueError(f"{cls.__name__} has no hyper-parameter {name!r}; it has {', '.join(sorted(known))}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in self.hyperparameters.items()}
        return cls(self.policy, gym.make(self.env, **self.env_args), **values)


def train(
    config: RunConfig, out: Path, *, resume: bool = False, progress_bar: bool = True, say: Callable[[str], Any] = print
) -> Evaluation:
    """Carry out ``config`` in the folder ``out``, or go on with the run that lies there.

    Returns the evaluation at the end; ``say`` is told what a person watching wants to know.
    """
    checkpoint, results = out / "checkpoint.zip", out / "evaluation.json"
    if resume:
        algorithm = ALGORITHMS[config.algo].load(checkpoint)
        evaluations = json.loads(results.read_text())
        say(f"resuming at {algorithm.num_timesteps} of {config.timesteps} timesteps")
    else:
        out.mkdir(parents=True, exist_ok=True)
        algorithm = config.make()
        config.write(out / "config.json", algorithm)
        (out / "samples.jsonl").write_text("")
        before = _evaluate(algorithm, config, out, "before")
        say(f"before: {before}")
        evaluations = {"before": _as_json(before)}
        results.write_text(json.dumps(evaluations, indent=2) + "\n")
        algorithm.save(checkpoint)

    algorithm.set_logger(_logger(out, algorithm.num_timesteps))
    save = ConvertCallback(lambda *_: bool(algorithm.save(checkpoint)))
    callbacks: list[BaseCallback] = [EvaluateCallback(config.eval_every), EveryNTimesteps(config.save_every, save)]
    if config.timesteps > algorithm.num_timesteps:
        algorithm.learn(config.timesteps - algorithm.num_timesteps, callbacks, progress_bar=progress_bar)
    algorithm.save(checkpoint)
    algorithm.logger.close()

    after = _evaluate(algorithm, config, out, "after")
    say(f"after:  {after}")
    results.write_text(json.dumps(evaluations | {"after": _as_json(after)}, indent=2) + "\n")
    algorithm.policy.save_pretrained(out / "policy")
    plot_run(out)
    say(f"everything is in {out}/")
    return after


def prepare(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make sure that a run in ``out`` destroys nothing unasked. Raises ValueError or FileNotFoundError."""
    if resume:
        if not (out / "checkpoint.zip").is_file():
            raise FileNotFoundError(f"nothing to resume: there is no {out / 'checkpoint.zip'}")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (overwrite and (out / "config.json").is_file()):
            raise ValueError(f"{out} is not empty: choose another folder, or give --resume or --overwrite (for a run)")
        shutil.rmtree(out)


def _logger(out: Path, num_timesteps: int) -> Logger:
    """CSV, JSON lines and, if installed, TensorBoard; a run that goes on writes files of its own beside the old."""
    suffix = f"_{num_timesteps}" if num_timesteps else ""
    formats = ["csv", "json"] + (["tensorboard"] if importlib.util.find_spec("tensorboard") else [])
    return Logger(str(out), [make_output_format(name, str(out), suffix) for name in formats])


def _evaluate(algorithm: PolicyOptimizer, config: RunConfig, out: Path, when: str) -> Evaluation:
    split = "test" if hasattr(algorithm.env.unwrapped, "task") else None
    evaluation = algorithm.evaluate(split, k=config.eval_k, n_problems=config.eval_problems, details=True)
    with (out / "samples.jsonl").open("a") as file:
        for problem in evaluation.problems[:SAMPLES]:
            pairs = [(problem.greedy, problem.greedy_verdict), *zip(problem.samples, problem.verdicts, strict=True)]
            for kind, (text, verdict) in zip(["greedy"] + ["sample"] * len(problem.samples), pairs, strict=True):
                row = {"when": when, "prompt": problem.prompt, "kind": kind, "completion": text}
                file.write(json.dumps(row | {"verdict": verdict.status, "reason": verdict.reason}) + "\n")
    return evaluation


def _as_json(evaluation: Evaluation) -> dict[str, Any]:
    figures = {name: {"value": e.value, "low": e.low, "high": e.high} for name, e in evaluation.items()}
    return figures | {
        "env": evaluation.env,
        "split": evaluation.split,
        "n_problems": evaluation.n_problems,
        "no_verdict": evaluation.no_verdict,
    }
