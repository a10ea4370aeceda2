r"""Dr. GRPO, GRPO done right. arXiv:2503.20783, Section 3.2.

Maximizes sum_it w_it J_it, where::

    A = R_i - mean R                                   over the completions to one problem, not divided by the std
    r = pi(y_t) / pi_old(y_t)                          one ratio per token
    J = min(r A, clip(r, 1 - low, 1 + high) A)
    w = 1 / (N T_max)                                  sum over tokens by a constant: long answers do not weigh less
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_constant


@dataclass(kw_only=True, eq=False)
class DrGRPO(PolicyOptimizer):
    """GRPO without its two biases: no division by the group's std, none by the completion's length.

    The constant is ``max_completion_tokens`` as given, as in TRL's ``loss_type="dr_grpo"``.
    """

    clip_low: float = 0.2
    """A ratio counts down to 1 - clip_low."""
    clip_high: float = 0.2
    """A ratio counts up to 1 + clip_high."""
    max_completion_tokens: int = 16_384
    """Tokens per completion; the model's context may allow fewer. Here also what sums over tokens are divided by."""

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict, scale=None)  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_constant(batch.mask, batch.logps.dtype, self.max_completion_tokens)  # (B, T)


dr_grpo_loss = loss_function(DrGRPO)
