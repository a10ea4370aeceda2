r"""Group Sequence Policy Optimization. arXiv:2507.18071, Eq. 5-7, in the token form of Eq. 13-14.

Maximizes sum_it w_it J_it, where::

    A = (R_i - mean R) / std R                         over the completions to one problem
    s = exp mean_t log pi(y_t) / pi_old(y_t)           one ratio per completion (geometric mean)
    r = sg[s] pi(y_t) / sg[pi(y_t)]                    its value; the gradient through each token
    J = min(r A, clip(r, 1 - low, 1 + high) A)
    w = 1 / (N L_i)                                    mean over completions of the mean over tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_sequence, sequence_mean, through


@dataclass(kw_only=True, eq=False)
class GSPO(PolicyOptimizer):
    """One ratio per completion, one clip for all.

    The clip is narrow because a mean over tokens moves far less than a token: at GRPO's 0.2 it would never act.
    """

    clip_low: float = 3e-4
    """A ratio counts down to 1 - clip_low."""
    clip_high: float = 4e-4
    """A ratio counts up to 1 + clip_high."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"teaching": {"clip_low": 3e-2, "clip_high": 4e-2}}

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def ratios(self, batch: LossBatch) -> Tensor:
        s = sequence_mean(batch.logps - batch.old_logps, batch.mask).exp()  # (B, 1)
        return through(s, batch.logps)  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_sequence(batch.mask, batch.logps.dtype)  # (B, T)


gspo_loss = loss_function(GSPO)
