"""ModularArithmetic-v0: remainders of chains of numbers and operators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..checks import check_int
from ..task import BOXED, Problem, any_thread
from ..verdict import Verdict
from .chain import chain, chain_ranges, check_operators
from .integer_answer import INTEGER, IntegerAnswerTask, normalize

MODULUS = re.compile(r"\\?[bp]?mod(?:ulo)?\s*\{?\s*[0-9]+\s*\}?")
SIDES = re.compile(r"=|\u2261|\\equiv")


class ModularArithmetic(IntegerAnswerTask):
    r"""Compute the remainder of a chain of numbers and operators.

    ## Description

    A chain as in ``ChainArithmetic-v0``, and a modulus uniform from 2 to ``max_modulus``. The answer is the remainder
    from 0 to modulus - 1, also if the chain is negative.

    ## Observation

    ``What is (17*23-50) mod 12?``

    ## Action

    A text that ends with the remainder, ``5``, or has it in ``\boxed{}``. ``5 \pmod{12}`` and ``341 = 5 (mod 12)`` are
    understood. Another number with the same remainder is wrong.

    ## Reward

    1 if the answer equals the remainder, else 0.

    ## Arguments

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `terms` | `int`, 2 to 20 | `3` | numbers in the chain |
    | `digits` | `int`, 1 to 9 | `2` | digits of each number |
    | `operators` | `str` | `"+-*"` | some of `+-*`, each at most once |
    | `max_modulus` | `int`, 2 to 1000000 | `20` | largest modulus |
    | `template` | `str` | `"What is ({expression}) mod {modulus}?"` | the prompt with `{expression}` and `{modulus}` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import espo_gym, gymnasium
    >>> env = gymnasium.make("espo_gym/ModularArithmetic-v0")
    >>> env.reset(seed=7)[0]
    'What is (50-99-27) mod 3?'
    >>> env.step(r"50-99-27 is -76, and \boxed{-76 \equiv 2 \pmod{3}}.")[1]
    1.0

    ```

    ## Version history

    - v0: first version.
    """

    name = "modular"
    template = "What is ({expression}) mod {modulus}?"
    system_prompt = BOXED

    def __init__(
        self, *, terms: int = 3, digits: int = 2, operators: str = "+-*", max_modulus: int = 20, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.terms = check_int("terms", terms, 2, 20)
        self.digits = check_int("digits", digits, 1, 9)
        self.operators = check_operators(operators)
        self.max_modulus = check_int("max_modulus", max_modulus, 2, 1_000_000)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [*chain_ranges(self.terms, self.digits, self.operators), (2, self.max_modulus + 1)]

    def make(self, numbers: Sequence[int]) -> Problem:
        chosen = [self.operators[i] for i in numbers[self.terms : -1]]
        expression, value, key = chain(numbers[: self.terms], chosen)
        modulus = numbers[-1]
        prompt = self.template.format(expression=expression, modulus=modulus)
        return Problem(prompt, str(value % modulus), f"{key}%{modulus}")

    @any_thread
    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        verdicts = super().verify(completions, problems)
        for i, (verdict, problem) in enumerate(zip(verdicts, problems, strict=True)):
            residue = stated_residue(verdict.answer or "")
            if residue is not None and normalize(residue) == problem.answer:
                verdicts[i] = Verdict("correct", verdict.answer, problem.answer, "integer", verdict.seconds)
        return verdicts


def stated_residue(answer: str) -> str | None:
    """The 5 in ``5 (mod 12)``, ``5 \\pmod{12}``, ``341 = 5 mod 12``, ``41 mod 12 = 5``; ``None`` for other forms."""
    text, congruences = MODULUS.subn("", answer)
    last = SIDES.split(text)[-1].strip(" ()$")
    return last if congruences and INTEGER.fullmatch(last) else None
