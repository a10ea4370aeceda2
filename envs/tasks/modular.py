"""ModularArithmetic-v0: remainders."""

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
    """Work out the remainder of a chain of numbers.

    Description:
        A chain as in ``ChainArithmetic-v0``, and a modulus uniform from 2 to ``max_modulus``. The answer is the
        remainder from 0 to modulus - 1, also where the chain is negative.

    Observation:
        ``What is (17*23-50) mod 12?``

    Action:
        A text that ends with the remainder, ``5``, or has it in ``\\boxed{}``; ``5 \\pmod{12}`` and
        ``341 = 5 (mod 12)`` are understood. Another number that leaves the same remainder is wrong.

    Reward:
        1 if the answer equals the remainder, else 0.

    Arguments:
        ``terms`` (2 to 20, default 3); ``digits`` (1 to 9, default 2); ``operators``, some of ``+-*`` (default all);
        ``max_modulus`` (2 to 1000000, default 20); ``template`` with the fields ``{expression}`` and ``{modulus}``;
        ``system_prompt``.

    Version history:
        v0: first version.
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
    """The 5 of ``5 (mod 12)``, ``5 \\pmod{12}``, ``341 = 5 mod 12``, ``41 mod 12 = 5``; ``None`` for other forms."""
    text, congruences = MODULUS.subn("", answer)
    last = SIDES.split(text)[-1].strip(" ()$")
    return last if congruences and INTEGER.fullmatch(last) else None
