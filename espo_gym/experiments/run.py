"""A run: one algorithm trained on one environment, which leaves everything in one folder (see run_folder.py)."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback, EveryNTimesteps
from stable_baselines3.common.logger import Logger, make_output_format

from espo_gym.algorithms import PolicyOptimizer
from espo_gym.algorithms.registry import resolve
from espo_gym.callbacks import EvaluateCallback
from espo_gym.environment import task_of
from espo_gym.evaluation import Evaluation
from espo_gym.live_table import LiveTable

from .config import RunConfig
from .run_folder import CHECKPOINT, CONFIG, EVALUATION, POLICY, append_samples, evaluation_record, write_json


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
        algorithm = resolve(config.algo).load(checkpoint, config.make_env(), trust_remote_code=config.trust_remote_code)
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
