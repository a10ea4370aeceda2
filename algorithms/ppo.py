r"""Proximal Policy Optimization. arXiv:1707.06347, Eq. 7 and 9; one step is one token.

Maximizes sum_it w_it (J_it - vf_coef V_it), where::

    A = GAE(gamma, lam) of the value head, whitened    over the policy's own tokens
    r = pi(y_t) / pi_old(y_t)                          one ratio per token
    J = min(r A, clip(r, 1 - low, 1 + high) A)
    V = max((v - R)^2, (clip(v, v_old -+ value_clip) - R)^2) / 2
    w = 1 / sum_i L_i                                  mean over the tokens of the batch
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch, LossOutput
from .terms import Clip, gae, per_token, whiten


@dataclass(kw_only=True, eq=False)
class PPO(PolicyOptimizer):
    """One ratio per token, one clip for all, and a value head instead of a group as the baseline.

    The reward of an episode stands at the policy's last token. Whitening is as in verl and the usual RLHF code.
    """

    clip_low: float = 0.2
    """A ratio counts down to 1 - clip_low."""
    clip_high: float = 0.2
    """A ratio counts up to 1 + clip_high."""
    value_clip: float = 0.2
    """How far a prediction may move from the old one before its loss stops pulling it on."""
    critic: str = "shared"
    """The value head sits on the policy's trunk ("shared") or on a separate copy of it ("separate")."""
    value_learning_rate: float | None = None
    """Step size of the value head and its own trunk; None: that of the policy."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """GAE's lambda: 1 is the Monte Carlo return, 0 the one-step difference."""

    # On one trunk, a value loss of full weight fills the clipped gradient norm and slows the policy down.
    presets: ClassVar[dict[str, dict[str, Any]]] = {"teaching": {"vf_coef": 0.1}}
    inapplicable: ClassVar[dict[str, str]] = {"dynamic_sampling": "its baseline is the value head, not the group"}
    kl_in_reward: ClassVar[bool] = True
    needs_values: ClassVar[bool] = True

    def annotate(self, rollout: Rollout) -> Rollout:
        return replace(rollout, returns=self.estimates(rollout)[1])  # (N, T)

    def advantages(self, rollout: Rollout) -> Tensor:
        return whiten(self.estimates(rollout)[0], rollout.mask & rollout.has_verdict[:, None])  # (N, T)

    def estimates(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Advantages before whitening, and returns, each (N, T)."""
        assert rollout.values is not None
        mask = rollout.mask & rollout.has_verdict[:, None]
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = mask & (positions == (mask * positions).amax(1, keepdim=True))  # (N, T) each row's last own token
        rewards = last * rollout.rewards[:, None] - self.kl_penalty(rollout)  # (N, T)
        return gae(rewards, rollout.values, mask, self.gamma, self.lam)

    def ratios(self, batch: LossBatch) -> Tensor:
        return (batch.logps - batch.old_logps).exp()  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        return self.clip_low, self.clip_high

    def token_weights(self, batch: LossBatch) -> Tensor:
        return per_token(batch.mask, batch.logps.dtype)  # (B, T)

    def loss(self, batch: LossBatch, weights: Tensor | None = None) -> LossOutput:
        out = super().loss(batch, weights)
        values, old, target = batch.need("values"), batch.need("old_values"), batch.need("returns")
        bounded = values.clamp(old - self.value_clip, old + self.value_clip)
        errors = torch.maximum((values - target).square(), (bounded - target).square()) / 2  # (B, T)
        value_loss = (out.weights * errors).sum()
        out.loss = out.loss + self.vf_coef * value_loss
        out.terms["value_loss"] = float(value_loss.detach())
        return out

    def prepare_policy(self) -> None:
        self.policy.add_value_head(separate=self.critic == "separate")

    def parameter_groups(self) -> list[dict[str, Any]]:
        head = self.policy.value_head
        assert head is not None
        critic = [*head.parameters(), *(self.policy.critic.parameters() if self.policy.critic is not None else [])]
        rate = self.learning_rate if self.value_learning_rate is None else self.value_learning_rate
        return [
            {"params": list(self.policy.model.parameters()), "lr": self.learning_rate},
            {"params": critic, "lr": rate},
        ]

    def validate(self) -> None:
        super().validate()
        self.check(("critic",), lambda x: x in ("shared", "separate"), "'shared' or 'separate'")
        self.check(("value_learning_rate",), lambda x: x is None or 0 < x < inf, "> 0 and finite, or None")
        self.check(("gamma", "lam"), lambda x: 0 <= x <= 1, "in [0, 1]")
        self.check(("value_clip",), lambda x: x > 0, "> 0 (inf: no clip)")
        self.check(("vf_coef",), lambda x: 0 <= x < inf, ">= 0 and finite")


ppo_loss = loss_function(PPO)
