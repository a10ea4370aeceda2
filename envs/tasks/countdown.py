"""Countdown-v0: combine some numbers to reach a target."""

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
    r"""Combine all given numbers to reach a target.

    ## Description

    Each number must be used exactly once, with ``+``, ``-``, ``*``, ``/`` and parentheses. Every problem has a
    solution, most have several, and any of them is right. Values are exact, so ``8/(3-8/3)`` is 24.

    ## Observation

    ``8,6,4>02:`` (make 2 from 8, 6 and 4)

    ## Action

    An expression, ``6+4-8``: alone, in ``<answer>`` tags, in ``\boxed{}``, after "answer is", or else the last one in
    the text. LaTeX (``\times``, ``\cdot``, ``\div``, ``\frac``) and a final ``= 2`` are understood. Two boxes joined by
    a comma or "and" are two answers, and neither counts.

    ## Reward

    1 if the expression uses each number once and equals the target, else 0.

    ## Arguments

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `n_numbers` | `int`, 2 to 8 | `3` | how many numbers are given |
    | `max_number` | `int`, 1 to 1000 | `9` | largest number; the smallest is 1 |
    | `max_target` | `int`, 1 to 10000 | `99` | largest target; the smallest is 1 |
    | `template` | `str` | `"{numbers}>{target:02}:"` | the prompt with the fields `{numbers}` and `{target}` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an expression in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` is refused: a right answer need not equal the reference |
    | `audit_share` | `float` | `0.1` | no effect |

    ## Example

    ```python
    >>> import espo_gym, gymnasium
    >>> env = gymnasium.make("espo_gym/Countdown-v0", n_numbers=3)
    >>> env.reset(seed=7)[0]
    '2,6,8>04:'
    >>> _, reward, _, _, info = env.step(r"Twelve is eight too many, so \boxed{6 \cdot 2 - 8}.")
    >>> reward, info["verdict"].answer
    (1.0, '6 * 2 - 8')

    ```

    ## Version history

    - v0: first version.
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
    """Whether the completion reaches the target in ``problem.data`` and uses each of the numbers there once."""
    assert problem.data is not None
    found = find_expression(completion)
    if found is None:
        return Verdict("no_answer", tier="expression", reason="no_expression")
    try:
        expression, *claims = [parse_expression(side) for side in found.split("=")]
        target = Fraction(problem.data["target"])
        right = sorted(expression.numbers) == sorted(problem.data["numbers"]) and expression.value == target
        right = right and all(claim.value == target for claim in claims)
    except (ValueError, ZeroDivisionError):  # not an expression, or one without a value
        return Verdict("incorrect", found, tier="expression")
    return Verdict("correct" if right else "incorrect", found, expression.canonical, tier="expression")


def combine_at_random(numbers: list[int], rng: np.random.Generator) -> tuple[int, str]:
    """Combine two random numbers at a time until one is left; returns its value and the expression.

    Only exact divisions are made, so the value is an integer.
    """
    values = numbers.copy()
    trees = [Expression("number", number=number) for number in numbers]
    while len(values) > 1:
        i, j = int(rng.integers(len(values))), int(rng.integers(len(values) - 1))
        j += j >= i  # a different one
        a, b, left, right = values[i], values[j], trees[i], trees[j]
        operators = ["+", "-", "*"] + (["/"] if b != 0 and a % b == 0 else [])
        operator = operators[int(rng.integers(len(operators)))]
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[operator]
        tree = combine("sum" if operator in "+-" else "product", [(False, left), (operator in "-/", right)])
        values = [v for k, v in enumerate(values) if k not in (i, j)] + [value]
        trees = [t for k, t in enumerate(trees) if k not in (i, j)] + [tree]
    return values[0], trees[0].canonical
