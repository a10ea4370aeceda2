r"""Geometric-Mean Policy Optimization. arXiv:2507.20673, Eq. 4.

Maximizes sum_it w_it J_it, where::

    A = (R_i - mean R) / std R                         over the completions to one problem
    l = log pi(y_t) / pi_old(y_t)                      one log-ratio per token
    m = mean_t min(l, clip(l, -low, high))             for A > 0; the max for A < 0
    J = exp(m) A                                       a geometric mean, the same at every token of the completion
    w = 1 / (N L_i)                                    mean over completions
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import ClassVar

from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_sequence, sequence_mean


@dataclass(kw_only=True, eq=False)
class GMPO(PolicyOptimizer):
    """The geometric mean of clipped token ratios instead of their arithmetic mean: outliers count less.

    The clip is of log-ratios, per token, as in the paper and in TRL; verl's GMPO is the same.
    """

    clip_low: float = 0.4
    """A log-ratio counts down to -clip_low."""
    clip_high: float = 0.4
    """A log-ratio counts up to clip_high."""

    inapplicable: ClassVar[dict[str, str]] = {"dual_clip": "it bounds a token's ratio, and here only their mean counts"}

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def ratio_bounds(self, batch: LossBatch) -> tuple[Clip, Clip]:
        low, high = self.clip_range(batch)
        return exp(-low), exp(high)

    def surrogate(self, batch: LossBatch) -> tuple[Tensor, Tensor, Tensor]:
        low, high = self.clip_range(batch)
        sign, log_ratio = batch.advantages.sign(), batch.logps - batch.old_logps  # (B, T)
        bounded = sign * log_ratio.clamp(-low, high)
        pessimistic = sign * (sign * log_ratio).minimum(bounded)
        surrogate = sequence_mean(pessimistic, batch.mask).exp() * batch.advantages  # (B, T)
        return surrogate, self.ratios(batch).detach(), (bounded < sign * log_ratio) & batch.mask

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_sequence(batch.mask, batch.logps.dtype)  # (B, T)


gmpo_loss = loss_function(GMPO)
