"""A run: one algorithm trained on one environment, which leaves everything in one folder (see run_folder.py)."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback, EveryNTimesteps
from stable_baselines3.common.logger import Logger, make_output_format

from espo_gym import __version__
from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
from espo_gym.callbacks import EvaluateCallback
from espo_gym.environment import task_of
from espo_gym.evaluation import Evaluation
from espo_gym.live_table import LiveTable
from espo_gym.policy import SAMPLERS, Policy

from .run_folder import CHECKPOINT, CONFIG, EVALUATION, POLICY, append_samples, evaluation_record, write_json

DTYPES = ("float32", "bfloat16")
"""Of the forward pass; the weights stay float32, since 16 bits would round small updates away."""


@dataclass
class RunConfig:
    """What to run: the contents of config.json."""

    algo: str = "espo"
    policy: str = "espo_gym/teaching"
    dtype: str = "float32"
    sampler: str = "auto"
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
            if not isinstance(values, dict):
                raise ValueError("a JSON object is needed")
            values.pop("versions", None)
            unknown = values.keys() - {f.name for f in fields(cls)}
            if unknown:
                raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
            config = cls(**values)
            config.validate()
        except ValueError as error:  # JSONDecodeError is one
            raise ValueError(f"{path} is not the config of a run: {error}") from error
        return config

    def validate(self) -> None:
        """Raises ValueError: a field has the wrong type or is out of range, or the algorithm lacks a hyperparameter."""
        for f in fields(self):
            value = getattr(self, f.name)
            kind = {"str": str, "int": int}.get(str(f.type), dict)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{f.name} must be of type {kind.__name__}, not {value!r}")
        for name, least in (
            ("timesteps", 1),
            ("eval_problems", 1),
            ("eval_k", 0),
            ("eval_every", 0),
            ("save_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {self.sampler!r}")
        cls = algorithm_class(self.algo)
        for name in self.hyperparameters:
            if name not in cls.hyperparameters():
                owners = [c.__name__ for c in ALGORITHMS.values() if name in c.hyperparameters()]
                own = cls.hyperparameters().keys() - PolicyOptimizer.hyperparameters().keys()
                raise ValueError(
                    f"{cls.__name__} has no hyperparameter {name!r}"
                    + (f", which belongs to {', '.join(owners)}" if owners else "")
                    + f"; its own are {', '.join(sorted(own))}"
                )

    def write(self, path: Path, algorithm: PolicyOptimizer) -> None:
        """Write the config with the value of every hyperparameter, so that later defaults do not change the run."""
        self.hyperparameters = {name: getattr(algorithm, name) for name in algorithm.hyperparameters()}
        packages = ("torch", "transformers", "gymnasium", "stable-baselines3", "numpy")
        versions = {"espo-gym": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in packages}
        write_json(path, asdict(self) | {"versions": versions})

    def make_env(self) -> gym.Env[Any, Any]:
        """The environment."""
        return gym.make(self.env, **self.env_args)

    def make(self) -> PolicyOptimizer:
        """The algorithm, ready to learn."""
        self.validate()
        env = self.make_env()  # first: a mistake here shows before a large policy has been loaded
        autocast = None if self.dtype == "float32" else getattr(torch, self.dtype)
        policy = Policy.from_pretrained(self.policy, autocast=autocast, sampler=self.sampler)
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in self.hyperparameters.items()}
        return algorithm_class(self.algo)(policy, env, **values)


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress_bar: bool = True,
    log: Callable[[str], Any] = print,
    callbacks: Sequence[BaseCallback] = (),
    minimal: bool = False,
) -> dict[str, Any]:
    """Carry out ``config`` in the folder ``out``, or resume the run that is there.

    Args:
        log: called with progress messages.
        callbacks: called before the run's own.
        minimal: for one of many runs: skip the evaluation before training and TensorBoard's file, and once the run has
            finished, remove its checkpoint and save no policy.

    Returns the contents of evaluation.json.

    Raises:
        ValueError, FileNotFoundError: ``out`` holds something that would be lost, or nothing to resume.
    """
    prepare(out, resume=resume, overwrite=overwrite)
    checkpoint, results = out / CHECKPOINT, out / EVALUATION
    if resume:
        config.validate()
        algorithm = algorithm_class(config.algo).load(checkpoint, config.make_env())
        evaluations = json.loads(results.read_text())
        log(f"resuming at {algorithm.num_timesteps} of {config.timesteps} timesteps")
    else:
        algorithm = config.make()
        before = None if minimal else _evaluate(algorithm, config)
        # Only here: a mistake in the config has shown by now, and the earlier run is still there.
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        config.write(out / CONFIG, algorithm)
        evaluations = {}
        if before is not None:
            append_samples(out, before, "before", 0)
            log("before: " + ", ".join(f"{name} {value.value:.3f}" for name, value in before.items()))
            evaluations["before"] = evaluation_record(before)
        write_json(results, evaluations)
        algorithm.save(checkpoint)

    algorithm.set_logger(_logger(out, algorithm.num_timesteps, tensorboard=not minimal))
    save = ConvertCallback(lambda *_: bool(algorithm.save(checkpoint)))
    every: list[BaseCallback] = [EveryNTimesteps(config.save_every, save)]
    if config.eval_every:
        every.insert(0, EvaluateCallback(config.eval_every, split=held_out_split(algorithm, "validation", "test")))
    if config.timesteps > algorithm.num_timesteps:
        _learn(algorithm, config.timesteps - algorithm.num_timesteps, [*callbacks, *every], progress_bar)
    algorithm.save(checkpoint)
    algorithm.logger.close()

    after = _evaluate(algorithm, config)
    append_samples(out, after, "after", algorithm.num_timesteps)
    evaluations["after"] = evaluation_record(after)
    write_json(results, evaluations)
    if minimal:
        checkpoint.unlink()
    else:
        algorithm.policy.save_pretrained(out / POLICY)
    return dict(evaluations)


def algorithm_class(name: str) -> type[PolicyOptimizer]:
    """The algorithm of this name: a key of ``ALGORITHMS`` or, where it is none of the library's, ``module:Class``.

    Raises ValueError: there is none.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"no algorithm {name!r}; there are {', '.join(ALGORITHMS)}, and your own as module:Class")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no algorithm {name!r}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, PolicyOptimizer)):
        raise ValueError(f"{name!r} is no policy optimizer")
    return cls


