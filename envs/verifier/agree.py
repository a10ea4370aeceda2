"""Tier 2: decides whether two numeric trees are equal at every point where they are evaluated."""

from __future__ import annotations

import zlib
from typing import Any

from .evaluate import DIGITS, Evaluator, NotNumeric, Undefined, context
from .tokens import Node, TooLarge
from .tree import BARE_LOG, contains, symbols

RECHECK_DIGITS = 120
"""Digits of a second evaluation if two values differ slightly: a rounding difference shrinks, a real one stays."""
POINTS = (("positive", 0), ("positive", 1), ("positive", 2), ("negative", 3), ("mixed", 4), ("positive", 5))
"""Where trees with variables are evaluated. Values at negative points count only if both are real."""


class Point:
    """Values of the variables, determined by their names and the number of the point, no two equal."""

    def __init__(self, ctx: Any, kind: str, number: int) -> None:
        self.ctx, self.kind, self.number = ctx, kind, number
        self.values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        value = self.values.get(name)
        if value is None:
            seed = zlib.crc32(f"{name}/{self.number}".encode())
            if self.kind == "integer":
                value = self.ctx.mpf(3 + seed % 23 + 2 * self.number)
            else:
                value = self.ctx.mpf(seed * 1_000_003 + 7) / self.ctx.mpf(1 << 51) / 2 + self.ctx.mpf(3) / 5
                if self.number == 5:
                    value *= 11
                if self.kind == "negative" or (self.kind == "mixed" and seed & 1):
                    value = -value
            self.values[name] = value
        return value


def close(ctx: Any, a: Any, b: Any, digits: int) -> bool:
    """Whether two numbers are equal or both finite and equal to ``digits`` digits."""
    if a == b:
        return True
    if not (ctx.isfinite(a) and ctx.isfinite(b)):
        return False
    return bool(abs(a - b) <= ctx.mpf(10) ** (-digits) * max(abs(a), abs(b)))


def integer_points(a: Node, b: Node) -> bool:
    """Whether the trees must be compared at integers: powers of -1, floors and sums are meant for those."""
    return any(contains(node, frozenset(("sum", "floor", "ceil"))) or _alternates(node) for node in (a, b))


def _alternates(node: Any) -> bool:
    if not isinstance(node, tuple) or not node:
        return False
    if node[0] == "pow" and symbols(node[2]) and not symbols(node[1]):
        base = node[1]
        if base[0] == "neg" or base == ("const", "i"):
            return True
    return any(_alternates(child) for child in node)


def agree(a: Node, b: Node, sign: int = 1) -> bool | None:
    """Whether two numeric trees are equal at every point; None if that could not be determined.

    ``sign`` (1 or -1) is the sign that plus-minus stands for.
    """
    if contains(a, BARE_LOG) or contains(b, BARE_LOG):  # base ten or e: either is accepted, the same on both sides
        verdicts = [_agree(a, b, sign, 10), _agree(a, b, sign, 0)]
        return True if True in verdicts else None if None in verdicts else False
    return _agree(a, b, sign, 0)


def _agree(a: Node, b: Node, sign: int, log_base: int) -> bool | None:
    names = symbols(a) | symbols(b)
    if not names:
        return _agree_at(a, b, "positive", 0, sign, log_base)
    points: Any = POINTS
    if integer_points(a, b):
        points = tuple(("integer", number) for number in range(6))
    agreed = 0
    for kind, number in points:
        verdict = _agree_at(a, b, kind, number, sign, log_base)
        if verdict is False:
            return False
        agreed += verdict is True
    return True if agreed >= 2 else None


def _agree_at(a: Node, b: Node, kind: str, number: int, sign: int, log_base: int) -> bool | None:
    first_difference = None
    for digits in (DIGITS, RECHECK_DIGITS):
        ctx = context(digits)
        left = _try(a, ctx, kind, number, sign, log_base)
        right = _try(b, ctx, kind, number, sign, log_base)
        if left is TooLarge or right is TooLarge:
            return None
        if left is None or right is None:
            return None if left is right or kind != "positive" else False
        if close(ctx, left, right, digits - 10):
            return True
        if kind in ("negative", "mixed") and (_complex(ctx, left) or _complex(ctx, right)):
            return None
        if not (ctx.isfinite(left) and ctx.isfinite(right)):
            return False
        difference = abs(left - right)
        if first_difference is None:
            if left != 0 and right != 0 and difference > max(abs(left), abs(right)) / 10**12:
                return False  # too far apart at 40 digits for a rounding difference
            first_difference = difference
    return bool(difference < first_difference / ctx.mpf(10) ** 40)


def _complex(ctx: Any, value: Any) -> bool:
    return isinstance(value, ctx.mpc) and value.imag != 0


def _try(node: Node, ctx: Any, kind: str, number: int, sign: int, log_base: int) -> Any:
    try:
        return Evaluator(ctx, Point(ctx, kind, number), sign, log_base).value(node)
    except Undefined:
        return None
    except (TooLarge, NotNumeric, RecursionError):
        return TooLarge
