"""LinearEquation-v0: linear equations in one variable."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

from ..checks import check_int
from ..task import BOXED, Problem
from .integer_draws import UniformIntegersTask


class LinearEquation(UniformIntegersTask):
    r"""Solve a linear equation for x.

    ## Description

    ``ax + b = cx + d`` with integers uniform from -m to m, where a is not 0 and differs from c. The unique solution is
    a rational number, usually not an integer.

    ## Observation

    ``Solve for x: 3x + 5 = -4x - 7``

    ## Action

    A text that ends with the solution, ``-12/7``, or has it in ``\boxed{}``.

    ## Reward

    1 if the answer equals the solution in any form (``-\frac{12}{7}``, ``x = -12/7``), else 0.

    ## Arguments

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `max_coefficient` | `int`, 1 to 1000000 | `9` | the m above |
    | `template` | `str` | `"Solve for x: {equation}"` | the prompt with the field `{equation}` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import espo_gym, gymnasium
    >>> env = gymnasium.make("espo_gym/LinearEquation-v0", max_coefficient=9)
    >>> env.reset(seed=7)[0]
    'Solve for x: 6x + 7 = -9x + 9'
    >>> env.step(r"Then 15x = 2, so \boxed{x = \frac{2}{15}}.")[1]
    1.0

    ```

    ## Version history

    - v0: first version.
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
    """The fraction in lowest terms: ``-12/7``, ``3``. ``Fraction`` would take longer than the rest of the problem."""
    divisor = gcd(numerator, denominator) if denominator > 0 else -gcd(numerator, denominator)
    numerator, denominator = numerator // divisor, denominator // divisor
    return str(numerator) if denominator == 1 else f"{numerator}/{denominator}"


def side(a: int, b: int) -> str:
    """``ax + b`` in the usual notation: ``3x - 5``, ``-x``, ``7``, ``0``."""
    if a == 0:
        return str(b)
    x = {1: "x", -1: "-x"}.get(a, f"{a}x")
    return x if b == 0 else f"{x} {'+' if b > 0 else '-'} {abs(b)}"


def equation_key(a: int, b: int, c: int, d: int) -> str:
    """A key that is the same for ``ax + b = cx + d``, with the sides swapped, and for any multiple of it."""
    divisor = gcd(a, b, c, d)
    a, b, c, d = a // divisor, b // divisor, c // divisor, d // divisor
    return ",".join(map(str, max((a, b, c, d), (c, d, a, b), (-a, -b, -c, -d), (-c, -d, -a, -b))))
