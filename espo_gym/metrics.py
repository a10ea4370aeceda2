"""Metrics of a rollout: the same keys and definitions for every algorithm. docs/metrics.md lists all of them."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from .rollout import Rollout


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """What the policy did and how it was judged.

    Everything but the counts of verdicts and the completion lengths is over completions with a verdict; NaN if there
    are none.
    """
    n, judged, mask = len(rollout), rollout.has_verdict, rollout.mask
    rewards = rollout.rewards[judged]
    lengths = mask.sum(1).float()
    counts = Counter(v.status for v in rollout.verdicts)
    metrics = {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()) if len(rewards) > 1 else float("nan"),
        "accuracy": counts["correct"] / int(judged.sum()) if judged.any() else float("nan"),
        "entropy": float(rollout.entropies[mask & judged[:, None]].mean()),
        "completion_length": float(lengths.mean()),
        "completion_length_max": float(lengths.max()),
        "truncated": float(rollout.truncated.float().mean()),
        "zero_variance_groups": zero_variance_share(rollout),
    }
    for status in ("correct", "incorrect", "no_answer", "no_verdict"):
        metrics[f"verdict_{status}"] = counts[status] / n
    for reason, count in Counter(v.reason for v in rollout.verdicts if not v.has_verdict).items():
        metrics[f"no_verdict_{reason}"] = count / n
    audited = [v for v in rollout.verdicts if v.audit is not None]
    if audited:
        metrics["audited"] = len(audited) / n
        metrics["audit_disagreement"] = sum(v.audit != v.status for v in audited) / len(audited)
    return metrics


def zero_variance_share(rollout: Rollout) -> float:
    """Share of groups whose rewards are all equal: a group method learns nothing from them."""
    groups = rollout.groups[rollout.has_verdict]
    rewards = rollout.rewards[rollout.has_verdict]
    flat = [bool((rewards[groups == g] == rewards[groups == g][0]).all()) for g in groups.unique()]
    return sum(flat) / len(flat) if flat else float("nan")


def informative(rollout: Rollout) -> Rollout:
    """The groups of ``rollout`` whose rewards, of completions with a verdict, are not all equal."""
    keep = torch.zeros_like(rollout.has_verdict)
    for g in rollout.groups.unique():
        member = rollout.groups == g
        judged = rollout.rewards[member & rollout.has_verdict]
        keep |= member & bool(len(judged) and (judged != judged[0]).any())
    return rollout.rows(keep.nonzero().squeeze(1))


def logp_gap(sampled: Tensor, recomputed: Tensor, mask: Tensor) -> dict[str, float]:
    """How far the sampler's log-probs are from those of the training forward pass under the same weights, in nats.

    All (B, T). ``logp_gap_token`` is the largest difference at a token, ``logp_gap_sequence`` the largest difference
    of a completion's mean: if that is as large as a clip range, the clip acts on noise.
    """
    gap = torch.where(mask, recomputed - sampled, 0.0)
    means = gap.sum(1) / mask.sum(1).clamp(min=1)
    return {"logp_gap_token": float(gap.abs().max()), "logp_gap_sequence": float(means.abs().max())}


def explained_variance(predictions: Tensor, targets: Tensor) -> float:
    """``1 - var(targets - predictions) / var(targets)``; NaN where all targets are equal."""
    variance = float(targets.var()) if len(targets) > 1 else 0.0
    return float("nan") if variance == 0 else 1 - float((targets - predictions).var()) / variance
