"""Which quantities are shares, and so lie in [0, 1]."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from .run_folder import Run

SHARES = re.compile(
    r"rollout/(accuracy|truncated|zero_variance_groups|audited|audit_disagreement|verdict_\w+|no_verdict_\w+)"
    r"|train/(gradient_token_share|clip_fraction_\w+)"
    r"|(eval/)?(greedy|(avg|pass|maj)@\w+)|collapsed"
)
"""Metrics and scores that are shares of problems, completions, tokens or runs."""
REWARDS = ("rollout/reward_mean", "auc", "final")
"""Those that are a share of completions if every reward is 1 for a correct answer and 0 otherwise."""


def is_share(metric: str, runs: Iterable[Run]) -> bool:
    """Whether ``metric``, a metric of ``runs`` or a score of their comparison, is a share.

    A mean reward is one if it equals the accuracy in every rollout of all of them. Nothing else is known about the
    rewards of an environment: they may be shaped, and negative.
    """
    if metric in REWARDS:
        return all(_rewards_are_verdicts(run) for run in runs)
    return SHARES.fullmatch(metric) is not None


def _rewards_are_verdicts(run: Run) -> bool:
    rewards = run.rows.get("rollout/reward_mean")
    if rewards is None or len(rewards) == 0:
        return True  # it failed before its first update, and scores 0
    accuracy = run.rows.get("rollout/accuracy")
    return accuracy is not None and bool(np.allclose(rewards, accuracy, rtol=0, atol=1e-6, equal_nan=True))
