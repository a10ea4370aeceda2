"""The claims of arXiv:2512.00499v2 as data: what each says, in which quantity, and which control goes with it.

A claim has parts, and says of each part's quantity that it is above 0. A quantity is one number a seed, made of the
curves of paired runs. MARGINS are the least effects that count; they are ours, for the paper states none.

The paper's accuracies on benchmarks after 200 steps have their place taken by the sampled accuracy over training:
*mean* over all rollouts (an area under the curve: learning faster or higher) and *final*, over the last five.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .verdicts import Interval, interval, together, verdict

Curves = Callable[[str], Mapping[str, np.ndarray]]
"""Metric -> entry -> (seeds, rollouts)."""

FIGURES = ("fig3", "fig4", "fig5", "fig6", "table2", "table3")
ACCURACY, CLIPPED, ENTROPY = "rollout/accuracy", "train/clip_fraction_active", "rollout/entropy"
WARMUP = 2
"""First rollouts, while the learning rate warms up, that say nothing about clip fractions."""
LAST = 5
MARGINS = {ACCURACY: 0.02, CLIPPED: 0.02, "correlation": 0.2}
"""Two points of accuracy, two per cent of the tokens, a correlation of 0.2."""


@dataclass(frozen=True)
class Part:
    """A quantity that a claim says is above 0."""

    label: str
    entries: tuple[str, ...]
    """Those that it is made of."""
    quantity: Callable[[Curves], np.ndarray]
    """(seeds,)"""


@dataclass(frozen=True)
class Claim:
    """What the paper says, or what would follow if its explanation were right (a control)."""

    figure: str
    text: str
    margin: float
    parts: tuple[Part, ...]
    control: bool = False


# -- quantities --------------------------------------------------------------------------------------------------------


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


def ahead(better: str, worse: str, metric: str = ACCURACY, factor: float = 1) -> Part:
    """``better - factor * worse``, over training."""
    times = f"{factor:g} x " if factor != 1 else ""
    return Part(
        f"{better} - {times}{worse}",
        (better, worse),
        lambda curves: over_training(curves, better, metric) - factor * over_training(curves, worse, metric),
    )


def ends_ahead(better: str, worse: str) -> Part:
    return Part(f"{better} - {worse}", (better, worse), lambda curves: final(curves, better) - final(curves, worse))


def rises(entry: str, *, steps: bool = False) -> Part:
    return Part(entry, (entry,), lambda curves: rise_as_entropy_falls(curves, entry, steps=steps))


def hump(inside: tuple[str, ...], ends: tuple[str, ...]) -> Part:
    """Mean of the inner settings less mean of the outermost."""

    def quantity(curves: Curves) -> np.ndarray:
        inner, outer = (np.mean([over_training(curves, e, ACCURACY) for e in group], 0) for group in (inside, ends))
        return inner - outer

    return Part(f"mean of {', '.join(inside)} - mean of {', '.join(ends)}", inside + ends, quantity)


# -- the claims --------------------------------------------------------------------------------------------------------

BASELINES = ("gspo", "dapo", "gmpo", "cispo")
WITHOUT = ("fixed-clip", "fixed-clip-wide", "no-groups")


def _claims() -> tuple[Claim, ...]:
    accuracy, clipped, correlation = MARGINS.values()
    return (
        Claim(
            "fig3", "ESPO learns faster than GSPO, DAPO, GMPO and CISPO (mean accuracy over training).",
            accuracy, tuple(ahead("espo", other) for other in BASELINES),
        ),
        Claim(
            "fig3", "ESPO ends higher than GSPO, DAPO, GMPO and CISPO (accuracy over the last five rollouts).",
            accuracy, tuple(ends_ahead("espo", other) for other in BASELINES),
        ),
        Claim(
            "fig3", "ESPO is also ahead of GRPO, which the paper does not draw.",
            accuracy, (ahead("espo", "grpo"),), control=True,
        ),
        Claim(
            "fig3", "ESPO is ahead of GSPO even where GSPO's range is as wide as makes it clip as much as ESPO.",
            accuracy, (ahead("espo", "gspo-matched"),), control=True,
        ),
        Claim(
            "fig4", "GSPO clips a larger share of the tokens than ESPO, at the ranges printed in the papers.",
            clipped, (ahead("gspo-printed", "espo-printed", CLIPPED),),
        ),
        Claim(
            "fig4", "It clips far more: at least twice as much, at the printed ranges.",
            clipped, (ahead("gspo-printed", "espo-printed", CLIPPED, factor=2),),
        ),
        Claim(
            "fig4", "GSPO clips more at the ranges that suit this scale's learning rate, too.",
            clipped, (ahead("gspo", "espo", CLIPPED),), control=True,
        ),
        Claim(
            "fig4", "Clipping so much costs GSPO accuracy: ESPO is ahead at the printed ranges.",
            accuracy, (ahead("espo-printed", "gspo-printed"),),
        ),
        Claim(
            "fig5", "ESPO's clip fraction rises as the policy's entropy falls (rank correlation over rollouts, sign "
            "turned).", correlation, (rises("espo"),),
        ),
        Claim(
            "fig5", "It does so at the paper's alpha.", correlation, (rises("espo-printed"),),
        ),
        Claim(
            "fig5", "The two also move against each other from one rollout to the next, so that it is no mere drift.",
            correlation, (rises("espo", steps=True),), control=True,
        ),
        Claim(
            "fig5", "It is the adaptive clip: the correlation is stronger than GSPO's, whose clip does not adapt.",
            correlation,
            (Part("espo - gspo", ("espo", "gspo"),
                  lambda curves: rise_as_entropy_falls(curves, "espo") - rise_as_entropy_falls(curves, "gspo")),),
            control=True,
        ),
        Claim(
            "fig6", "The 20 % most uncertain tokens as a group are better than 10 % and than 40 %.",
            accuracy, (ahead("espo", "espo-top10"), ahead("espo", "espo-top40")),
        ),
        Claim(
            "fig6", "Entropy groups are better than random groups of the same size: 10, 20 and 40 %.",
            accuracy, (ahead("espo-top10", "random10"), ahead("espo", "random20"), ahead("espo-top40", "random40")),
            control=True,
        ),
        Claim(
            "table2", "ESPO without the adaptive clip (GSPO's fixed one; DAPO's) or without the groups is worse.",
            accuracy, tuple(ahead("espo", other) for other in WITHOUT),
        ),
        Claim(
            "table2", "So it is where the clip of what is left cuts as many tokens as ESPO's.",
            accuracy, (ahead("espo", "fixed-clip-matched"), ahead("espo", "no-groups-matched")), control=True,
        ),
        Claim(
            "table2", "It is not the token weights: ESPO is ahead of GSPO with ESPO's weights, and of itself with "
            "GSPO's.",
            accuracy, (ahead("espo", "gspo-espo-weights"), ahead("espo", "espo-token-weights")), control=True,
        ),
        Claim(
            "table2", "It is the entropy: ESPO is ahead of random groups of the same sizes that clip as much.",
            accuracy, (ahead("espo", "random20-matched"),), control=True,
        ),
        Claim(
            "table3", "Of alpha x 0.5, 1, 2.5, 5 (the paper: 0.01, 0.02, 0.05, 0.10) the second is best.",
            accuracy, tuple(ahead("espo", other) for other in ("alpha-x0.5", "alpha-x2.5", "alpha-x5")),
        ),
        Claim(
            "table3", "The best alpha lies inside: the inner two are better than the outer two.",
            accuracy, (hump(("espo", "alpha-x2.5"), ("alpha-x0.5", "alpha-x5")),),
        ),
    )  # fmt: skip


CLAIMS = _claims()


def claims_of(figures: tuple[str, ...]) -> list[Claim]:
    return [claim for claim in CLAIMS if claim.figure in figures]


def entries_of(figures: tuple[str, ...]) -> list[str]:
    """Names of the entries that these figures need, each once."""
    return list(dict.fromkeys(name for c in claims_of(figures) for part in c.parts for name in part.entries))


# -- judging -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A claim and what was measured."""

    claim: Claim
    verdict: str
    parts: tuple[tuple[Part, Interval, str], ...]


def judge(claim: Claim, curves: Curves) -> Judged:
    """The verdict on ``claim``; the intervals of its parts hold together."""
    parts = []
    for part in claim.parts:
        measured = interval(part.quantity(curves), len(claim.parts))
        parts.append((part, measured, verdict(measured, claim.margin)))
    return Judged(claim, together([v for _, _, v in parts]), tuple(parts))
