"""The claims of arXiv:2512.00499v2 as data, each with its controls, and how they are judged."""

from __future__ import annotations

from dataclasses import dataclass

from .quantities import CLIPPED, Curves, Part, ahead, ahead_at_the_end, hump, rises, rises_more
from .verdicts import Interval, interval, together, verdict

FIGURES = ("fig3", "fig4", "fig5", "fig6", "table2", "table3")
BASELINES = ("gspo", "dapo", "gmpo", "cispo")


@dataclass(frozen=True)
class Claim:
    """The assertion that all of its parts are above 0."""

    figure: str
    text: str
    parts: tuple[Part, ...]
    control: bool = False
    """Not what the paper claims, but what would follow if its explanation were right."""


def claim(figure: str, text: str, *parts: Part) -> Claim:
    """A claim of the paper."""
    return Claim(figure, text, parts)


def control(figure: str, text: str, *parts: Part) -> Claim:
    """A control of a claim."""
    return Claim(figure, text, parts, control=True)


CLAIMS = (
    claim(
        "fig3",
        "ESPO learns faster than GSPO, DAPO, GMPO and CISPO (accuracy over training).",
        *(ahead("espo", other) for other in BASELINES),
    ),
    claim(
        "fig3",
        "ESPO ends higher than GSPO, DAPO, GMPO and CISPO (accuracy over the last five rollouts).",
        *(ahead_at_the_end("espo", other) for other in BASELINES),
    ),
    control("fig3", "ESPO is also ahead of GRPO.", ahead("espo", "grpo")),
    control(
        "fig3",
        "ESPO is ahead of GSPO even where GSPO's range is such that it clips as much as ESPO.",
        ahead("espo", "gspo-matched"),
    ),
    claim(
        "fig4",
        "GSPO clips a larger share of the tokens than ESPO, at the ranges printed in the papers.",
        ahead("gspo-printed", "espo-printed", CLIPPED),
    ),
    claim(
        "fig4",
        "GSPO clips far more than ESPO, at least twice as much, at the printed ranges.",
        ahead("gspo-printed", "espo-printed", CLIPPED, factor=2),
    ),
    claim(
        "fig4",
        "GSPO does not learn from what it clips: at the printed ranges ESPO learns faster.",
        ahead("espo-printed", "gspo-printed"),
    ),
    control(
        "fig4",
        "GSPO clips more than ESPO also at the ranges that suit this scale's learning rates.",
        ahead("gspo", "espo", CLIPPED),
    ),
    claim("fig5", "ESPO's clip fraction rises as the policy's entropy falls.", rises("espo")),
    claim(
        "fig5",
        "ESPO's clip fraction rises as the policy's entropy falls also at the paper's alpha, 0.02.",
        rises("espo-printed"),
    ),
    control(
        "fig5",
        "That is no mere drift: from one rollout to the next, too, ESPO's clip fraction moves against the entropy.",
        rises("espo", steps=True),
    ),
    control(
        "fig5",
        "It is the adaptive clip: the clip fraction of GSPO, which does not adapt, does not rise as clearly.",
        rises_more("espo", "gspo"),
    ),
    claim(
        "fig6",
        "The 20 % most uncertain tokens as a group are better than 10 % and than 40 %.",
        ahead("espo", "espo-top10"),
        ahead("espo", "espo-top40"),
    ),
    control(
        "fig6",
        "Entropy groups are better than random groups of the same sizes: 10, 20 and 40 %.",
        ahead("espo-top10", "random10"),
        ahead("espo", "random20"),
        ahead("espo-top40", "random40"),
    ),
    claim(
        "table2",
        "ESPO without the adaptive clip (with GSPO's fixed one, with DAPO's) or without the groups is worse.",
        *(ahead("espo", other) for other in ("fixed-clip", "fixed-clip-wide", "no-groups")),
    ),
    control(
        "table2",
        "ESPO without the adaptive clip or without the groups is worse even where it clips as much as ESPO.",
        ahead("espo", "fixed-clip-matched"),
        ahead("espo", "no-groups-matched"),
    ),
    control(
        "table2",
        "It is not the token weights: ESPO is ahead of GSPO with ESPO's weights, and of ESPO with GSPO's.",
        ahead("espo", "gspo-espo-weights"),
        ahead("espo", "espo-token-weights"),
    ),
    control(
        "table2",
        "It is the entropy: ESPO is ahead of random groups of the same sizes that clip as much.",
        ahead("espo", "random20-matched"),
    ),
    claim(
        "table3",
        "Of alpha x 0.5, 1, 2.5 and 5 (the paper's 0.01, 0.02, 0.05 and 0.10) the second is best.",
        *(ahead("espo", other) for other in ("alpha-x0.5", "alpha-x2.5", "alpha-x5")),
    ),
    claim(
        "table3",
        "The best alpha lies inside: the inner two are better than the outer two.",
        hump(("espo", "alpha-x2.5"), ("alpha-x0.5", "alpha-x5")),
    ),
)


def claims_of(figures: tuple[str, ...]) -> list[Claim]:
    """The claims of these figures and tables."""
    return [claim for claim in CLAIMS if claim.figure in figures]


def entries_of(figures: tuple[str, ...]) -> list[str]:
    """Names of the entries that these figures need, without duplicates."""
    return list(dict.fromkeys(name for c in claims_of(figures) for part in c.parts for name in part.entries))


# -- judging -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A claim, its verdict, and what was measured."""

    claim: Claim
    verdict: str
    parts: tuple[tuple[Part, Interval, str], ...]
    """Each part with its interval and verdict."""


def judge_claim(claim: Claim, curves: Curves) -> Judged:
    """The verdict on ``claim``; the intervals of its parts hold simultaneously."""
    parts = []
    for part in claim.parts:
        measured = interval(part.quantity(curves), len(claim.parts))
        parts.append((part, measured, verdict(measured, part.margin)))
    return Judged(claim, together([v for _, _, v in parts]), tuple(parts))
