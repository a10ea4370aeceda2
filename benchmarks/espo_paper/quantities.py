"""What the claims are about: one number per seed, computed from the curves of paired runs.

The sampled accuracy of training takes the place of the paper's benchmark accuracies after 200 steps: over all rollouts
(area under the curve: learning faster or higher) and at the end, over the last five.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Curves = Callable[[str], Mapping[str, NDArray[np.float64]]]
"""Metric -> entry -> (seeds, rollouts)."""

ACCURACY, CLIPPED, ENTROPY = "rollout/accuracy", "train/clip_fraction_active", "rollout/entropy"
WARMUP = 2
"""First rollouts, in which the learning rate warms up and clip fractions are not informative."""
LAST = 5
"""Rollouts that count as the end of training."""
MARGINS = {ACCURACY: 0.02, CLIPPED: 0.02, "correlation": 0.2}
"""The smallest effects that count: two points of accuracy, two percent of the tokens, a correlation of 0.2. They are
our choice, since the paper states none."""


def over_training(curves: Curves, entry: str, metric: str) -> NDArray[np.float64]:
    """(seeds,) mean over rollouts; without the warm-up for the clip fraction."""
    curve = curves(metric)[entry]
    if metric == ACCURACY:
        return _mean_accuracy(curve)
    known = curve[:, WARMUP:] if metric == CLIPPED else curve
    return np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in known])


def final(curves: Curves, entry: str) -> NDArray[np.float64]:
    """(seeds,) accuracy over the last rollouts."""
    return _mean_accuracy(curves(ACCURACY)[entry][:, -LAST:])


def _mean_accuracy(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """(seeds,) mean of ``curve`` (seeds, rollouts).

    A run that failed because its loss was not finite has no values from there on; they count as 0.
    """
    mean: NDArray[np.float64] = np.nan_to_num(curve, nan=0.0).mean(1)
    return mean


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(seeds,) Spearman's correlation over rollouts of ``x`` and ``y`` (seeds, rollouts); NaN if one is constant."""
    correlations = []
    for a, b in zip(x, y, strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        moves = both.sum() > 1 and np.ptp(a[both]) > 0 and np.ptp(b[both]) > 0
        correlations.append(float(stats.spearmanr(a[both], b[both]).statistic) if moves else float("nan"))
    return np.array(correlations)


def rise_as_entropy_falls(curves: Curves, entry: str, *, steps: bool = False) -> NDArray[np.float64]:
    """(seeds,) minus the rank correlation of clip fraction and entropy over rollouts; of their changes with ``steps``.

    Entropy and clip fraction may both just drift with time; their changes from rollout to rollout do not.
    """
    x, y = (curves(metric)[entry][:, WARMUP:] for metric in (ENTROPY, CLIPPED))
    return -rank_correlation(*((np.diff(x), np.diff(y)) if steps else (x, y)))


# -- parts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A quantity that is above 0 according to a claim."""

    label: str
    entries: tuple[str, ...]
    """The entries that it is computed from."""
    margin: float
    """The smallest effect that counts."""
    quantity: Callable[[Curves], NDArray[np.float64]]
    """Curves -> (seeds,)"""


def ahead(better: str, worse: str, metric: str = ACCURACY, factor: float = 1) -> Part:
    """``better - factor * worse``, as means over training."""

    def quantity(curves: Curves) -> NDArray[np.float64]:
        return over_training(curves, better, metric) - factor * over_training(curves, worse, metric)

    times = f"{factor:g} x " if factor != 1 else ""
    return Part(f"{better} - {times}{worse}", (better, worse), MARGINS[metric], quantity)


def ahead_at_the_end(better: str, worse: str) -> Part:
    """``better - worse``, as means over the last rollouts."""

    def quantity(curves: Curves) -> NDArray[np.float64]:
        return final(curves, better) - final(curves, worse)

    return Part(f"{better} - {worse} at the end", (better, worse), MARGINS[ACCURACY], quantity)


def rises(entry: str, *, steps: bool = False) -> Part:
    """:func:`rise_as_entropy_falls`."""
    label, margin = entry + (", from rollout to rollout" if steps else ""), MARGINS["correlation"]
    return Part(label, (entry,), margin, lambda curves: rise_as_entropy_falls(curves, entry, steps=steps))


def rises_more(one: str, other: str) -> Part:
    """:func:`rise_as_entropy_falls` of ``one`` minus that of ``other``."""

    def quantity(curves: Curves) -> NDArray[np.float64]:
        return rise_as_entropy_falls(curves, one) - rise_as_entropy_falls(curves, other)

    return Part(f"{one} - {other}", (one, other), MARGINS["correlation"], quantity)


def hump(inside: tuple[str, ...], ends: tuple[str, ...]) -> Part:
    """Mean accuracy of the inner settings minus that of the outer ones."""

    def quantity(curves: Curves) -> NDArray[np.float64]:
        inner, outer = (np.stack([over_training(curves, e, ACCURACY) for e in group]) for group in (inside, ends))
        difference: NDArray[np.float64] = inner.mean(0) - outer.mean(0)
        return difference

    label = f"mean of {', '.join(inside)} - mean of {', '.join(ends)}"
    return Part(label, inside + ends, MARGINS[ACCURACY], quantity)
