"""Addition-v0: sums of two numbers, and demonstrations of column addition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import check_int
from ..task import BOXED, Problem
from .integer_answer import IntegerAnswerTask


class Addition(IntegerAnswerTask):
    r"""Add two numbers of the same length.

    ## Description

    Both numbers are uniform among those with ``digits`` digits. A small model can learn the task in a minute, and
    ``scratchpad`` writes demonstrations of the method that need not end in the right answer.

    ## Observation

    ``358+467=``

    ## Action

    The sum, ``825``: alone, at the end of a text, or as the last field of a scratch pad that adds column by column
    from the right and writes ``+1`` for a carry: ``8+7=15,5+6+1=12,3+4+1=8,825``. If a completion consists only of
    digits, ``+``, ``=`` and ``,``, the answer is what follows the last comma; an unevaluated sum is not an answer.

    ## Reward

    1 if the answer equals the sum, else 0.

    ## Arguments

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `digits` | `int`, 1 to 18 | `3` | digits of both numbers |
    | `template` | `str` | `"{a}+{b}="` | the prompt with the fields `{a}` and `{b}` |
    | `system_prompt` | `str` | `None` | for chat models; `None` asks for an answer in `\boxed{}`, `""` is none |
    | `verifier` | `str` | `"standard"` | `"audit"` re-checks a share of the verdicts with an independent method |
    | `audit_share` | `float` | `0.1` | that share, above 0 and at most 1 |

    ## Example

    ```python
    >>> import espo_gym, gymnasium
    >>> env = gymnasium.make("espo_gym/Addition-v0", digits=3)
    >>> env.reset(seed=7)[0]
    '114+637='
    >>> _, reward, _, _, info = env.step("4+7=11,1+3+1=5,1+6=7,751")
    >>> reward, info["verdict"].answer
    (1.0, '751')

    ```

    ## Version history

    - v0: first version.
    """

    name = "addition"
    template = "{a}+{b}="
    system_prompt = BOXED
    scratch_pad = re.compile(r"[0-9+=,]*")

    def __init__(self, *, digits: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.digits = check_int("digits", digits, 1, 18)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(10 ** (self.digits - 1), 10**self.digits)] * 2

    def make(self, numbers: Sequence[int]) -> Problem:
        a, b = numbers
        return Problem(
            prompt=self.template.format(a=a, b=b),
            answer=str(a + b),
            key=f"{min(a, b)}+{max(a, b)}",
            data={"a": a, "b": b},
        )

    def final_answer(self, scratch_pad: str) -> str:
        _, comma, last = scratch_pad.rpartition(",")
        return last if comma else last.rpartition("=")[2]  # without a comma: 825, or 358+467=825


def scratchpad(a: int, b: int, *, drop_carry: float = 0.0, rng: np.random.Generator | None = None) -> str:
    """Column addition from the right, as text: ``8+7=15,5+6+1=12,3+4+1=8,825`` for 358 and 467.

    Args:
        a, b: the numbers, >= 0.
        drop_carry: the probability with which each carry is forgotten, including the one out of the leftmost column.
            The addition continues as if there had been none, so the last field is consistent with the columns. A policy
            warmed up on such demonstrations knows the method, but mostly gets the answer wrong.
        rng: required if ``drop_carry`` is above 0.

    Raises ValueError for a negative number, a ``drop_carry`` that is not a probability, or a missing ``rng``.
    """
    if a < 0 or b < 0:
        raise ValueError(f"a and b must not be negative: {a}, {b}")
    if not 0 <= drop_carry <= 1:
        raise ValueError(f"drop_carry must be a probability, not {drop_carry!r}")
    if drop_carry > 0 and rng is None:
        raise ValueError("drop_carry needs a random generator: pass rng")
    length = max(len(str(a)), len(str(b)))
    columns, answer, carry = [], "", 0
    for x, y in zip(reversed(f"{a:0{length}}"), reversed(f"{b:0{length}}"), strict=True):
        total = int(x) + int(y) + carry
        columns.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        answer = f"{total % 10}{answer}"
        carry = total // 10
        if carry and rng is not None and rng.random() < drop_carry:
            carry = 0
    return ",".join([*columns, f"1{answer}" if carry else answer])