def prepare(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that a run in ``out`` would destroy nothing that it was not asked to.

    Raises:
        FileNotFoundError: ``resume``, and there is no checkpoint.
        ValueError: ``out`` holds other things, or a run and neither ``resume`` nor ``overwrite`` is set.
    """
    if resume:
        if not (out / CHECKPOINT).is_file():
            raise FileNotFoundError(f"nothing to resume: there is no {out / CHECKPOINT}")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / CONFIG).is_file():
            raise ValueError(f"{out} is not empty and is not the folder of a run: choose another folder")
        if not overwrite:
            raise ValueError(f"{out} holds a run: choose another folder, or pass --resume or --overwrite")


def held_out_split(algorithm: PolicyOptimizer, *wanted: str) -> str | None:
    """The first of the splits ``wanted`` that the environment has; None for an environment without splits.

    Raises ValueError: it has splits, but none of these.
    """
    task = task_of(algorithm.env)
    if task is None:
        return None
    for split in wanted:
        if split in task.splits and task.size(split) != 0:
            return split
    raise ValueError(
        f"nothing to evaluate on: the environment has the splits {', '.join(task.splits)}, none of {', '.join(wanted)}"
    )


def _learn(algorithm: PolicyOptimizer, timesteps: int, callbacks: list[BaseCallback], progress_bar: bool) -> None:
    try:
        algorithm.learn(timesteps, [*callbacks, *([LiveTable()] if progress_bar else [])])
    except BaseException:
        algorithm.logger.close()
        raise


def _logger(out: Path, num_timesteps: int, *, tensorboard: bool) -> Logger:
    """CSV, JSON lines and, if installed, TensorBoard; a resumed run adds new files to the old ones."""
    suffix = f"_{num_timesteps}" if num_timesteps else ""
    formats = ["csv", "json"]
    if tensorboard and importlib.util.find_spec("tensorboard"):
        formats.append("tensorboard")
    return Logger(str(out), [make_output_format(name, str(out), suffix) for name in formats])


def _evaluate(algorithm: PolicyOptimizer, config: RunConfig) -> Evaluation:
    split = held_out_split(algorithm, "test", "validation")
    return algorithm.evaluate(split, k=config.eval_k, n_problems=config.eval_problems, details=True)
