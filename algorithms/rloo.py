r"""REINFORCE Leave-One-Out. arXiv:2402.14740, with PPO's clip for several steps per rollout.

Maximizes sum_it w_it J_it, where::

    A = R_i - mean of the other R                      over the completions to one problem
    r = pi(y_t) / pi_old(y_t)                          one ratio per token
    J = min(r A, clip(r, 1 - low, 1 + high) A)
    w = 1 / sum_i L_i                                  mean over the tokens of the batch
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, leave_one_out, per_token


@dataclass(kw_only=True, eq=False)
class RLOO(PolicyOptimizer):
    """An unbiased baseline from the group's other completions. ``kl_in="reward"`` takes the divergence off the rewards.

    The paper and TRL take one ratio per completion; token ratios are verl's and what the siblings here can be compared
    with.
    """

    clip_low: float = 0.2
    """A ratio counts down to 1 - clip_low."""
    clip_high: float = 0.2
    """A ratio counts up to 1 + clip_high."""

    kl_in_reward: ClassVar[bool] = True

    def advantages(self, rollout: Rollout) -> Tensor:
        rewards = rollout.rewards - self.kl_penalty(rollout).sum(1)
        return leave_one_out(rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_token(batch.mask, batch.logps.dtype)  # (B, T)


rloo_loss = loss_function(RLOO)
