r"""Decoupled Clip and Dynamic Sampling Policy Optimization. arXiv:2503.14476, Eq. 8-13.

Maximizes sum_it w_it J_it, where::

    A = (R_i + P_i - mean) / std                       over the completions to one problem
    P = min(0, (T_max - T_buffer - L_i) / T_buffer)    soft overlong penalty                        (13)
    r = pi(y_t) / pi_old(y_t)                          one ratio per token
    J = min(r A, clip(r, 1 - low, 1 + high) A)         clip higher                                  (10)
    w = 1 / sum_i L_i                                  mean over the tokens of the batch            (12)

and groups whose rewards are all equal are replaced by fresh ones (11).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, per_token


@dataclass(kw_only=True, eq=False)
class DAPO(PolicyOptimizer):
    """GRPO with a higher upper clip, the mean over all tokens, dynamic sampling and a soft penalty on length.

    TRL's ``loss_type="dapo"`` is the mean over tokens alone, with GRPO's clip.
    """

    clip_low: float = 0.2
    """A ratio counts down to 1 - clip_low."""
    clip_high: float = 0.28
    """A ratio counts up to 1 + clip_high."""
    dynamic_sampling: bool = True
    """Replace groups whose rewards are all equal by fresh ones, in up to max_resamples further rollouts."""
    overlong_buffer: int = 0
    """Tokens before max_completion_tokens over which the reward falls by up to 1 (the paper: 4096; 0: no penalty)."""

    def advantages(self, rollout: Rollout) -> Tensor:
        rewards = rollout.rewards + self.overlong_penalty(rollout.mask.sum(1))
        return group_advantages(rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def overlong_penalty(self, lengths: Tensor) -> Tensor:
        """(N,) from 0 down to -1, for completions of ``lengths`` (N,) tokens."""
        if not self.overlong_buffer:
            return lengths * 0.0
        return ((self.max_completion_tokens - self.overlong_buffer - lengths) / self.overlong_buffer).clamp(-1, 0)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_token(batch.mask, batch.logps.dtype)  # (B, T)

    def validate(self) -> None:
        super().validate()
        limit = self.max_completion_tokens
        self.check(("overlong_buffer",), lambda x: 0 <= x < limit, f"from 0 to below max_completion_tokens = {limit}")


dapo_loss = loss_function(DAPO)
