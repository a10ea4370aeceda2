r"""Entropy Importance Sampling Policy Optimization. arXiv:2512.00499v2, Eq. 5-11.

Maximises sum_it w_it J_it, where::

    A   = (R_i - mean R) / std R                       over the responses with a verdict           (11)
    tau = the most uncertain fifth of y_i, or the rest                                              (7)
    s   = exp mean_{t in tau} log pi(y_t) / pi_old(y_t)   one ratio per group (geometric mean)     (10)
    r   = sg[s] pi(y_t) / sg[pi(y_t)]                  its value; the gradient through each token   (9)
    eps = alpha / log V * mean_{t in tau} entropy_t    one clip per group                           (8)
    J   = min(r A, clip(r, 1 - eps, 1 + eps) A)
    w   = 1 / (N K_i |tau|)                            mean over responses, groups, tokens          (5)

Where the paper is silent: ranks break ties by position, the earlier token counting as the more uncertain; a quantile q
leaves round((1 - q) L) tokens above it and the highest at least one, so a response of one token is one group; an empty
group is left out of the mean over groups (K_i counts the others).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import Any, ClassVar

import torch
from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, group_mean, group_sizes, through


@dataclass(kw_only=True, eq=False)
class ESPO(PolicyOptimizer):
    """One ratio and one clip per entropy group.

    At ratio 1 the mean over groups already gives the uncertain fifth of the tokens half of the weight; keep this in
    mind when you compare with GSPO, whose tokens all weigh the same.
    """

    alpha: float = 0.02
    """Width of the clip of a group at full entropy (Table 3: best of 0.01, 0.02, 0.05, 0.10)."""
    quantiles: tuple[float, ...] = (0.8,)
    """Quantiles of a response's entropies that part its groups (Fig. 6: the upper 20 % best of 10, 20, 40 %)."""
    ratio: str = "group"
    """"group": Eq. 9 after GSPO-token, as above. "group_token": as printed in v2, sg[s] pi(y_t) / sg[pi_old(y_t)]."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"teaching": {"alpha": 0.5}}

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def groups(self, batch: LossBatch) -> Tensor:
        """(B, T) long: 0 the most certain group, len(quantiles) the most uncertain."""
        entropies = batch.need("entropies").masked_fill(~batch.mask, -torch.inf)
        rank = entropies.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0 the most uncertain
        lengths = batch.mask.sum(1, keepdim=True)
        above = [((1 - q) * lengths).round() for q in sorted(self.quantiles)]  # tokens above each quantile
        above[-1:] = [above[-1].clamp(min=1)] if above else []
        return sum((rank < n).long() for n in above) + torch.zeros_like(rank)

    def ratios(self, batch: LossBatch) -> Tensor:
        s = group_mean(batch.logps - batch.old_logps, self.groups(batch), batch.mask).exp()  # (B, T)
        if self.ratio == "group_token":
            return s.detach() * (batch.logps - batch.old_logps).exp()
        return through(s, batch.logps)  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        entropy = group_mean(batch.need("entropies"), self.groups(batch), batch.mask)  # (B, T)
        eps = self.alpha / log(batch.need("vocab_size")) * entropy
        return eps, eps  # (B, T)

    def token_weights(self, batch: LossBatch) -> Tensor:
        size, count = group_sizes(self.groups(batch), batch.mask)  # (B, T), (B, 1)
        return batch.mask.to(batch.logps.dtype) / (size * count * batch.mask.any(1).sum()).clamp(min=1)  # (B, T)

    def validate(self) -> None:
        super().validate()
        self.check(("alpha",), lambda x: 0 < x < inf, "> 0 and finite; at 0 the clip would have no width")
        if any(not 0 < q < 1 for q in self.quantiles) or len(set(self.quantiles)) < len(self.quantiles):
            raise ValueError(f"quantiles must be distinct numbers between 0 and 1, not {self.quantiles}")
        self.check(("ratio",), lambda x: x in ("group", "group_token"), "'group' or 'group_token'")


espo_loss = loss_function(ESPO)
