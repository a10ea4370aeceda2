r"""Entropy Importance Sampling Policy Optimization. arXiv:2512.00499v2, Eq. 5-11.

Maximizes sum_it w_it J_it, where::

    A   = (R_i - mean R) / std R                       over the completions with a verdict         (11)
    tau = the most uncertain fifth of y_i, or the rest                                              (7)
    s   = exp mean_{t in tau} log pi(y_t) / pi_old(y_t)   one ratio per group (geometric mean)     (10)
    r   = sg[s] pi(y_t) / sg[pi(y_t)]                  its value; the gradient through each token   (9)
    eps = alpha / log V * mean_{t in tau} entropy_t    one clip per group                           (8)
    J   = min(r A, clip(r, 1 - eps, 1 + eps) A)
    w   = 1 / (N K_i |tau|)                            mean over completions, groups, tokens        (5)

Where the paper is silent: ranks break ties by position, the earlier token counting as the more uncertain; a quantile q
leaves round((1 - q) L) tokens above it and the highest at least one, so a completion of one token is one group; an
empty group is left out of the mean over groups (K_i counts the others).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, log
from typing import Any, ClassVar

import torch
from torch import Tensor

from espo_gym.rollout import Rollout

from .base import PolicyOptimizer, loss_function
from .loss import LossBatch
from .terms import Clip, group_advantages, group_mean, group_sizes, per_sequence, through


@dataclass(kw_only=True, eq=False)
class ESPO(PolicyOptimizer):
    """One ratio and one clip per entropy group.

    At ratio 1 the mean over groups already gives the uncertain fifth of the tokens half of the weight; keep this in
    mind when you compare with GSPO, whose tokens all weigh the same.
    """

    alpha: float = 0.02
    """Width of the clip of a group at full entropy (Table 3: best of 0.01, 0.02, 0.05, 0.10)."""
    alpha_high: float | None = None
    """Upper clip width, if different from the lower one."""
    eps_min: float = 0.0
    """The clip is at least this wide."""
    clip_low: float | None = None
    """With clip_high: a fixed clip for all groups, from 1 - clip_low, instead of Eq. 8; alpha then has no effect."""
    clip_high: float | None = None
    """With clip_low: up to 1 + clip_high."""
    quantiles: tuple[float, ...] | None = (0.8,)
    """Quantiles of the entropies that part the groups (Fig. 6: the upper 20 % best of 10, 20, 40 %). None of them make
    one group; None makes each token its own group."""
    quantiles_over: str = "completion"
    """The quantiles are taken over each "completion", or over all tokens of the "batch" (in training: the rollout)."""
    ratio: str = "group"
    """"group": Eq. 9 after GSPO-token, as above. "group_token": as printed in v2, sg[s] pi(y_t) / sg[pi_old(y_t)]."""
    group_weighting: str = "groups"
    """"groups": Eq. 5. "tokens": a group weighs as many tokens as it has, w = 1 / (N L_i)."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"teaching": {"alpha": 0.5}}

    def annotate(self, rollout: Rollout) -> Rollout:
        judged = rollout.mask & rollout.has_verdict[:, None]
        return replace(rollout, token_groups=self.part(rollout.entropies, judged))  # (N, T)

    def advantages(self, rollout: Rollout) -> Tensor:
        return group_advantages(rollout.rewards, rollout.groups, rollout.has_verdict)  # (N,)

    def groups(self, batch: LossBatch) -> Tensor:
        """(B, T) long: 0 the most certain group, len(quantiles) the most uncertain."""
        if batch.token_groups is not None:
            return batch.token_groups
        return self.part(batch.need("entropies"), batch.mask)

    def part(self, entropies: Tensor, mask: Tensor) -> Tensor:
        """Part the tokens of ``entropies`` (B, T), ``mask`` (B, T), into groups (B, T); see :meth:`groups`."""
        shape, entropies = entropies.shape, entropies.masked_fill(~mask, -torch.inf)
        if self.quantiles_over == "batch":
            entropies, mask = entropies.reshape(1, -1), mask.reshape(1, -1)
        rank = entropies.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0 the most uncertain
        if self.quantiles is None:
            return rank.reshape(shape)
        lengths = mask.sum(1, keepdim=True)
        above = [((1 - q) * lengths).round() for q in sorted(self.quantiles)]  # tokens above each quantile
        above[-1:] = [n.clamp(min=1) for n in above[-1:]]
        groups = torch.stack([rank < n for n in above]).sum(0) if above else torch.zeros_like(rank)
        return groups.reshape(shape)

    def ratios(self, batch: LossBatch) -> Tensor:
        s = group_mean(batch.logps - batch.old_logps, self.groups(batch), batch.mask).exp()  # (B, T)
        if self.ratio == "group_token":
            return s.detach() * (batch.logps - batch.old_logps).exp()
        return through(s, batch.logps)  # (B, T)

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        if self.clip_low is not None:
            return self.clip_low, self.clip_high
        entropy = group_mean(batch.need("entropies"), self.groups(batch), batch.mask)  # (B, T)
        share = entropy / log(batch.need("vocab_size"))  # of the greatest entropy that there could be
        alphas = (self.alpha, self.alpha if self.alpha_high is None else self.alpha_high)
        low, high = ((alpha * share).clamp(min=self.eps_min) for alpha in alphas)
        return low, high  # (B, T)

    def token_weights(self, batch: LossBatch) -> Tensor:
        if self.group_weighting == "tokens":
            return per_sequence(batch.mask, batch.logps.dtype)  # (B, T)
        size, count = group_sizes(self.groups(batch), batch.mask)  # (B, T), (B, 1)
        return batch.mask.to(batch.logps.dtype) / (size * count * batch.mask.any(1).sum()).clamp(min=1)  # (B, T)

    @staticmethod
    def ablation(name: str) -> dict[str, Any]:
        """Hyperparameters of a rung of the ladder from GRPO to ESPO and back: ``ESPO(..., **ESPO.ablation("gspo"))``.

        - ``grpo``: each token a group, GRPO's fixed clip: equal to GRPO
        - ``gspo``: one group, GSPO's fixed clip: equal to GSPO
        - ``no_adaptive_clip``, ``no_adaptive_clip_wide``: entropy groups with a fixed clip, GSPO's or DAPO's
        - ``no_grouping``: each token a group with its own clip; ``one_group``: GSPO with an adaptive clip
        - ``token_weighting``: the weights of GSPO
        - ``espo``: nothing taken away
        """
        if name not in ABLATIONS:
            raise ValueError(f"no ablation {name!r}; there are {', '.join(ABLATIONS)}")
        return dict(ABLATIONS[name])

    def validate(self) -> None:
        super().validate()
        self.check(("alpha",), lambda x: 0 < x < inf, "> 0 and finite; at 0 the clip would have no width")
        self.check(("alpha_high",), lambda x: x is None or 0 < x < inf, "> 0 and finite, or None")
        self.check(("eps_min",), lambda x: 0 <= x < inf, ">= 0 and finite")
        q = self.quantiles
        if q is not None and (any(not 0 < x < 1 for x in q) or len(set(q)) < len(q)):
            raise ValueError(f"quantiles must be distinct numbers between 0 and 1, not {q}")
        self.check(("quantiles_over",), lambda x: x in ("completion", "batch"), "'completion' or 'batch'")
        self.check(("ratio",), lambda x: x in ("group", "group_token"), "'group' or 'group_token'")
        self.check(("group_weighting",), lambda x: x in ("groups", "tokens"), "'groups' or 'tokens'")
        if (self.clip_low is None) != (self.clip_high is None):
            raise ValueError("a fixed clip needs both clip_low and clip_high")
        if self.clip_low is not None and (self.eps_min or self.alpha_high is not None):
            raise ValueError(
                "eps_min and alpha_high have no effect with a fixed clip: remove them, or remove clip_low and clip_high"
            )


ABLATIONS: dict[str, dict[str, Any]] = {
    "grpo": {"quantiles": None, "clip_low": 0.2, "clip_high": 0.2},
    "gspo": {"quantiles": (), "clip_low": 3e-4, "clip_high": 4e-4},
    "no_adaptive_clip": {"clip_low": 3e-4, "clip_high": 4e-4},
    "no_adaptive_clip_wide": {"clip_low": 0.2, "clip_high": 0.28},
    "no_grouping": {"quantiles": None},
    "one_group": {"quantiles": ()},
    "token_weighting": {"group_weighting": "tokens"},
    "espo": {},
}

espo_loss = loss_function(ESPO)
