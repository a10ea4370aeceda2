"""Entries set against each other, pair by pair: what is resolved and what is not, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from math import inf, isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espo_gym.estimate import Estimate

from .health import Health
from .statistics import Difference, holm, paired_difference, probability_of_improvement

LEVEL = 0.05
ENOUGH_SIGNS = 6
"""Number of seeds from which on the sign-flip test can reach LEVEL at all."""


@dataclass(frozen=True)
class Pair:
    """Two entries compared on one metric."""

    a: str
    b: str
    difference: Difference
    """Of a - b."""
    p_holm: float
    """p after Holm, over all pairs."""
    pairs: int
    """How many pairs there are."""
    improvement: Estimate
    """P(a run of a has a higher score than a run of b)."""
    learned: bool = True
    """Whether any run of the two learned anything; if none did, equal scores say nothing about a and b."""

    @property
    def resolved(self) -> bool:
        """Whether the difference counts as one, see :func:`resolved`."""
        return self.learned and resolved(self.difference, self.p_holm)

    def __str__(self) -> str:
        d, among = self.difference, f" among {self.pairs} pairs" if self.pairs > 1 else ""
        if not self.learned:
            return f"{self.a} and {self.b}: no run of either learned anything: nothing can be said"
        if d.n == 0:
            return f"{self.a} and {self.b}: no seed in common: nothing can be said"
        if d.n == 1:
            return f"{self.a} and {self.b}, {d.mean:+.3f}, one seed in common: nothing can be said"
        if d.mean == d.low == d.high:  # no variance, so no interval
            if d.mean == 0:
                return f"{self.a} and {self.b}: the same on each of {d.n} seeds"
            too_few = "" if self.resolved else ", too few to say"
            return f"{self.a} and {self.b}: {d.mean:+.3f} on each of {d.n} seeds{too_few}"
        if self.resolved:
            better, worse = (self.a, self.b) if d.mean > 0 else (self.b, self.a)
            gain = d if d.mean > 0 else replace(d, mean=-d.mean, low=-d.high, high=-d.low)
            return f"{better} is better than {worse}, {gain} ({p_text(self.p_holm)}{among})"
        sentence = f"{self.a} and {self.b}: no difference detected, {d}"
        if d.p >= LEVEL:
            return sentence
        why = f"{p_text(self.p_holm)}{among}" if self.p_holm >= LEVEL else f"{p_text(d.p_signs)} by flips of signs"
        return f"{sentence} ({p_text(d.p)} alone, {why})"


def resolved(difference: Difference, p_holm: float) -> bool:
    """Whether a difference counts as one: Student's test finds it, after Holm, and the signs do not contradict.

    With six seeds or more the second condition ensures, whatever the distribution, that an algorithm is told apart from
    itself in at most 5 % of comparisons.
    """
    return p_holm < LEVEL and (difference.n < ENOUGH_SIGNS or difference.p_signs < LEVEL)


def compare_pairs(
    scores: dict[str, NDArray[np.float64]],
    *,
    share: bool = False,
    runs: Mapping[str, Sequence[Health]] | None = None,
) -> list[Pair]:
    """Every pair of entries.

    Args:
        scores: entry -> (n,) or (n, tasks), each with the same seeds in the same order.
        share: the scores lie in [0, 1].
        runs: entry -> what became of its runs; None if all of them learned something.
    """
    names = list(combinations(scores, 2))
    differences = [paired_difference(scores[a], scores[b], limit=1 if share else inf) for a, b in names]
    learned = {entry: runs is None or any(h.learned for h in runs[entry]) for entry in scores}
    return [
        Pair(
            a,
            b,
            difference,
            adjusted,
            len(names),
            probability_of_improvement(scores[a], scores[b]),
            learned[a] or learned[b],
        )
        for (a, b), difference, adjusted in zip(names, differences, holm([d.p for d in differences]), strict=True)
    ]


def pairs_as_json(pairs: list[Pair]) -> list[dict[str, Any]]:
    """The numbers and sentences of ``pairs``, for results.json."""
    return [
        {"a": pair.a, "b": pair.b, **asdict(pair.difference), "p_holm": pair.p_holm, "resolved": pair.resolved}
        | {"probability_of_improvement": estimate_as_json(pair.improvement), "sentence": str(pair)}
        for pair in pairs
    ]


def estimate_as_json(estimate: Estimate) -> list[float]:
    """``[value, low, high]``."""
    return [estimate.value, estimate.low, estimate.high]


def pair_sentences(pairs: list[Pair]) -> str:
    """A Markdown list with a sentence for each pair."""
    return "\n".join(f"- {pair}." for pair in pairs)


def pair_table(pairs: list[Pair]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table with a row for each pair."""
    header = ["", "difference of AUC", "p", "p after Holm", "p of signs", "P(improvement)", ""]
    rows = [
        [
            f"{pair.a} - {pair.b}",
            str(pair.difference),
            *(
                p_text(p).removeprefix("p ").removeprefix("= ")
                for p in (pair.difference.p, pair.p_holm, pair.difference.p_signs)
            ),
            str(pair.improvement),
            "resolved" if pair.resolved else "not resolved" if pair.learned else "nothing learned",
        ]
        for pair in pairs
    ]
    return header, rows


def p_text(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``, or ``-`` where there was nothing to test."""
    return "-" if isnan(p) else f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
