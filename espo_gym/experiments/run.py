"""A run: one algorithm trained on one environment, which leaves everything in one folder (see run_folder.py)."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, make_output_format

from espo_gym.algorithms import PolicyOptimizer
from espo_gym.algorithms.registry import resolve
from espo_gym.callbacks import EvaluateCallback
from espo_gym.environment import task_of
from espo_gym.evaluation import Evaluation
from espo_gym.files import scratch, sync, write_json
from espo_gym.live_table import LiveTable
from espo_gym.terminal import say

from .config import RunConfig
from .folder_lock import LOCK, FolderLock
from .run_folder import (
    BEGINNING,
    CHECKPOINT,
    CONFIG,
    EVALUATION,
    POLICY,
    PROGRESS,
    check_record,
    evaluation_record,
    read_config,
    read_evaluation,
    write_samples,
)
from .stopping import StopSignals


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress_bar: bool = True,
    log: Callable[[str], Any] = say,
    callbacks: Sequence[BaseCallback] = (),
    minimal: bool = False,
) -> dict[str, Any]:
    """Carry out ``config`` in the folder ``out``, or resume the run that is there.

    Args:
        log: called with progress messages.
        callbacks: called before the run's own.
        minimal: for one of many runs: skip the evaluation before training and TensorBoard's file, and save no policy.

    Returns the contents of evaluation.json.

    Raises:
        ValueError, FileNotFoundError: ``out`` holds something that would be lost, or nothing to resume.
        RuntimeError: another process is working in ``out``.
        Stopped: a signal asked for an end (:mod:`.stopping`). There is a checkpoint of all rollouts so far.
    """
    with StopSignals() as signals, FolderLock(out) as lock:
        prepare(out, resume=resume, overwrite=overwrite)
        if resume:
            algorithm, evaluations = _resume(config, out)
            if evaluations.get("after", {}).get("timesteps") == algorithm.num_timesteps >= config.timesteps:
                log(f"nothing to do: this run is finished, at {algorithm.num_timesteps} timesteps")
                return evaluations
            log(f"resuming at {algorithm.num_timesteps} of {config.timesteps} timesteps")
        else:
            algorithm, evaluations = _begin(config, out, log, evaluate_before=not minimal)

        algorithm.set_logger(_logger(out, algorithm.num_timesteps, tensorboard=not minimal))
        own: list[BaseCallback] = [Checkpoints(out, config.save_every, lock, signals)]
        if config.eval_every:
            own.append(EvaluateCallback(config.eval_every, split=held_out_split(algorithm, "validation", "test")))
        if progress_bar:
            own.append(LiveTable())
        try:
            with signals.deferred():
                if config.timesteps > algorithm.num_timesteps:
                    algorithm.learn(config.timesteps - algorithm.num_timesteps, [*callbacks, *own])
                _save(algorithm, out)
        finally:
            algorithm.logger.close()

        if not minimal:
            _save_policy(algorithm, out)
        _record(out, evaluations, "after", _evaluate(algorithm, config), algorithm.num_timesteps)
        return evaluations


class Checkpoints(BaseCallback):
    """Saves the run in ``out``, and ends training when a signal asks for it or the folder has gone.

    A checkpoint is written before the next rollout begins, when the metrics of the last one are on file: what a
    checkpoint counts is never missing there.

    Args:
        every: completions between checkpoints.
    """

    def __init__(self, out: Path, every: int, lock: FolderLock, signals: StopSignals) -> None:
        super().__init__()
        self.out, self.every, self.lock, self.signals = out, every, lock, signals

    def _on_training_start(self) -> None:
        self.saved = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps // self.every > self.saved // self.every:
            self.saved = self.model.num_timesteps
            _save(cast(Any, self.model), self.out)

    def _on_step(self) -> bool:
        if not self.lock.held():
            raise FileNotFoundError(f"{self.out}, the folder of the run, was removed or moved while it was trained")
        return self.signals.received is None


def _save(algorithm: PolicyOptimizer, out: Path) -> None:
    for path in out.glob(f"{PROGRESS}*"):
        sync(path)
    algorithm.save(out / CHECKPOINT)


def _save_policy(algorithm: PolicyOptimizer, out: Path) -> None:
    with scratch(out, f".{POLICY}-") as folder:
        algorithm.policy.save_pretrained(folder / POLICY)
        for path in (folder / POLICY).rglob("*"):
            sync(path)
        if (out / POLICY).is_dir():
            shutil.rmtree(out / POLICY)
        os.replace(folder / POLICY, out / POLICY)
    sync(out)


def _begin(
    config: RunConfig, out: Path, log: Callable[[str], Any], *, evaluate_before: bool
) -> tuple[PolicyOptimizer, dict[str, Any]]:
    """A new run in ``out``. Its config.json comes last: where there is one, the run can be resumed."""
    algorithm = config.make()
    evaluations: dict[str, Any] = {}
    before = _evaluate(algorithm, config) if evaluate_before else None
    # Only here: a mistake in the config has shown by now, and the earlier run is still there.
    (out / BEGINNING).touch()
    (out / CONFIG).unlink(missing_ok=True)  # first: what is left of the earlier run can no longer be resumed
    sync(out)
    for path in out.iterdir():
        if path.name not in (LOCK, BEGINNING):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if before is not None:
        log("before: " + ", ".join(f"{name} {value.value:.3f}" for name, value in before.items()))
        _record(out, evaluations, "before", before, 0)
    _save(algorithm, out)
    config.write(out / CONFIG, algorithm)
    (out / BEGINNING).unlink()
    return algorithm, evaluations


def _resume(config: RunConfig, out: Path) -> tuple[PolicyOptimizer, dict[str, Any]]:
    """The run in ``out`` as of its last checkpoint."""
    config.validate()
    for left in (out / BEGINNING, *out.glob(".*.part")):  # of a process that was killed
        left.unlink(missing_ok=True)
    algorithm = resolve(config.algo).load(
        out / CHECKPOINT, config.make_env(), trust_remote_code=config.trust_remote_code
    )
    if read_config(out)["timesteps"] != config.timesteps:
        config.write(out / CONFIG, algorithm)
    evaluations = read_evaluation(out)
    for when in evaluations:
        others = ("env", "split", "n_problems", "no_verdict", "timesteps")
        check_record(evaluations, when, out / EVALUATION, ("value", "low", "high"), others)
    return algorithm, evaluations


def prepare(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that a run in the folder ``out`` would destroy nothing that it was not asked to.

    Raises:
        FileNotFoundError: ``resume``, and there is no run with a checkpoint.
        ValueError: ``out`` holds other things, or a run and neither ``resume`` nor ``overwrite`` is set.
    """
    if not str(out).isprintable():  # a byte of it is no UTF-8, as safetensors needs
        raise ValueError(f"{str(out)!r} has characters that cannot be written: choose another folder")
    begun = (out / CONFIG).is_file()
    if resume:
        if not begun and (out / BEGINNING).is_file():
            raise FileNotFoundError(f"nothing to resume: the run in {out} ended before it began. Start it again")
        for name in (CONFIG, CHECKPOINT):
            if not (out / name).is_file():
                raise FileNotFoundError(f"nothing to resume: there is no {out / name}")
    elif begun and not overwrite:
        raise ValueError(f"{out} holds a run: choose another folder, or pass --resume or --overwrite")
    elif not begun and not (out / BEGINNING).is_file() and any(path.name != LOCK for path in out.iterdir()):
        raise ValueError(f"{out} is not empty and is not the folder of a run: choose another folder")


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


def _record(out: Path, evaluations: dict[str, Any], when: str, evaluation: Evaluation, timesteps: int) -> None:
    """Write ``evaluation`` to samples.jsonl and evaluation.json, and add it to ``evaluations``."""
    write_samples(out, evaluation, when, timesteps)
    evaluations[when] = evaluation_record(evaluation, timesteps)
    write_json(out / EVALUATION, evaluations)
