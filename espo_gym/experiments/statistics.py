"""Statistics of paired runs: differences with intervals, Holm, and rliable's estimators.

The estimators are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv:2108.13264), built on scipy's ``trim_mean`` and ``bootstrap``, since the package rliable draws from NumPy's
global random state. Scores are arrays (n, m): n seeds, m tasks. Every bootstrap has its own generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, nan

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from espo_gym.estimate import Estimate

RESAMPLES = 5_000
SEED = 20_240
"""Seed of every bootstrap."""


@dataclass(frozen=True)
class Difference:
    """The mean of x - y over the seeds."""

    mean: float
    low: float
    """With ``high``: Student's 95 % interval of the mean; NaN with one seed. Both are the mean where the difference is
    the same on every seed, which is no interval but the lack of one."""
    high: float
    p: float
    """Of the paired t-test, two-sided; NaN with one seed."""
    p_signs: float
    """Of the sign-flip test, two-sided, which only assumes that two equal algorithms could have been swapped at every
    seed. At least 2 / 2^n."""
    n: int
    """Number of seeds."""

    def __str__(self) -> str:
        # -0.0004 becomes -0.000, so that it shows whether the interval contains 0. 0 itself is +0.000.
        mean, low, high = (round(value, 12) + 0.0 for value in (self.mean, self.low, self.high))
        if self.n < 2:
            return f"{mean:+.3f}" if self.n else "-"
        return f"{mean:+.3f} (on each of {self.n} seeds)" if low == high else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def paired_difference(x: NDArray[np.float64], y: NDArray[np.float64], *, limit: float = inf) -> Difference:
    """Mean of x - y over seeds, for scores (n,) or (n, m) with the same seeds in the same order.

    Tasks are averaged first, since only the seeds are independent. The interval is Student's and not a percentile
    bootstrap, which at ten seeds misses the true value about twice as often as it claims
    (``benchmarks/compare_self.py``). Seeds at which a score is NaN are left out.

    Args:
        limit: the differences, and so the ends of the interval, are known to be no further from 0: 1 for two shares.
            Cutting the interval off there costs no coverage and leaves p and the interval in agreement about 0.

    Raises ValueError: the shapes differ.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape:
        raise ValueError(f"paired scores must have one shape, not {x.shape} and {y.shape}")
    d = x - y
    d = d.reshape(len(d), -1).mean(1)
    d = d[~np.isnan(d)]
    n = len(d)
    if n == 0:
        return Difference(nan, nan, nan, nan, nan, 0)
    mean = float(d.mean())
    if n == 1:
        return Difference(mean, nan, nan, nan, nan, 1)
    if np.ptp(d) <= 1e-12 * np.abs(d).max():  # the same on every seed: no variance for Student's test, only signs
        p = 2.0 ** (1 - n) if mean else 1.0
        return Difference(mean, mean, mean, p, p, n)
    test = stats.ttest_1samp(d, 0.0)
    signs = stats.permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",  # of one sample: flips of its signs, all of them up to 13 seeds
        vectorized=True,
        n_resamples=10_000,
        rng=np.random.default_rng(SEED),
    )
    interval = test.confidence_interval(0.95)
    return Difference(
        mean,
        max(float(interval.low), -limit),
        min(float(interval.high), limit),
        float(test.pvalue),
        min(float(signs.pvalue), 1.0),
        n,
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: rejecting below 0.05 keeps the family-wise error rate at 5 % or less.

    NaN, for a pair that could not be tested, stays NaN and does not count.
    """
    values = np.asarray(p, float)
    adjusted, tested = np.full(len(values), nan), np.flatnonzero(~np.isnan(values))
    order = tested[values[tested].argsort(kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def iqm(scores: NDArray[np.float64]) -> Estimate:
    """Interquartile mean over all seeds and tasks of ``scores`` (n, m), with its stratified bootstrap interval."""
    return _bootstrap(
        lambda sample: stats.trim_mean(np.moveaxis(sample, -1, -2).reshape(*sample.shape[:-2], -1), 0.25, axis=-1),
        matrix(scores),
    )


def probability_of_improvement(x: NDArray[np.float64], y: NDArray[np.float64]) -> Estimate:
    """P(X > Y) for one run of each on the same task, averaged over tasks; a tie counts half. Scores are (n, m).

    The interval resamples seeds; a drawn seed contributes the scores of both.
    """
    both = np.concatenate([_columns(x), _columns(y)], axis=1)
    m = both.shape[1] // 2

    def estimate(sample: NDArray[np.float64]) -> NDArray[np.float64]:  # (..., n, 2m)
        a, b = sample[..., :, None, :m], sample[..., None, :, m:]
        wins: NDArray[np.float64] = ((a > b) + 0.5 * (a == b)).mean((-3, -2, -1))
        return wins

    return _bootstrap(estimate, matrix(both), strata=np.arange(2 * m) % m)


def performance_profile(scores: NDArray[np.float64], thresholds: Sequence[float]) -> list[Estimate]:
    """For each threshold, the share of runs in ``scores`` (n, m) above it, with its stratified bootstrap interval."""

    def share_above(threshold: float, sample: NDArray[np.float64]) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = (sample > threshold).mean((-2, -1))
        return shares

    return [_bootstrap(partial(share_above, threshold), matrix(scores)) for threshold in thresholds]


def matrix(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """``scores`` (n,) or (n, m) as (n', m), without the seeds at which a score is NaN."""
    scores = _columns(scores)
    return scores[~np.isnan(scores).any(1)]


def _columns(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.asarray(scores, float)
    return scores.reshape(len(scores), -1)


def _bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    scores: NDArray[np.float64],
    strata: NDArray[np.intp] | None = None,
) -> Estimate:
    """``statistic`` (..., n, m) -> (...) with its 95 % percentile interval; without one where all resamples agree.

    Seeds are drawn independently for each column of ``scores`` (n, m), except that columns with equal ``strata`` (m,)
    share them.
    """
    n, m = scores.shape
    if n == 0:
        return Estimate(nan)
    value = float(statistic(scores))
    if n == 1:
        return Estimate(value)
    strata = np.arange(m) if strata is None else strata
    columns = np.arange(m)

    # rows: the row numbers of each stratum, (..., n)
    def resampled(*rows: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        drawn = np.stack(rows, axis=-1)[..., strata]  # (..., n, m)
        return statistic(scores[drawn, columns])

    result = stats.bootstrap(
        (np.arange(n),) * (int(strata.max()) + 1),
        resampled,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return Estimate(value, low, high) if low < high else Estimate(value)
