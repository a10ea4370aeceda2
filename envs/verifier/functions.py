"""Tier 2: powers, roots and functions of the values of ``exact.py``, with bounds of their errors.

An error is the error of the argument times a bound of the derivative, plus the rounding of mpmath. A rational result is
exact where that is easily seen, as for the root of a square or the sine of 30 degrees.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from .exact import (
    MAX_EXACT_BITS,
    NOTHING,
    UNIT_4,
    Ball,
    Imprecise,
    Undefined,
    Value,
    divide,
    imaginary_unit,
    least_magnitude,
    lift,
    log_sum,
    magnitude,
    pi,
    sign,
    unity,
)
from .tokens import TooLarge

MAX_POWER_BITS = 1 << 57
MAX_ARGUMENT_BITS = 64
"""Largest binary exponent of an argument: functions reduce it to a period, which costs time by magnitude."""
MAX_ORDER = 2000
"""Largest n for which the n-th roots of unity are algebraic numbers here, and largest degree of an exact root."""


def made(mid: Any, error: float, of: Ball) -> Ball:
    """A value of a transcendental function: as long as itself and its argument, with more digits if that is small."""
    size, top = max(of.up, of.down), magnitude(mid)
    rounding = top - mid.context.prec + 2
    error = log_sum(error, rounding)
    small = max(0.0, -max(magnitude(of.mid), of.error))  # sin x - x is x^3
    down = max(0.0, -max(top, error)) + size + 3 * small + 2
    return Ball(mid, error, max(0.0, top), down, of.roots, True)


def _off_the_cut(x: Ball) -> Ball:
    """``x``, real if it is; the functions jump where a complex number crosses the negative real axis."""
    if x.complex and x.mid.real <= 0 and magnitude(x.mid.imag) - 1 <= x.error and x.imaginary().zero():
        return x.real()
    if x.complex and x.mid.imag == 0:
        return x.real()
    return x


def _narrow(x: Ball, below: float) -> Ball:
    """``x`` if its error is less than ``2^below``."""
    if x.error >= below:
        raise Imprecise(x.bits + x.error - below + 32)
    if magnitude(x.mid) > MAX_ARGUMENT_BITS:
        raise TooLarge
    return x


# ---- powers and roots


def root(value: Value, degree: int, ctx: Any) -> Value:
    """The principal root; for odd degrees of negative numbers it is complex."""
    if not isinstance(value, Ball) and value >= 0:
        top, bottom = (_exact_root(part, degree) for part in (value.numerator, value.denominator))
        if top is not None and bottom is not None:
            return Fraction(top, bottom) if bottom != 1 else top
    if not isinstance(value, Ball) and value < 0 and degree == 2:
        return imaginary_unit(ctx) * root(-value, 2, ctx)
    x = _off_the_cut(lift(value, ctx))
    if x.error + 1 > least_magnitude(x.mid):
        if x.zero():
            return 0
        raise Imprecise(x.bits + 64)
    name: Any = value if not isinstance(value, Ball) else (str(x.mid), x.up, x.down, x.roots)
    # |f'| <= |f| / (degree |x|), at half of |x| at worst twice as much
    if degree == 2:
        mid = ctx.sqrt(x.mid)
    elif not x.complex and x.mid > 0:
        mid = ctx.root(x.mid, degree)
    else:
        mid = ctx.exp(ctx.ln(x.mid) / degree)
    error = log_sum(x.error + magnitude(mid) - least_magnitude(x.mid) + 1, magnitude(mid) - ctx.prec + 3)
    high, low, k = x.up, x.down, degree
    up, down = ((high + (k - 1) * low) / k, low) if high >= low else (high, ((k - 1) * high + low) / k)
    return Ball(mid, error, up, down, x.roots | {(degree, name)}, x.loose)


def _exact_root(n: int, degree: int) -> int | None:
    if n <= 1:
        return n
    if degree == 2:
        found = math.isqrt(n)
    elif degree > n.bit_length():
        return None
    else:
        found = 1 << -(-n.bit_length() // degree)
        while True:  # Newton, from above
            lower = ((degree - 1) * found + n // found ** (degree - 1)) // degree
            if lower >= found:
                break
            found = lower
    return found if found**degree == n else None


def power(base: Value, exponent: Value, ctx: Any, real_roots: bool = False) -> Value:
    """``base ** exponent``. ``real_roots``: an odd root of a negative number is negative, not complex."""
    if isinstance(exponent, Ball):
        if not isinstance(base, Ball) and base == 0:
            if sign(exponent) <= 0:
                raise Undefined
            return 0
        return exp(exponent * ln(base, ctx), ctx)
    q: int = exponent.denominator
    if q == 1:
        return _whole_power(base, int(exponent), ctx)
    if q > MAX_ORDER:
        return power(base, lift(exponent, ctx), ctx)
    p: int = exponent.numerator
    if real_roots and q % 2 and not (isinstance(base, Ball) and base.complex) and sign(base) < 0:
        return _whole_power(-root(-base, q, ctx), p, ctx)
    if not isinstance(base, Ball) and base == 0 and p < 0:
        raise Undefined
    return _whole_power(root(base, q, ctx), p, ctx)


def _whole_power(base: Value, n: int, ctx: Any) -> Value:
    if not isinstance(base, Ball):
        if base == 0:
            if n <= 0:
                raise Undefined
            return 0
        if n == 0:
            return 1
        if abs(base) == 1:
            return base if n % 2 else 1
        length = max(base.numerator.bit_length(), base.denominator.bit_length())
        if length * abs(n) <= MAX_EXACT_BITS:
            return base**n if n > 0 else 1 / Fraction(base) ** -n
    x = _off_the_cut(lift(base, ctx))
    if x.error + 1 > least_magnitude(x.mid):
        if x.zero():
            return _whole_power(0, n, ctx)
        raise Imprecise(x.bits + 64)
    if n == 0:
        return 1
    if x.mid.__class__ is ctx.mpc and x.mid.real == 0 and x.roots == UNIT_4 and x.error == NOTHING and abs(x.mid) == 1:
        quarter = n % 4 if x.mid.imag > 0 else -n % 4
        return (1, x, -1, -x)[quarter] if x.mid.imag > 0 else (1, -x, -1, x)[quarter]
    steps = float(abs(n).bit_length())
    if steps > 60 or abs(magnitude(x.mid)) * abs(n) > MAX_POWER_BITS:
        raise TooLarge
    relative = log_sum(x.error - least_magnitude(x.mid), -float(ctx.prec)) + steps
    if relative > -2:
        raise Imprecise(ctx.prec + relative + 64)
    mid = x.mid**n if not x.complex or abs(n) <= 1000 else ctx.exp(ctx.ln(x.mid) * n)
    error = magnitude(mid) + relative + 4
    up, down = (x.up * n, x.down * n) if n > 0 else (-x.down * n, -x.up * n)
    return Ball(mid, error, up, down, x.roots, x.loose)


# ---- functions


def exp(value: Value, ctx: Any) -> Value:
    """The exponential function."""
    if not isinstance(value, Ball) and value == 0:
        return 1
    x = _narrow(lift(value, ctx), -1)
    mid = ctx.exp(x.mid)
    return made(mid, magnitude(mid) + x.error + 1, x)


def ln(value: Value, ctx: Any) -> Value:
    """The natural logarithm, its principal value. Raises ``Undefined`` for 0."""
    if not isinstance(value, Ball) and value == 1:
        return 0
    x = _off_the_cut(lift(value, ctx))
    if x.error + 1 > least_magnitude(x.mid):
        if x.zero():
            raise Undefined
        raise Imprecise(x.bits + 64)
    return made(ctx.ln(x.mid), x.error - least_magnitude(x.mid) + 1, x)


_COSINES: dict[Fraction, int | Fraction] = {
    **{Fraction(0): 1, Fraction(1, 3): Fraction(1, 2), Fraction(1, 2): 0},
    **{Fraction(2, 3): Fraction(-1, 2), Fraction(1): -1},
}
_ANGLES = {Fraction(value): turn for turn, value in _COSINES.items()}


def cos(value: Value, ctx: Any) -> Value:
    """The cosine."""
    if not isinstance(value, Ball):
        return _wave(value, ctx, ctx.cos) if value else 1
    if value.turn is None:
        return _wave(value, ctx, ctx.cos)
    turn = abs(value.turn) % 2
    turn = 2 - turn if turn > 1 else turn
    if turn in _COSINES:
        return _COSINES[turn]
    order = 2 * turn.denominator
    angle = ctx.mpf(turn.numerator) * ctx.pi / turn.denominator
    mid, error = ctx.cos(angle), 6.0 - ctx.prec
    if order > MAX_ORDER:
        return made(mid, error, Ball(mid, error, 2.0, float(order.bit_length())))
    return Ball(mid, error, 1.0, 1.0, unity(order))


def sin(value: Value, ctx: Any) -> Value:
    """The sine."""
    if not isinstance(value, Ball):
        return _wave(value, ctx, ctx.sin) if value else 0
    if value.turn is None:
        return _wave(value, ctx, ctx.sin)
    return cos(Ball(value.mid, value.error, 0, 0, turn=Fraction(1, 2) - value.turn), ctx)


def _wave(value: Value, ctx: Any, function: Any) -> Ball:
    x = _narrow(lift(value, ctx), -1)
    error = x.error + 1
    if x.complex:
        error += 1.4427 * abs(float(x.mid.imag)) + 2  # |sin'(x + iy)| <= cosh(y)
    return made(function(x.mid), error, x)


def tangent(value: Value, ctx: Any) -> Value:
    """The tangent. Raises ``Undefined`` at its poles."""
    return divide(sin(value, ctx), cos(value, ctx))


def hyperbolic(name: str, value: Value, ctx: Any) -> Value:
    """The function sinh, cosh or tanh, from exponentials."""
    forth, back = exp(value, ctx), exp(-value, ctx)
    if name == "tanh":
        return divide(forth - back, forth + back)
    return divide(forth + back if name == "cosh" else forth - back, 2)


def arccos(value: Value, ctx: Any) -> Value:
    """The inverse of the cosine, its principal value."""
    if not isinstance(value, Ball) and value in _ANGLES:
        turn = _ANGLES[Fraction(value)]
        return pi(ctx) * turn if turn else 0
    x = _off_the_cut(_narrow(lift(value, ctx), -3))
    if x.complex and magnitude(x.mid.imag) - 1 <= x.error:  # its cuts are on the real axis
        x = x.real()
    # with y in [0, pi], |arccos' y| is at most that at the ends, where it is a square root
    return made(ctx.acos(x.mid), x.error / 2 + 2, x)


def arcsin(value: Value, ctx: Any) -> Value:
    """The inverse of the sine, its principal value."""
    if not isinstance(value, Ball) and value == 0:
        return 0
    return pi(ctx) * Fraction(1, 2) - arccos(value, ctx)


def arctan(value: Value, ctx: Any) -> Value:
    """The inverse of the tangent, its principal value."""
    if not isinstance(value, Ball) and value in (-1, 0, 1):
        return pi(ctx) * Fraction(int(value), 4) if value else 0
    x = _narrow(lift(value, ctx), -1)
    if not x.complex:
        return made(ctx.atan(x.mid), x.error, x)
    turned = imaginary_unit(ctx) * x
    logarithms = ln(1 - turned, ctx) - ln(1 + turned, ctx)
    return imaginary_unit(ctx) * divide(logarithms, 2)
