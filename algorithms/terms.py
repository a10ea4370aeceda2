"""The terms that the formulas are written in: pure functions of tensors, no state.

B completions, T tokens, padded on the right; ``mask`` (B, T) bool marks the policy's own tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Clip = Any  # a number, or a Tensor (B, T); torch.clamp wants both ends of one kind and its stubs know no union

# -- means ---------------------------------------------------------------------------------------------------------


def sequence_mean(x: Tensor, mask: Tensor) -> Tensor:
    """(B, 1) mean of ``x`` (B, T) over each completion's tokens; 0 for a completion without any."""
    return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def group_mean(x: Tensor, groups: Tensor, mask: Tensor) -> Tensor:
    """(B, T) at each token the mean of ``x`` (B, T) over the tokens of its group; 0 where masked.

    ``groups`` (B, T) long numbers the groups within each completion.
    """
    member = _one_hot(groups, mask, x.dtype)  # (B, T, K)
    means = (x[..., None] * member).sum(1) / member.sum(1).clamp(min=1)  # (B, K)
    return (means[:, None] * member).sum(2)


def group_sizes(groups: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``(size, count)``: at each token (B, T) the tokens of its group, and (B, 1) the groups that are not empty."""
    member = _one_hot(groups, mask, torch.long)
    sizes = member.sum(1)  # (B, K)
    return (sizes[:, None] * member).sum(2), (sizes > 0).sum(1, keepdim=True)


def _one_hot(groups: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    # Not scatter_add: on a GPU its order of summation changes from run to run.
    k = int(groups.max()) + 1 if groups.numel() else 1
    return ((groups[..., None] == torch.arange(k, device=groups.device)) & mask[..., None]).to(dtype)


# -- token weights: what a token counts for; they add up to 1 over the batch ------------------------------------------


def per_sequence(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T) 1 / (N L_i): the mean over completions of the mean over their tokens. N counts those with a token."""
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    return mask.to(dtype) / (lengths * mask.any(1).sum().clamp(min=1))


def per_token(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T) 1 / sum of all L: the mean over all tokens of the batch."""
    return mask.to(dtype) / mask.sum().clamp(min=1)


def per_constant(mask: Tensor, dtype: torch.dtype, constant: int) -> Tensor:
    """(B, T) 1 / (N constant): the mean over completions of the sum over their tokens, by a constant."""
    return mask.to(dtype) / (constant * mask.any(1).sum().clamp(min=1))


# -- ratios and clips ------------------------------------------------------------------------------------------------


def through(value: Tensor, logps: Tensor) -> Tensor:
    """``sg[value] * pi / sg[pi]``: the value of ``value``, the gradient through each token's own log-prob.

    GSPO-token's form (arXiv:2507.18071, Eq. 14). (B, T) from ``value`` (B, 1) or (B, T) and ``logps`` (B, T).
    """
    return value.detach() * (logps - logps.detach()).exp()


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, low: Clip, high: Clip, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic objective ``min(r A, clip(r, 1 - low, 1 + high) A)`` and where the clip decided it.

    ``dual_clip`` c keeps it above c A where A < 0, however large the ratio. Returns ``(surrogate, clipped)``, both
    (B, T); where ``clipped`` is true the token has no gradient.
    """
    unclipped = ratio * advantages
    bounded = ratio.clamp(1 - low, 1 + high) * advantages
    surrogate, clipped = torch.minimum(unclipped, bounded), bounded < unclipped
    if dual_clip is not None:
        floor = torch.where(advantages < 0, dual_clip * advantages, -torch.inf)
        surrogate, clipped = torch.maximum(surrogate, floor), clipped | (surrogate < floor)
    return surrogate, clipped


# -- advantages ------------------------------------------------------------------------------------------------------


def group_advantages(
    rewards: Tensor, groups: Tensor, has_verdict: Tensor, *, scale: str | None = "group", eps: float = 1e-6
) -> Tensor:
    """(N,) how much better a completion did than its group: ``(R - mean) / (std + eps)``.

    ``rewards`` (N,), ``groups`` (N,) long, ``has_verdict`` (N,) bool. The mean runs over the completions of the group
    with a verdict (ESPO's Eq. 11), the std (ddof 1) over the same ones, or over the whole batch for ``scale="batch"``
    (REINFORCE++ with baseline); None leaves the division out (Dr. GRPO). Responses without a verdict get exactly 0,
    and so does a group whose rewards are all equal or that has a single completion left.
    """
    centered, count = _centered(rewards, groups, has_verdict)  # (N, n groups), (n groups,)
    if scale == "group":
        std = (centered.square().sum(0) / (count - 1).clamp(min=1)).sqrt()
        centered = centered / (std + eps)
    elif scale == "batch" and has_verdict.sum() > 1:
        centered = centered / (rewards[has_verdict].std() + eps)
    return centered.sum(1)


def leave_one_out(rewards: Tensor, groups: Tensor, has_verdict: Tensor) -> Tensor:
    """(N,) reward less the mean of the group's *other* completions (RLOO); 0 where there is no other, or no verdict."""
    centered, count = _centered(rewards, groups, has_verdict)
    return (centered * count / (count - 1).clamp(min=1)).sum(1)


def _centered(rewards: Tensor, groups: Tensor, has_verdict: Tensor) -> tuple[Tensor, Tensor]:
    """(N, n groups) reward less its group's mean, 0 for other groups, and (n groups,) completions with a verdict."""
    rewards = torch.where(has_verdict, rewards, 0.0)[:, None]
    member = (groups[:, None] == groups.unique()) & has_verdict[:, None]  # (N, n groups)
    count = member.to(rewards.dtype).sum(0)
    centered = torch.where(member, rewards - (rewards * member).sum(0) / count.clamp(min=1), 0.0)
    # Rounding leaves all-equal rewards a hair off their mean; such a group must get 0 and not noise.
    first = torch.where(member, rewards, torch.inf).amin(0)
    return torch.where((~member | (rewards == first)).all(0), 0.0, centered), count


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation over the policy's own tokens (arXiv:1506.02438, Eq. 16).

    All (B, T). A token that is not the policy's is passed over: the next own token follows the last one. Returns
    ``(advantages, returns)`` with ``returns = advantages + values``; both 0 where masked.
    """
    advantages = torch.zeros_like(values)
    next_value, running = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        own = mask[:, t]
        running = torch.where(own, delta + gamma * lam * running, running)
        next_value = torch.where(own, values[:, t], next_value)
        advantages[:, t] = torch.where(own, running, 0.0)
    return advantages, torch.where(mask, advantages + values, 0.0)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """(B, T) ``x`` shifted and scaled to mean 0 and std 1 (ddof 1) over the masked tokens; 0 elsewhere."""
    count = mask.sum()
    mean = (x * mask).sum() / count.clamp(min=1)
    variance = ((x - mean).square() * mask).sum() / (count - 1).clamp(min=1)
    return torch.where(mask, (x - mean) / (variance + 1e-8).sqrt(), 0.0)


# -- divergence ------------------------------------------------------------------------------------------------------


def kl_estimate(log_ratio: Tensor, estimator: str) -> Tensor:
    """Per token, an estimate of KL(p || q) from ``log_ratio = log p - log q`` at a token drawn from p.

    k1 = log p/q is unbiased and may be negative; k2 = (log p/q)^2 / 2; k3 = q/p - 1 - log q/p is unbiased and never
    negative (Schulman, http://joschu.net/blog/kl-approx.html).
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    if estimator == "k3":
        return (-log_ratio).exp() - 1 + log_ratio
    raise ValueError(f"kl_estimator must be 'k1', 'k2' or 'k3', not {estimator!r}")
