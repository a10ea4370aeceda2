"""Tier 2: what has to do with integers: factorials, binomial coefficients, floors, and the absolute value."""

from __future__ import annotations

import math
from typing import Any

from .exact import MAX_EXACT_BITS, Ball, Imprecise, Undefined, Value, bounded, divide, lift, magnitude, same, sign
from .functions import made
from .tokens import TooLarge

MAX_FACTORIAL = 3000
"""Largest n whose factorial is computed exactly."""


def gamma(value: Value, ctx: Any) -> Value:
    """The gamma function of a real number. Raises ``Undefined`` at its poles."""
    if not isinstance(value, Ball) and value.denominator == 1:
        if value <= 0:
            raise Undefined
        if value <= MAX_FACTORIAL + 1:
            return math.factorial(int(value) - 1)
    x = lift(value, ctx)
    if magnitude(x.mid) > 40:
        raise TooLarge
    x = x.real()
    if x.mid <= 0 or x.error > -2:
        nearest = ctx.nint(x.mid)
        if abs(x.mid - nearest) < ctx.ldexp(1, int(max(x.error, -ctx.prec) + 4)):
            if isinstance(value, Ball) and not same(x, int(nearest)):
                raise Imprecise(x.bits + 64)
            raise Undefined
    mid = ctx.gamma(x.mid)
    slope = magnitude(ctx.psi(0, x.mid)) + 2
    return made(mid, magnitude(mid) + x.error + max(0.0, slope), x)


def factorial(value: Value, ctx: Any) -> Value:
    """The factorial, for numbers that are not whole by the gamma function."""
    return gamma(whole(value) + 1 if is_whole(value) else value + 1, ctx)


def binomial(n: Value, k: Value, ctx: Any) -> Value:
    """The binomial coefficient; 0 for negative whole k."""
    if is_whole(k) and abs(whole(k)) <= 200:
        result: Value = 1
        for j in range(whole(k)):
            result = bounded(divide(result * (n - j), j + 1), ctx)
        return result if whole(k) >= 0 else 0
    if is_whole(n) and is_whole(k):
        n, k = whole(n), whole(k)
        if k < 0 or 0 <= n < k:
            return 0
        if 0 <= n <= MAX_FACTORIAL:
            return math.comb(n, k)
    return divide(factorial(n, ctx), factorial(k, ctx) * factorial(n - k, ctx))


# ---- steps


def whole(value: Value) -> int:
    """The integer that ``value`` is. Raises ``Undefined`` if it is none."""
    if not isinstance(value, Ball):
        if value.denominator != 1:
            raise Undefined
        return int(value)
    x = value.real()
    if magnitude(x.mid) > x.bits:
        raise TooLarge
    nearest = int(x.mid.context.nint(x.mid))
    if not same(x, nearest):
        raise Undefined
    return nearest


def is_whole(value: Value) -> bool:
    """Whether ``value`` is an integer."""
    if not isinstance(value, Ball):
        return bool(value.denominator == 1)
    try:
        whole(value)
    except Undefined:
        return False
    return True


def floor(value: Value) -> int:
    """The largest integer up to ``value``, which must be real."""
    if not isinstance(value, Ball):
        return math.floor(value)
    x = value.real()
    if magnitude(x.mid) > MAX_EXACT_BITS:
        raise TooLarge
    if magnitude(x.mid) > x.bits - 8:
        raise Imprecise(magnitude(x.mid) + 64)
    nearest = int(x.mid.context.nint(x.mid))
    return nearest if sign(x - nearest) >= 0 else nearest - 1


def absolute(value: Value, ctx: Any) -> Value:
    """The absolute value."""
    if not isinstance(value, Ball):
        return value if value >= 0 else -value
    x: Ball = value
    if not x.complex:
        turn = None if x.turn is None else abs(x.turn)
        return Ball(abs(x.mid), x.error, x.up, x.down, x.roots, x.loose, turn)
    return made(abs(x.mid), x.error, x)
