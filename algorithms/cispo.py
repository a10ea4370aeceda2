r"""Clipped Importance Sampling Policy Optimization. MiniMax-M1, arXiv:2506.13585, Eq. 4-5.

Maximizes sum_it w_it J_it, where::

    A = (R_i - mean R) / std R                         over the completions to one problem
    r = pi(y_t) / pi_old(y_t)                          one ratio per token
    J = sg[clip(r, ratio_min, ratio_max)] A log pi(y_t)    the weight is clipped, the gradient never cut
    w = 1 / sum_i L_i                                  mean over the tokens of the batch
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_token


@dataclass(kw_only=True, eq=False)
class CISPO(PolicyOptimizer):
    """REINFORCE with a clipped importance weight: every token keeps a gradient.

    The bounds are absolute. TRL's ``cispo`` has the upper one alone; verl's are 0.8 and 1.2.
    """

    ratio_min: float = 0.0
    """Least weight of a token."""
    ratio_max: float = 5.0
    """Greatest weight of a token."""

    inapplicable: ClassVar[dict[str, str]] = {"dual_clip": "its ratio is bounded already, by ratio_max"}

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def ratio_bounds(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.ratio_min, self.ratio_max

    def surrogate(self, batch: LossBatch) -> tuple[Tensor, Tensor, Tensor]:
        ratio = self.ratios(batch).detach()
        surrogate = ratio.clamp(self.ratio_min, self.ratio_max) * batch.advantages * batch.logps
        return surrogate, ratio, torch.zeros_like(batch.mask)  # (B, T) each

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_token(batch.mask, batch.logps.dtype)  # (B, T)

    def validate(self) -> None:
        super().validate()
        if not 0 <= self.ratio_min < self.ratio_max:
            raise ValueError(f"0 <= ratio_min < ratio_max must hold, not {self.ratio_min} and {self.ratio_max}")


cispo_loss = loss_function(CISPO)
