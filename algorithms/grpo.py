r"""Group Relative Policy Optimization. arXiv:2402.03300, Eq. 3 (without its KL term, which is ``kl_coef``).

Maximizes sum_it w_it J_it, where::

    A = (R_i - mean R) / std R                         over the completions to one problem
    r = pi(y_t) / pi_old(y_t)                          one ratio per token
    J = min(r A, clip(r, 1 - low, 1 + high) A)
    w = 1 / (N L_i)                                    mean over completions of the mean over tokens
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_sequence


@dataclass(kw_only=True, eq=False)
class GRPO(PolicyOptimizer):
    """One ratio per token, one clip for all.

    TRL's ``GRPOTrainer`` defaults to DAPO's aggregation; this is the paper's (TRL's ``loss_type="grpo"``).
    """

    clip_low: float = 0.2
    """A ratio counts down to 1 - clip_low."""
    clip_high: float = 0.2
    """A ratio counts up to 1 + clip_high."""

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_sequence(batch.mask, batch.logps.dtype)  # (B, T)


grpo_loss = loss_function(GRPO)
