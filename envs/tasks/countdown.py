"""Countdown-v0: make a target out of some numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from ..checks import check_int
from ..task import Problem, ProceduralTask, any_thread
from ..verdict import Verdict
from .countdown_answer import find_expression
from .countdown_expression import Expression, combine, parse_expression

MAX_TRIES = 1000


class Countdown(ProceduralTask):
    """Combine all given numbers to a target.

    Description:
        Each number is to be used exactly once, with ``+``, ``-``, ``*``, ``/`` and parentheses. Every problem can be
        solved; mostly there are several ways, and any of them is right. Values are exact, so ``8/(3-8/3)`` is 24.

    Observation:
        ``8,6,4>02:`` (make 2 of 8, 6 and 4)

    Action:
        An expression, ``6+4-8``: alone, in ``\\boxed{}``, in ``<answer>`` tags, after "answer is", or else the last one
        in the text. LaTeX (``\\times``, ``\\cdot``, ``\\div``, ``\\frac``) and a final ``= 2`` are understood.

    Reward:
        1 if the expression uses each number once and equals the target, else 0.

    Arguments:
        ``n_numbers`` (2 to 8, default 3); ``max_number`` (1 to 1000, default 9) and ``max_target`` (1 to 10000, default
        99), from 1 on; ``template`` with the fields ``{numbers}`` and ``{target}``; ``system_prompt``.

    Version history:
        v0: first version.
    """

    name = "countdown"
    template = "{numbers}>{target:02}:"
    system_prompt = (
        "You are given numbers and, after >, a target. Find an expression of +, -, *, / and parentheses that uses each"
        " of the numbers exactly once and equals the target. Reason step by step, and put the expression within"
        " \\boxed{}."
    )

    auditable = False

    def __init__(self, *, n_numbers: int = 3, max_number: int = 9, max_target: int = 99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_numbers = check_int("n_numbers", n_numbers, 2, 8)
        self.max_number = check_int("max_number", max_number, 1, 1000)
        self.max_target = check_int("max_target", max_target, 1, 10_000)

    def sample(self, rng: np.random.Generator) -> Problem:
        for _ in range(MAX_TRIES):
            numbers = rng.integers(1, self.max_number + 1, size=self.n_numbers).tolist()
            target, solution = combine_at_random(numbers, rng)
            if 1 <= target <= self.max_target:
                return Problem(
                    prompt=self.template.format(numbers=",".join(map(str, numbers)), target=target),
                    answer=solution,
                    key=f"{','.join(map(str, sorted(numbers)))}>{target}",
                    data={"numbers": numbers, "target": target},
                )
        raise ValueError(
            f"{MAX_TRIES} random expressions of {self.n_numbers} numbers up to {self.max_number} all missed 1 to"
            f" {self.max_target}: raise max_target"
        )

    @any_thread
    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        return [verdict_on(completion, problem) for completion, problem in zip(completions, problems, strict=True)]


def verdict_on(completion: str, problem: Problem) -> Verdict:
    """Does the completion make the target of ``problem.data``, using each of its numbers once?"""
    assert problem.data is not None
    found = find_expression(completion)
    if found is None:
        return Verdict("no_answer", tier="expression", reason="no_expression")
    try:
        expression, *claims = [parse_expression(side) for side in found.split("=")]
        target = Fraction(problem.data["target"])
        right = sorted(expression.numbers) == sorted(problem.data["numbers"]) and expression.value == target
        right = right and all(claim.value == target for claim in claims)
    except (ValueError, ZeroDivisionError):  # not an expression after all, or without a value
        return Verdict("incorrect", found, tier="expression")
    return Verdict("correct" if right else "incorrect", found, expression.canonical, tier="expression")


def combine_at_random(numbers: list[int], rng: np.random.Generator) -> tuple[int, str]:
    """Join two of the numbers at a time until one is left; returns its value, an integer, and the expression."""
    values = numbers.copy()
    trees = [Expression("number", number=number) for number in numbers]
    while len(values) > 1:
        i, j = int(rng.integers(len(values))), int(rng.integers(len(values) - 1))
        j += j >= i  # two different ones
        a, b, left, right = values[i], values[j], trees[i], trees[j]
        operators = ["+", "-", "*"] + (["/"] if b != 0 and a % b == 0 else [])
        operator = operators[int(rng.integers(len(operators)))]
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[operator]
        tree = combine("sum" if operator in "+-" else "product", [(False, left), (operator in "-/", right)])
        values = [v for k, v in enumerate(values) if k not in (i, j)] + [value]
        trees = [t for k, t in enumerate(trees) if k not in (i, j)] + [tree]
    return values[0], trees[0].canonical
