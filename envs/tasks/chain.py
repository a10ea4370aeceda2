"""ChainArithmetic-v0: chains of numbers and operators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..checks import check_int
from ..task import BOXED, Problem
from .integer_answer import IntegerAnswerTask


class ChainArithmetic(IntegerAnswerTask):
    r"""Evaluate a chain of numbers and operators, with the usual precedence.

    ## Description

    The numbers are uniform among those with ``digits`` digits (1 to 9 for one digit), and so are the operators. The
    result may be negative.

    ## Observation

    ``8*8-9-7-8=``

    ## Action

    The result, ``40``: alone, at the end of a text, or at the end of a scratch pad that evaluates step by step:
    ``08*8=64,64-9=55,55-7=48,48-8=40``. If a completion consists only of digits, ``+-*``, ``=`` and ``,``, the answer
    is what follows the last equals sign after the last comma; an unevaluated expression is not an answer.

    ## Reward

    1 if the answer equals the result, else 0.

    ## Arguments

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `terms` | `int`, 2 to 20 | `5` | numbers in the chain |
    | `digits` | `int`, 1 to 9 | `1` | digits of each number |
    | `operators` | `str` | `"+-*"` | some of `+-*`, each at most once |
    | `template` | `str` | `"{expression}="` | the prompt with the field `{expression}` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import espo_gym, gymnasium
    >>> env = gymnasium.make("espo_gym/ChainArithmetic-v0", terms=5)
    >>> env.reset(seed=7)[0]
    '5-3*4+1-1='
    >>> _, reward, _, _, info = env.step("03*4=12,5-12=-7,-7+1=-6,-6-1=-7")
    >>> reward, info["verdict"].answer
    (1.0, '-7')

    ```

    ## Version history

    - v0: first version.
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

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return chain_ranges(self.terms, self.digits, self.operators)

    def make(self, numbers: Sequence[int]) -> Problem:
        expression, value, key = chain(numbers[: self.terms], [self.operators[i] for i in numbers[self.terms :]])
        return Problem(self.template.format(expression=expression), str(value), key)

    def final_answer(self, scratch_pad: str) -> str:
        return scratch_pad.rpartition(",")[2].rpartition("=")[2]


def chain_ranges(terms: int, digits: int, operators: str) -> list[tuple[int, int]]:
    """The ranges of the numbers in a chain, then those of the indices of its operators into ``operators``."""
    return [(10 ** (digits - 1), 10**digits)] * terms + [(0, len(operators))] * (terms - 1)


def chain(numbers: Sequence[int], operators: Sequence[str]) -> tuple[str, int, str]:
    """The chain as text (``2+8*7-1``), its value, and a key that does not depend on the order of terms and factors."""
    names = list(map(str, numbers))
    text, value, term = names[0], 0, numbers[0]
    sign, factors, terms = "+", [text], []
    for operator, number, name in zip(operators, numbers[1:], names[1:], strict=True):
        text += operator + name
        if operator == "*":
            term *= number
            factors.append(name)
        else:
            factors.sort()  # all numbers in a chain have equal length, so strings sort as numbers do
            terms.append(sign + "*".join(factors))
            value += term
            sign, factors, term = operator, [name], number if operator == "+" else -number
    factors.sort()
    terms.append(sign + "*".join(factors))
    return text, value + term, "".join(sorted(terms))


def check_operators(operators: Any) -> str:
    """``operators``. Raises ValueError unless it consists of ``+``, ``-`` and ``*``, each at most once."""
    if not isinstance(operators, str) or not operators or sorted(operators) != sorted(set(operators) & set("+-*")):
        raise ValueError(f"operators must be some of '+-*', each at most once, not {operators!r}")
    return operators
