"""Statistics of paired runs: differences with intervals, Holm, and rliable's estimators.

The estimators are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv:2108.13264), made of scipy's ``trim_mean`` and ``bootstrap``. Their own package draws from NumPy's global stream.
Scores are arrays (n, m): n seeds, m tasks. Every bootstrap has a generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan

import numpy as np
from scipy import stats

from espo_gym.evaluation import Estimate

RESAMPLES = 5_000
SEED = 20_240
"""Of every bootstrap."""


@dataclass(frozen=True)
class Difference:
    """The mean of x - y over the seeds."""

    mean: float
    low: float
    """With ``high``: Student's 95 % interval of the mean; NaN with one seed."""
    high: float
    p: float
    """Of the paired t-test, two-sided; NaN with one seed."""
    p_signs: float
    """Of the sign-flip test, two-sided, which supposes nothing but that two equal algorithms could have been swapped at
    every seed. At least 2 / 2^n."""
    n: int
    """Pairs."""

    def __str__(self) -> str:
        # -0.0004 is written -0.000: whether an interval holds 0 is what one looks for. 0 itself is +0.000.
        mean, low, high = (round(value, 12) + 0.0 for value in (self.mean, self.low, self.high))
        return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def paired_difference(x: np.ndarray, y: np.ndarray) -> Difference:
    """x - y for scores (n,) or (n, m) with the same seeds in the same order.

    Several tasks are averaged first: the seeds are what is independent. The interval is Student's and not a percentile
    bootstrap, which at ten seeds misses the truth about twice as often as it says (``benchmarks/compare_self.py``).
    Seeds at which a score is NaN are left out.

    Raises ValueError: shapes that differ.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape:
        raise ValueError(f"paired scores have one shape, not {x.shape} and {y.shape}")
    d = x - y
    d = d.reshape(len(d), -1).mean(1)
    d = d[~np.isnan(d)]
    n = len(d)
    if n == 0:
        return Difference(nan, nan, nan, nan, nan, 0)
    mean = float(d.mean())
    if n == 1:
        return Difference(mean, nan, nan, nan, nan, 1)
    if np.ptp(d) <= 1e-12 * np.abs(d).max():  # the same on every seed: no variance for Student, the signs are left
        p = 2.0 ** (1 - n) if mean else 1.0
        return Difference(mean, mean, mean, p, p, n)
    test = stats.ttest_1samp(d, 0.0)
    signs = stats.permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",  # of one sample: its signs. All of them up to 13 seeds
        vectorized=True,
        n_resamples=10_000,
        rng=np.random.default_rng(SEED),
    )
    interval = test.confidence_interval(0.95)
    return Difference(
        mean, float(interval.low), float(interval.high), float(test.pvalue), min(float(signs.pvalue), 1.0), n
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: what is below 0.05 is resolved with at most 5 % of families having a false one.

    NaN, a pair that could not be tested, stays NaN and does not count.
    """
    values = np.asarray(p, float)
    adjusted, tested = np.full(len(values), nan), np.flatnonzero(~np.isnan(values))
    order = tested[values[tested].argsort(kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def iqm(scores: np.ndarray) -> Estimate:
    """Interquartile mean over all seeds and tasks of ``scores`` (n, m), with its stratified bootstrap interval."""
    return _bootstrap(
        lambda sample: stats.trim_mean(np.moveaxis(sample, -1, -2).reshape(*sample.shape[:-2], -1), 0.25, axis=-1),
        matrix(scores),
    )


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> Estimate:
    """P(X > Y) for a run of each at one task, averaged over the tasks; a tie counts half. Scores (n, m).

    The interval resamples seeds, and with a seed the scores of both.
    """
    both = np.concatenate([_columns(x), _columns(y)], axis=1)
    m = both.shape[1] // 2

    def estimate(sample: np.ndarray) -> np.ndarray:  # (..., n, 2m)
        a, b = sample[..., :, None, :m], sample[..., None, :, m:]
        return ((a > b) + 0.5 * (a == b)).mean((-3, -2, -1))

    return _bootstrap(estimate, matrix(both), strata=np.arange(2 * m) % m)


def performance_profile(scores: np.ndarray, thresholds: Sequence[float]) -> list[Estimate]:
    """For each threshold the share of runs of ``scores`` (n, m) above it, with its stratified bootstrap interval."""

    def share_above(threshold: float, sample: np.ndarray) -> np.ndarray:
        return (sample > threshold).mean((-2, -1))

    return [_bootstrap(partial(share_above, threshold), matrix(scores)) for threshold in thresholds]


def matrix(scores: np.ndarray) -> np.ndarray:
    """(n,) or (n, m) -> (n, m), without the seeds at which a score is NaN."""
    scores = _columns(scores)
    return scores[~np.isnan(scores).any(1)]


def _columns(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, float)
    return scores.reshape(len(scores), -1)


def _bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], scores: np.ndarray, strata: np.ndarray | None = None
) -> Estimate:
    """``statistic`` (..., n, m) -> (...) with its 95 % percentile interval.

    Seeds are drawn anew for each column of ``scores`` (n, m); columns of equal ``strata`` get the same ones.
    """
    n, m = scores.shape
    if n == 0:
        return Estimate(nan, nan, nan)
    value = float(statistic(scores))
    if n == 1:
        return Estimate(value, nan, nan)
    strata = np.arange(m) if strata is None else strata
    columns = np.arange(m)

    def resampled(*rows: np.ndarray, axis: int = -1) -> np.ndarray:  # one (..., n) of row numbers for each stratum
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
    return Estimate(value, float(result.confidence_interval.low), float(result.confidence_interval.high))
