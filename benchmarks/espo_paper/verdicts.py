"""From one number per seed to an interval, and from intervals to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

REPRODUCED, NOT_REPRODUCED, NOT_RESOLVED = "reproduced", "not reproduced", "not resolved"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over paired seeds with its interval."""

    mean: float
    low: float
    high: float
    n: int
    """Number of seeds."""


def interval(values: Sequence[float] | NDArray[np.float64], parts: int = 1) -> Interval:
    """Student's t interval of the mean of ``values`` (n,), one difference or trend per seed.

    It is one of ``parts`` intervals that hold simultaneously with a probability of 95 % (Bonferroni). Seeds without a
    value (NaN) are left out. If all others are equal, or there is only one, there is no variance to estimate: the
    interval is then a point if that many equal signs would be rare enough, and otherwise unbounded.
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    mean = float(x.mean()) if len(x) else float("nan")
    tail = (1 - CONFIDENCE) / parts / 2
    if len(x) == 0 or np.ptp(x) <= 1e-12 * np.abs(x).max():
        rare = len(x) > 0 and 0.5 ** len(x) <= tail
        return Interval(mean, *((mean, mean) if rare else (-np.inf, np.inf)), len(x))
    half = float(stats.t.ppf(1 - tail, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def verdict(measured: Interval, margin: float) -> str:
    """The verdict on the claim that the mean is above 0.

    - *reproduced*: the whole interval is above 0;
    - *not reproduced*: all of it is below ``margin`` (>= 0), the smallest effect that would count, so that there is
      either no effect of that size or one in the opposite direction;
    - *not resolved*: neither.
    """
    if measured.low > 0:
        return REPRODUCED
    if measured.high < margin:
        return NOT_REPRODUCED
    return NOT_RESOLVED


def together(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that asserts all of its parts."""
    if all(v == REPRODUCED for v in verdicts):
        return REPRODUCED
    return NOT_REPRODUCED if NOT_REPRODUCED in verdicts else NOT_RESOLVED
