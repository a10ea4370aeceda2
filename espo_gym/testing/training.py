"""Checks of an algorithm as it trains: what it logs, that it resumes, that it learns."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.logger import KVWriter, Logger
from torch import Tensor

from espo_gym.algorithms import LossBatch, PolicyOptimizer
from espo_gym.diagnostics import DiagnosticWarning
from espo_gym.envs import TextEnv
from espo_gym.rollout import Rollout

from .bandit import Bandit
from .failure import Fault
from .rollouts import SMALL, make

Chosen = dict[str, Any]
LEARNING: Chosen = {
    "rollout_size": 32,
    "group_size": 8,
    "n_minibatches": 1,
    "max_completion_tokens": 3,
    "learning_rate": 3e-2,
    "warmup_steps": 1,
}
ROLLOUTS = 40


@dataclass(kw_only=True, eq=False)
class Plain(PolicyOptimizer):
    """REINFORCE with the mean of all rewards as its baseline; here for the metrics that every algorithm logs."""

    def advantages(self, rollout: Rollout) -> Tensor:
        return torch.where(rollout.has_verdict, rollout.rewards - rollout.rewards[rollout.has_verdict].mean(), 0.0)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[float, float]:
        return 1.0, 1e9

    def token_weights(self, batch: LossBatch) -> Tensor:
        return batch.mask.to(batch.logps.dtype) / batch.mask.sum().clamp(min=1)  # (B, T)


class Records(KVWriter):
    """Keeps what is logged: one dict of metrics a rollout."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        pass


def learn(algo: PolicyOptimizer, timesteps: int) -> list[dict[str, Any]]:
    """Train, and return the metrics of each rollout."""
    records = Records()
    algo.set_logger(Logger(None, [records]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosticWarning)  # tiny runs have what it warns of
        algo.learn(timesteps)
    return records.rows


def metric_names(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """The metrics have the names that every algorithm's metrics have; additional ones may appear under train/."""
    expected, found = (
        {name for row in learn(algo, 16) for name in row if not name.startswith("diagnostics/")}  # those come and go
        for algo in (make(Plain, {}), make(cls, chosen))
    )
    if missing := sorted(expected - found):
        raise Fault(f"no {', '.join(missing)}", "train and collect_rollout, where they are overridden")
    if more := sorted(name for name in found - expected if not name.startswith("train/")):
        raise Fault(f"besides them {', '.join(more)}", "the section of what the algorithm logs")


def resuming(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """Two rollouts, save, load and two more give the weights of four rollouts, bit for bit.

    What an algorithm remembers from one rollout to the next must be in the checkpoint: weights, the optimizer's
    moments, the counters and the hyperparameters are.
    """
    small = chosen | {"n_epochs": 2, "micro_batch_tokens": 24}
    whole, first = make(cls, small), make(cls, small)
    learn(whole, 1)
    size = whole.num_timesteps  # a rollout, those that dynamic sampling threw away included
    learn(first, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = first.save(Path(folder) / "half")
        rest = cls.load(path, env=TextEnv(Bandit()), device="cpu")
    if (rest.num_timesteps, rest.n_updates) != (size, whole.n_updates):
        raise Fault(f"{rest.num_timesteps} timesteps and {rest.n_updates} updates after loading", "load")
    for algo in (whole, rest):
        learn(algo, 2 * size)
    there, here = whole.policy.state_dict(), rest.policy.state_dict()
    for name in there:
        if not torch.equal(there[name], here[name]):
            gap = float((there[name] - here[name]).abs().max())
            look = "save and load, and attributes that change during training: they have to be in the checkpoint"
            raise Fault(f"{name} differs by up to {gap:.2g} from the uninterrupted run", look)


def learning(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """A two-action bandit is learned: after at most 40 rollouts of 32 completions, 9 in 10 choose the right action."""
    algo = make(cls, {}, **(SMALL | LEARNING | chosen))
    share = 0.0
    for _ in range(ROLLOUTS):
        share = learn(algo, 1)[-1]["rollout/reward_mean"]
        if share >= 0.95:
            return
    if share < 0.9:
        raise Fault(f"{share:.0%} choose it", "the sign of advantages and surrogate, and the optimizer")
