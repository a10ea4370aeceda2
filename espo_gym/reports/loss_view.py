"""What the loss of an algorithm does to each token of a batch: ratio, bounds, weight and gradient."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from espo_gym.algorithms import LossBatch, LossOutput, Objective


@dataclass
class LossView:
    """One algorithm's view of a batch. (B, T) tensors without gradient, 0 where masked."""

    loss: float
    ratio: Tensor
    """The importance ratio that the surrogate uses."""
    low: Tensor
    """Smallest ratio that is not clipped; -inf without a bound."""
    high: Tensor
    """Largest ratio that is not clipped; inf without a bound."""
    advantages: Tensor
    weights: Tensor
    """Weight of each token in the sum that makes the loss."""
    gradient: Tensor
    """d loss / d logp of the token, by autograd."""
    unclipped_gradient: Tensor
    """The same, for the same loss with an infinitely wide clip."""
    clipped: Tensor
    """Bool: the clip cuts the gradient of the token."""
    groups: Tensor | None
    """Long: the group whose ratio and clip the token shares, 0 the most certain; None without groups."""
    mask: Tensor
    """Bool: the policy's own tokens in completions with a verdict; only these are part of the loss."""

    def summary(self) -> dict[str, float]:
        """Statistics over the batch.

        - ``active``: tokens with a non-zero advantage, as a share of all
        - ``cut``: tokens whose gradient the clip cuts, as a share of the active ones
        - ``lost``: ``sum |g0 - g| / sum |g0|`` with g the gradient and g0 that without the clip: the share of the
          gradient (L1) that is discarded
        - ``ratio_min``, ``ratio_max``
        - ``width``: mean of half the distance between the bounds, inf without bounds
        """
        active = self.mask & (self.advantages != 0)
        whole = self.unclipped_gradient.abs().sum()
        ratio = self.ratio[self.mask] if self.mask.any() else torch.ones(1)
        width = ((self.high - self.low) / 2)[self.mask]
        return {
            "active": float(active.sum() / self.mask.sum().clamp(min=1)),
            "cut": float(self.clipped.sum() / active.sum().clamp(min=1)),
            "lost": float((self.unclipped_gradient - self.gradient).abs().sum() / whole) if whole > 0 else 0.0,
            "ratio_min": float(ratio.min()),
            "ratio_max": float(ratio.max()),
            "width": float(width.mean()) if len(width) else inf,
        }


def view_loss(objective: Objective, batch: LossBatch) -> LossView:
    """The loss of ``objective`` on ``batch``, and its effect on each token."""
    loss, gradient, out = _gradient(objective, batch)
    no_clip = copy.copy(objective)
    vars(no_clip).update(dual_clip=None, clip_range=lambda batch: (inf, inf))
    _, unclipped_gradient, _ = _gradient(no_clip, batch)
    try:
        bounds = objective.ratio_bounds(batch)
    except NotImplementedError:  # neither clip_range nor ratio_bounds: a custom surrogate without bounds
        bounds = -inf, inf
    zeros = torch.zeros_like(out.ratio)
    make_groups = getattr(objective, "groups", None)  # ESPO's; a new algorithm may have its own
    return LossView(
        loss=float(loss),
        ratio=out.ratio.masked_fill(~batch.mask, 0),
        low=zeros + bounds[0],
        high=zeros + bounds[1],
        advantages=batch.advantages,
        weights=out.weights.detach(),
        gradient=gradient,
        unclipped_gradient=unclipped_gradient,
        clipped=out.clipped,
        groups=None if make_groups is None else make_groups(batch),
        mask=batch.mask,
    )


def _gradient(objective: Objective, batch: LossBatch) -> tuple[Tensor, Tensor, LossOutput]:
    """The loss, its gradient in each token's log-probability (B, T), and the whole output."""
    logps = batch.logps.detach().requires_grad_()
    out = objective.loss(replace(batch, logps=logps))
    (gradient,) = torch.autograd.grad(out.loss, logps, allow_unused=True, materialize_grads=True)
    return out.loss.detach(), gradient, out
