"""Numbers with a 95 % interval: a share of problems, and the mean of one value per seed. Loads no torch.

A share lies in [0, 1], and so must its interval. Wilson's does: it holds every mu that a test with the variance
``mu (1 - mu) / n`` of n coins would not reject. A share of something other than coins varies by another factor f, ::

    (p - mu)^2 <= q^2 f mu (1 - mu) / n        f = s^2 / (p (1 - p))

and the interval is Wilson's for n / f coins. Over problems, of which there are many, q is normal; over seeds, of which
there are few, Student's with n - 1 degrees of freedom, since f is estimated from them. Where s is small this is
Student's interval ``p -+ q s / sqrt(n)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


class Estimate(float):
    """A number with a 95 % interval: use it as a float, or read ``value``, ``low``, ``high``.

    The ends are NaN where the data show no spread to make an interval from: one seed, or the same value on each.
    """

    low: float
    high: float

    def __new__(cls, value: float, low: float = nan, high: float = nan) -> Estimate:
        self = super().__new__(cls, value)
        self.low, self.high = low, high
        return self

    @property
    def value(self) -> float:
        """The number itself."""
        return float(self)

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The mean of per-problem ``values`` in [0, 1].

        The interval is Wilson's, with the number of problems scaled by how much less than a coin's their variance is
        (completions of one problem are averaged first, so problems are the independent unit). Unlike a bootstrap it
        does not shrink to a point where all values are equal: many problems, each a coin, do bound their share. NaN
        where there are no values.
        """
        x = np.asarray(values, dtype=float)
        if len(x) == 0:
            return cls(nan)
        p = float(x.mean())
        variance = float(x.var(ddof=1)) if len(x) > 1 else 0.0
        n = coins(p, variance, len(x)) if variance > 0 else float(len(x))
        low, high = wilson(p, n, Z95)
        return cls(p, float(low), float(high))

    def __repr__(self) -> str:
        if isnan(self):
            return "-"
        return f"{self.value:.3f}" + ("" if isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]")

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return Estimate, (self.value, self.low, self.high)


def over_seeds(
    values: NDArray[np.float64], *, share: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the seeds and its 95 % interval, ``(mean, low, high)``, each (...).

    Both ends are NaN with one seed, and where all seeds have the same value: nothing is known there about how much
    seeds differ.

    Args:
        values: (n, ...), one for each seed.
        share: they are known to lie in [0, 1]: Wilson's interval with Student's quantile, which stays there. Otherwise
            Student's.
    """
    from scipy.stats import t as student  # here, since an evaluation needs none of it

    x = np.asarray(values, dtype=float)
    n, mean = len(x), x.mean(0)
    if n < 2:
        return mean, np.full_like(mean, nan), np.full_like(mean, nan)
    q, variance = float(student.ppf(0.975, n - 1)), x.var(0, ddof=1)
    if share:
        low, high = wilson(mean, coins(mean, variance, n), q)
    else:
        half = q * np.sqrt(variance / n)
        low, high = mean - half, mean + half
    equal = np.ptp(x, axis=0) <= 1e-12 * np.abs(x).max(0)
    return mean, np.where(equal, nan, low), np.where(equal, nan, high)


def coins(p: Any, variance: Any, n: int) -> Any:
    """How many coins vary as much as the ``n`` values with this mean and variance do; n where they vary more."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return n * np.clip(np.nan_to_num(p * (1 - p) / variance, nan=1.0), 1.0, 1e12)


def wilson(p: Any, n: Any, quantile: float) -> tuple[Any, Any]:
    """Ends of Wilson's interval for a share ``p`` of ``n``; they hold p and stay in [0, 1] whatever the rounding."""
    center = (p + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile / (1 + quantile**2 / n) * np.sqrt(np.maximum(p * (1 - p), 0) / n + quantile**2 / (4 * n**2))
    return np.maximum(0.0, np.minimum(p, center - half)), np.minimum(1.0, np.maximum(p, center + half))
