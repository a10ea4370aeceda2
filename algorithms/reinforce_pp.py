r"""REINFORCE++ with a group baseline. arXiv:2501.03262, Section 3.3.

Maximizes sum_it w_it J_it, where::

    A = (R_i - mean R) / std R                         mean over the completions to one problem, std over the batch
    r = pi(y_t) / pi_old(y_t)                          one ratio per token
    J = min(r A, clip(r, 1 - low, 1 + high) A)
    w = 1 / sum_i L_i                                  mean over the tokens of the batch
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_token


@dataclass(kw_only=True, eq=False)
class ReinforcePP(PolicyOptimizer):
    """One scale for the advantages of a whole batch: an easy problem's groups are not blown up by their small std.

    The std is of the rewards, as TRL's ``scale_rewards="batch"`` has it.
    """

    clip_low: float = 0.2
    """A ratio counts down to 1 - clip_low."""
    clip_high: float = 0.2
    """A ratio counts up to 1 + clip_high."""

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict, scale="batch")  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_token(batch.mask, batch.logps.dtype)  # (B, T)


reinforce_pp_loss = loss_function(ReinforcePP)
