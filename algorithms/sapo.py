r"""Soft Adaptive Policy Optimization. arXiv:2511.20347, Eq. 6-8.

Maximizes sum_it w_it J_it, where::

    A   = (R_i - mean R) / std R                       over the completions to one problem
    r   = pi(y_t) / pi_old(y_t)                        one ratio per token
    tau = tau_pos for A > 0, else tau_neg
    J   = 4 / tau sigmoid(tau (r - 1)) A               a gate that closes softly instead of a clip
    w   = 1 / (N L_i)                                  mean over completions of the mean over tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_sequence


@dataclass(kw_only=True, eq=False)
class SAPO(PolicyOptimizer):
    """A sigmoid gate on the ratio instead of a clip; at ratio 1 its slope is 1, and nowhere is a gradient cut."""

    tau_pos: float = 1.0
    """How fast the gate closes for good completions."""
    tau_neg: float = 1.05
    """How fast it closes for bad ones."""

    inapplicable: ClassVar[dict[str, str]] = {"dual_clip": "its gate bounds the ratio already"}

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def ratio_bounds(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return -inf, inf

    def surrogate(self, batch: LossBatch) -> tuple[Tensor, Tensor, Tensor]:
        ratio = self.ratios(batch)
        tau = torch.full_like(ratio, self.tau_neg).masked_fill(batch.advantages > 0, self.tau_pos)
        surrogate = 4 / tau * (tau * (ratio - 1)).sigmoid() * batch.advantages
        return surrogate, ratio.detach(), torch.zeros_like(batch.mask)  # (B, T) each

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_sequence(batch.mask, batch.logps.dtype)  # (B, T)

    def validate(self) -> None:
        super().validate()
        self.check(("tau_pos", "tau_neg"), lambda x: 0 < x < inf, "> 0 and finite")


sapo_loss = loss_function(SAPO)
