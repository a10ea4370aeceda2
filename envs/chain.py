"""ChainArithmetic-v0: a chain of numbers and operators."""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np

from .checks import check_int
from .integers import IntegerTask
from .task import BOXED, Problem


class ChainArithmetic(IntegerTask):
    """Work out a chain of numbers, with the usual precedence.

    Description:
        The numbers are uniform among those of ``digits`` digits (1 to 9 for one digit), the operators uniform too. The
        result may be negative.

    Observation:
        ``8*8-9-7-8=``

    Action:
        The result, ``40``, alone, at the end of a text, or at the end of a scratch pad that works from step to step:
        ``08*8=64,64-9=55,55-7=48,48-8=40``. In a completion of nothing but digits, ``+-*``, ``=`` and ``,`` the answer
        is what follows the last comma and there the last equals sign; an expression is no answer.

    Reward:
        1 if the answer equals the result, else 0.

    Arguments:
        ``terms`` (2 to 20, default 5); ``digits`` (1 to 9, default 1); ``operators``, some of ``+-*`` (default all);
        ``template`` with the field ``{expression}``; ``system_prompt``.

    Version history:
        v0: first version.
    """

    name = "chain"
    template = "{expression}="
    system_prompt = BOXED
    scratch_pad = re.compile(r"[-0-9+*=,]*")

    def __init__(self, *, terms: int = 5, digits: int = 1, operators: str = "+-*", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.terms = check_int("terms", terms, 2, 20)
        self.digits = check_int("digits", digits, 1, 9)
        self.operators = check_operators(operators)

    def sample(self, rng: np.random.Generator) -> Problem:
        expression, value, key = random_chain(rng, self.terms, self.digits, self.operators)
        return Problem(self.template.format(expression=expression), str(value), key)

    def final_answer(self, scratch_pad: str) -> str:
        return scratch_pad.rpartition(",")[2].rpartition("=")[2]


def random_chain(rng: np.random.Generator, terms: int, digits: int, operators: str) -> tuple[str, int, str]:
    """A chain such as ``2+8*7-1``, its value, and a key that the order of its terms and factors does not change."""
    numbers = rng.integers(10 ** (digits - 1), 10**digits, size=terms).tolist()
    chosen = [operators[i] for i in rng.integers(len(operators), size=terms - 1).tolist()]
    products = [("+", [numbers[0]])]  # sign and factors of each term of the sum
    for operator, number in zip(chosen, numbers[1:], strict=True):
        if operator == "*":
            products[-1][1].append(number)
        else:
            products.append((operator, [number]))
    text = "".join(f"{number}{operator}" for number, operator in zip(numbers, [*chosen, ""], strict=True))
    value = sum(prod(factors) if sign == "+" else -prod(factors) for sign, factors in products)
    key = "".join(sorted(sign + "*".join(map(str, sorted(factors))) for sign, factors in products))
    return text, value, key


def check_operators(operators: Any) -> str:
    """Raises ValueError unless ``operators`` is made of ``+``, ``-`` and ``*``, each at most once."""
    if not isinstance(operators, str) or not operators or sorted(operators) != sorted(set(operators) & set("+-*")):
        raise ValueError(f"operators must be some of '+-*', each at most once, not {operators!r}")
    return operators
