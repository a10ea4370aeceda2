"""The goals, and what a measurement says of them: met or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval; one that is not uncertain has both ends in the same place."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Interval:
        return cls(value, value, value)


@dataclass(frozen=True)
class Goal:
    """What a figure ought to be."""

    name: str
    what: str
    peer: str
    target: float
    stretch: float | None = None
    unit: str = "x"
    at_most: bool = False
    """The figure is to stay below the target and not above it."""

    def met(self, value: float) -> bool:
        return value <= self.target if self.at_most else value >= self.target

    def verdict(self, value: float) -> str:
        stretched = self.stretch is not None and (value <= self.stretch if self.at_most else value >= self.stretch)
        return "met, stretch too" if stretched else "met" if self.met(value) else "not met"

    def wanted(self) -> str:
        sign = "<=" if self.at_most else ">="
        beyond = "" if self.stretch is None else f" ({number(self.stretch, self.unit)})"
        return f"{sign} {number(self.target, self.unit)}{beyond}"


@dataclass(frozen=True)
class Row:
    """One figure."""

    goal: str
    """The name of its goal."""
    case: str
    value: Interval
    detail: str
    """What stands behind it: "0.84 s against 2.41 s"."""


TRL = "TRL GRPOTrainer, its best micro-batch"
HF = "HF generate, dynamic cache"

GOALS = {
    goal.name: goal
    for goal in (
        Goal("G1", "full GRPO step, 1 M parameters, vocabulary 64, 16 x 8 completions of at most 64", TRL, 3, 4),
        Goal("G1b", "the same, a third of the rows without advantage", TRL, 3.5, 5),
        Goal("G2", "full GRPO step, 16 M parameters, vocabulary 50,000, per completion token", TRL, 4, 6),
        Goal("G3", "peak memory of G1 beyond the model", TRL, 4, 6),
        Goal("G4", "sampling, packed step, log-prob and entropy included", HF, 4, 5),
        Goal("G5", "sampling over the unmodified forward of any causal model", HF, 2, 3),
        Goal("G6", "LM-head loss, forward and backward, vocabulary 150,000", "TRL's chunked head", 3, 5),
        Goal("G6 memory", "its peak memory, gradients included", "TRL's chunked head", 10),
        Goal("G6 floor", "its share of the floor", "the three matrix products alone", 60, unit="%"),
        Goal("G7", "LM-head loss", "full logits", 1.5, 2),
        Goal("G7 memory", "its peak memory, gradients included", "full logits", 20),
        Goal("G8", "forward, backward and optimizer step on a rollout of G1", "one padded batch", 2, 3),
        Goal("G8 error", "distance of the gradients, relative", "one padded batch", 1e-6, unit="", at_most=True),
        Goal("G9 token", "sampled against recomputed log-prob, largest gap", "itself", 2e-5, unit="nat", at_most=True),
        Goal("G9 mean", "the same of a sequence's mean", "itself", 1e-5, unit="nat", at_most=True),
        Goal("G10", "environment beside the verifier, per episode", "loop over TextEnv", 10, unit="us", at_most=True),
        Goal("G10 share", "its share of the step of G1", "itself", 1, unit="%", at_most=True),
        Goal("G11", "decoding on a GPU, 0.5 B parameters, bf16, batch 256", HF, 5),
        Goal("G11 roofline", "its share of the memory bandwidth's limit", "the card", 30, unit="%"),
    )
}


def number(value: float, unit: str) -> str:
    """``3.42x``, ``61 %``, ``4.2e-07 nat``."""
    if unit == "%":
        return f"{value:.2g} %" if value < 10 else f"{value:.0f} %"
    text = f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return f"{text}{unit}" if unit in ("x", "") else f"{text} {unit}"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| | what | case | beside | figure | goal (stretch) | | measured |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        goal, value = GOALS[row.goal], row.value
        figure = number(value.value, goal.unit)
        if value.low != value.high:
            figure += f" [{number(value.low, goal.unit)}, {number(value.high, goal.unit)}]"
        cells = [
            goal.name,
            goal.what,
            row.case,
            goal.peer,
            figure,
            goal.wanted(),
            goal.verdict(value.value),
            row.detail,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
