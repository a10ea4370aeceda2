"""What the claims are about: one number a seed, made of the curves of paired runs.

The paper's accuracies on benchmarks after 200 steps have their place taken by the sampled accuracy of training: over
all rollouts (an area under the curve: learning faster or higher) and at the end, over the last five.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

Curves = Callable[[str], Mapping[str, np.ndarray]]
"""Metric -> entry -> (seeds, rollouts)."""

ACCURACY, CLIPPED, ENTROPY = "rollout/accuracy", "train/clip_fraction_active", "rollout/entropy"
WARMUP = 2
"""First rollouts, while the learning rate warms up, that say nothing about clip fractions."""
LAST = 5
"""Rollouts that are the end."""
MARGINS = {ACCURACY: 0.02, CLIPPED: 0.02, "correlation": 0.2}
"""The least effects that count: two points of accuracy, two per cent of the tokens, a correlation of 0.2. They are
ours, for the paper states none."""


def over_training(curves: Curves, entry: str, metric: str) -> np.ndarray:
    """(seeds,) mean over rollouts; for the clip fraction without the warm-up."""
    curve = curves(metric)[entry]
    if metric == ACCURACY:
        return _accuracy(curve).mean(1)
    known = curve[:, WARMUP:] if metric == CLIPPED else curve
    return np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in known])


def final(curves: Curves, entry: str) -> np.ndarray:
    """(seeds,) accuracy over the last rollouts."""
    return _accuracy(curves(ACCURACY)[entry])[:, -LAST:].mean(1)


def _accuracy(curve: np.ndarray) -> np.ndarray:
    """A run that failed, because its loss was not finite, has no values from there on, and earns nothing."""
    return np.nan_to_num(curve, nan=0.0)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(seeds,) Spearman's over rollouts of ``x`` and ``y`` (seeds, rollouts); NaN where one of them is constant."""
    found = []
    for a, b in zip(x, y, strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        moves = both.sum() > 1 and np.ptp(a[both]) > 0 and np.ptp(b[both]) > 0
        found.append(float(stats.spearmanr(a[both], b[both]).statistic) if moves else float("nan"))
    return np.array(found)


def rise_as_entropy_falls(curves: Curves, entry: str, *, steps: bool = False) -> np.ndarray:
    """(seeds,) minus the rank correlation of clip fraction and entropy over rollouts; of their changes, if ``steps``.

    Entropy and clip fraction may both merely drift with time; their changes from rollout to rollout do not.
    """
    x, y = (curves(metric)[entry][:, WARMUP:] for metric in (ENTROPY, CLIPPED))
    return -rank_correlation(*((np.diff(x), np.diff(y)) if steps else (x, y)))


# -- parts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A quantity that a claim says is above 0."""

    label: str
    entries: tuple[str, ...]
    """Those that it is made of."""
    margin: float
    """The least of it that counts."""
    quantity: Callable[[Curves], np.ndarray]
    """(seeds,)"""


def ahead(better: str, worse: str, metric: str = ACCURACY, factor: float = 1) -> Part:
    """``better - factor * worse``, over training."""

    def quantity(curves: Curves) -> np.ndarray:
        return over_training(curves, better, metric) - factor * over_training(curves, worse, metric)

    times = f"{factor:g} x " if factor != 1 else ""
    return Part(f"{better} - {times}{worse}", (better, worse), MARGINS[metric], quantity)


def ahead_at_the_end(better: str, worse: str) -> Part:
    """``better - worse``, over the last rollouts."""

    def quantity(curves: Curves) -> np.ndarray:
        return final(curves, better) - final(curves, worse)

    return Part(f"{better} - {worse} at the end", (better, worse), MARGINS[ACCURACY], quantity)


def rises(entry: str, *, steps: bool = False) -> Part:
    """:func:`rise_as_entropy_falls`."""
    label, margin = entry + (", from rollout to rollout" if steps else ""), MARGINS["correlation"]
    return Part(label, (entry,), margin, lambda curves: rise_as_entropy_falls(curves, entry, steps=steps))


def rises_more(one: str, other: str) -> Part:
    """:func:`rise_as_entropy_falls` of ``one`` less that of the other."""

    def quantity(curves: Curves) -> np.ndarray:
        return rise_as_entropy_falls(curves, one) - rise_as_entropy_falls(curves, other)

    return Part(f"{one} - {other}", (one, other), MARGINS["correlation"], quantity)


def hump(inside: tuple[str, ...], ends: tuple[str, ...]) -> Part:
    """Mean accuracy of the inner settings less that of the outermost."""

    def quantity(curves: Curves) -> np.ndarray:
        inner, outer = (np.mean([over_training(curves, e, ACCURACY) for e in group], 0) for group in (inside, ends))
        return inner - outer

    label = f"mean of {', '.join(inside)} - mean of {', '.join(ends)}"
    return Part(label, inside + ends, MARGINS[ACCURACY], quantity)
