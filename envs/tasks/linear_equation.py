"""LinearEquation-v0: solve for x."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

from ..checks import check_int
from ..task import BOXED, Problem
from .integer_draws import UniformIntegersTask


class LinearEquation(UniformIntegersTask):
    """Solve an equation that is linear in x.

    Description:
        ``ax + b = cx + d`` with integers uniform from -m to m, where a is not 0 and differs from c. The one solution is
        a rational number, mostly no integer.

    Observation:
        ``Solve for x: 3x + 5 = -4x - 7``

    Action:
        A text that ends with the solution, ``-12/7``, or has it in ``\\boxed{}``.

    Reward:
        1 if the answer equals the solution, in whatever form (``-\\frac{12}{7}``, ``x = -12/7``), else 0.

    Arguments:
        ``max_coefficient``, the m above (1 to 1000000, default 9); ``template`` with the field ``{equation}``;
        ``system_prompt``.

    Version history:
        v0: first version.
    """

    name = "linear_equation"
    template = "Solve for x: {equation}"
    system_prompt = BOXED

    def __init__(self, *, max_coefficient: int = 9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_coefficient = check_int("max_coefficient", max_coefficient, 1, 1_000_000)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(-self.max_coefficient, self.max_coefficient + 1)] * 4

    def make(self, numbers: Sequence[int]) -> Problem | None:
        a, b, c, d = numbers
        if a == 0 or a == c:
            return None
        prompt = self.template.format(equation=f"{side(a, b)} = {side(c, d)}")
        return Problem(prompt, ratio(d - b, a - c), equation_key(a, b, c, d))


def ratio(numerator: int, denominator: int) -> str:
    """In lowest terms: ``-12/7``, ``3``. A Fraction would take longer than all the rest of the problem."""
    divisor = gcd(numerator, denominator) if denominator > 0 else -gcd(numerator, denominator)
    numerator, denominator = numerator // divisor, denominator // divisor
    return str(numerator) if denominator == 1 else f"{numerator}/{denominator}"


def side(a: int, b: int) -> str:
    """``ax + b`` as it is usually written: ``3x - 5``, ``-x``, ``7``, ``0``."""
    if a == 0:
        return str(b)
    x = {1: "x", -1: "-x"}.get(a, f"{a}x")
    return x if b == 0 else f"{x} {'+' if b > 0 else '-'} {abs(b)}"


def equation_key(a: int, b: int, c: int, d: int) -> str:
    """The same for ``ax + b = cx + d``, for its sides exchanged, and for any multiple of it."""
    divisor = gcd(a, b, c, d)
    a, b, c, d = a // divisor, b // divisor, c // divisor, d // divisor
    return ",".join(map(str, max((a, b, c, d), (c, d, a, b), (-a, -b, -c, -d), (-c, -d, -a, -b))))
