r"""Tier 2: numbers that know how far they can be trusted.

A value is an ``int`` or a ``Fraction`` as long as it is rational and of bounded size, and else a ``Ball``: a number of
finite precision, a bound of its error, and how close to 0 it can be without being 0. So two values are

* *different* if their difference exceeds its error, which is a proof;
* *equal* if their difference, with its error, is smaller than any difference that numbers so made can have: for sums,
  products, quotients and roots of integers and for sines of rational multiples of pi, the separation bound of Burnikel,
  Funke, Mehlhorn, Schirra and Schmitt (2001), a proof as well; where other functions occur, or where that bound asks
  for too many digits, several times the digits that the operands have together;
* otherwise ``Imprecise`` is raised, which asks for an evaluation with more digits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import log1p, prod
from typing import Any, TypeVar

from .tokens import TooLarge

BITS = 384
"""Precision of a first evaluation, in bits."""
MAX_BITS = 16_384
"""Highest precision of an evaluation."""
MAX_EXACT_BITS = 1 << 15
"""Largest numerator or denominator of an exact value; beyond it, a value is a ``Ball``."""
MAX_MAGNITUDE = 1 << 57
"""Largest binary exponent of a value."""
NOTHING = -1e18
"""The logarithm of 0."""


class Undefined(Exception):
    """There is no value here: a division by zero, a pole, infinity minus infinity."""


class Imprecise(Exception):
    """The precision does not suffice; ``bits`` probably do."""

    def __init__(self, bits: float) -> None:
        super().__init__(bits)
        self.bits = bits


T = TypeVar("T")
_local = threading.local()


def context(bits: int = BITS) -> Any:
    """An mpmath context of ``bits`` bits, one per thread, because its precision is mutable state."""
    contexts = _local.__dict__.setdefault("contexts", {})
    if bits not in contexts:
        import mpmath

        contexts[bits] = mpmath.MPContext()
        contexts[bits].prec = bits
    return contexts[bits]


def magnitude(x: Any) -> float:
    """The smallest e with ``|x| < 2^e``, for complex x one more than for its parts."""
    if hasattr(x, "_mpc_"):
        return max(_magnitude(x._mpc_[0]), _magnitude(x._mpc_[1])) + 1
    return _magnitude(x._mpf_)


def _magnitude(raw: Any) -> float:
    _, mantissa, exponent, length = raw
    if mantissa:
        if exponent + length > MAX_MAGNITUDE:
            raise TooLarge
        return int(exponent + length)
    if exponent:
        raise Undefined  # infinite, or not a number
    return NOTHING


def least_magnitude(x: Any) -> float:
    """An e with ``2^e <= |x|``."""
    return magnitude(x) - (2 if hasattr(x, "_mpc_") else 1)


def log_sum(a: float, b: float) -> float:
    """The logarithm of the sum of two numbers with logarithms a and b."""
    if a < b:
        a, b = b, a
    return a if b - a < -50 else a + 1.4427 * log1p(2.0 ** (b - a))


_NO_ROOTS: frozenset[Any] = frozenset()


class Ball:
    """A number within ``2^error`` of ``mid`` (an mpf, or an mpc for a complex number).

    It is U/L for algebraic integers U and L whose conjugates are at most ``2^up`` and ``2^down``, in a field made by
    ``roots``: (degree, name) of each radical and root of unity. ``loose``: other functions occur in it, and the bounds
    are those of a number with as many digits. ``turn``: the number is exactly that multiple of pi.
    """

    __slots__ = ("down", "error", "loose", "mid", "roots", "turn", "up")

    def __init__(
        self,
        mid: Any,
        error: float,
        up: float,
        down: float,
        roots: frozenset[Any] = _NO_ROOTS,
        loose: bool = False,
        turn: Fraction | None = None,
    ) -> None:
        self.mid, self.error, self.up, self.down, self.roots = mid, error, up, down, roots
        self.loose, self.turn = loose, turn

    @property
    def bits(self) -> int:
        """The precision."""
        return int(self.mid.context.prec)

    @property
    def complex(self) -> bool:
        """Whether it is not known to be real."""
        return hasattr(self.mid, "_mpc_")

    def zero(self) -> bool:
        """Whether it is 0. Raises ``Imprecise`` if that cannot be told."""
        if least_magnitude(self.mid) > self.error:
            return False
        separation = self.separation()
        at_most = log_sum(magnitude(self.mid), self.error)
        if at_most < -separation:
            return True
        raise Imprecise(self.bits + separation + at_most + 16)

    def separation(self) -> float:
        """It is 0 if it is smaller than 2 to the power of minus this."""
        degree = prod(degree for degree, _ in self.roots)
        if self.loose:  # q pi - p may be 1/q for long p and q
            needed = 2 * max(self.up, self.up * (degree - 1) + self.down) + 64
        else:
            needed = self.up * (degree - 1) + self.down
        return float(min(needed, 4 * (self.up + self.down) + 256) + 1)

    def real(self) -> Ball:
        """Itself with a real ``mid``. Raises ``Undefined`` if it is not real."""
        if not self.complex:
            return self
        if not self.imaginary().zero():
            raise Undefined
        return Ball(self.mid.real, self.error, self.up, self.down, self.roots, self.loose)

    def imaginary(self) -> Ball:
        """Its imaginary part."""
        return Ball(self.mid.imag, self.error, self.up + 1, self.down + 1, self.roots | UNIT_4, self.loose)

    def __neg__(self) -> Ball:
        turn = None if self.turn is None else -self.turn
        return Ball(-self.mid, self.error, self.up, self.down, self.roots, self.loose, turn)

    def __add__(self, other: Value) -> Value:
        b = lift(other, self.mid.context)
        turn = None
        if self.turn is not None and b.turn is not None:
            turn = self.turn + b.turn
            if turn == 0:
                return 0
        mid = self.mid + b.mid
        error = log_sum(log_sum(self.error, b.error), magnitude(mid) - self.bits)
        up, down = log_sum(self.up + b.down, self.down + b.up), self.down + b.down
        return Ball(mid, error, up, down, self.roots | b.roots, self.loose or b.loose, turn)

    __radd__ = __add__

    def __sub__(self, other: Value) -> Value:
        return self + (-other)

    def __rsub__(self, other: Value) -> Value:
        return -self + other

    def __mul__(self, other: Value) -> Value:
        if not isinstance(other, Ball) and other == 0:
            return 0
        b = lift(other, self.mid.context)
        turn = None
        if self.turn is not None and not isinstance(other, Ball):
            turn = self.turn * other
        mid = self.mid * b.mid
        size = magnitude(self.mid)
        error = log_sum(self.error + magnitude(b.mid), log_sum(b.error + size, self.error + b.error))
        error = log_sum(error, magnitude(mid) - self.bits + 1)
        return Ball(mid, error, self.up + b.up, self.down + b.down, self.roots | b.roots, self.loose or b.loose, turn)

    __rmul__ = __mul__

    def inverse(self) -> Ball:
        """1 divided by it. Raises ``Undefined`` if it is 0."""
        if self.error + 1 > least_magnitude(self.mid):
            if self.zero():
                raise Undefined
            raise Imprecise(self.bits + 64)
        mid = 1 / self.mid
        error = log_sum(self.error - 2 * least_magnitude(self.mid) + 1, magnitude(mid) - self.bits + 1)
        return Ball(mid, error, self.down, self.up, self.roots, self.loose)

    # order, for the ends of intervals

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | Fraction | Ball) and same(self, other)

    def __lt__(self, other: Value | float) -> bool:
        return sign(self - other) < 0 if not isinstance(other, float) else other > 0

    def __gt__(self, other: Value | float) -> bool:
        return sign(self - other) > 0 if not isinstance(other, float) else other < 0

    __hash__ = None  # type: ignore[assignment]


Value = int | Fraction | Ball


def lift(x: Value, ctx: Any) -> Ball:
    """A value as a ``Ball``."""
    if isinstance(x, Ball):
        return x
    top, bottom = x.numerator, x.denominator
    mid = ctx.mpf(top) if bottom == 1 else ctx.mpf(top) / bottom
    length = top.bit_length()
    error = NOTHING if bottom == 1 and length <= ctx.prec else magnitude(mid) - ctx.prec + 1
    return Ball(mid, error, float(length), float(bottom.bit_length()) if bottom != 1 else 0.0)


def bounded(x: Value, ctx: Any) -> Value:
    """``x``, as a ``Ball`` if it is too long for an exact number."""
    if isinstance(x, Ball):
        return x
    if x.numerator.bit_length() + x.denominator.bit_length() > MAX_EXACT_BITS:
        return lift(x, ctx)
    return x


def same(a: Value | float, b: Value | float) -> bool:
    """Whether two values are equal. Raises ``Imprecise`` if that cannot be told."""
    if isinstance(a, Ball) or isinstance(b, Ball):
        if isinstance(a, float) or isinstance(b, float):
            return False
        difference = a - b
        return difference.zero() if isinstance(difference, Ball) else difference == 0
    return a == b


def sign(x: Value) -> int:
    """-1, 0 or 1. Raises ``Imprecise`` if it cannot be told, ``Undefined`` if ``x`` is not real."""
    if not isinstance(x, Ball):
        return (x > 0) - (x < 0)
    x = x.real()
    return 0 if x.zero() else 1 if x.mid > 0 else -1


def divide(a: Value, b: Value) -> Value:
    """The quotient. Raises ``Undefined`` for a division by 0."""
    if isinstance(b, Ball):
        return a * b.inverse()
    if b == 0:
        raise Undefined
    return a * (Fraction(1) / b)


@lru_cache(maxsize=1024)
def _totient(n: int) -> int:
    result, rest, p = n, n, 2
    while p * p <= rest:
        if rest % p == 0:
            result -= result // p
            while rest % p == 0:
                rest //= p
        p += 1
    return result - result // rest if rest > 1 else result


def unity(n: int) -> frozenset[Any]:
    """The ``roots`` of a field with the n-th roots of unity."""
    return frozenset(((_totient(n), ("unity", n)),))


UNIT_4 = unity(4)


def imaginary_unit(ctx: Any) -> Ball:
    """The number i."""
    return Ball(ctx.mpc(0, 1), NOTHING, 0.0, 0.0, UNIT_4)


def pi(ctx: Any) -> Ball:
    """The number pi."""
    return Ball(+ctx.pi, 2.0 - ctx.prec, 2.0, 0.0, loose=True, turn=Fraction(1))


def until_precise(compute: Callable[[Any], T], problem: Imprecise | None = None) -> T | None:
    """``compute(context)`` at growing precision; None if the highest does not suffice.

    ``problem``: what the first precision has led to, if that was tried.
    """
    bits = BITS
    while True:
        if problem is not None:
            if bits >= MAX_BITS or problem.bits > MAX_BITS:
                return None
            bits = min(MAX_BITS, max(2 * bits, -int(-problem.bits // BITS) * BITS))
        try:
            return compute(context(bits))
        except Imprecise as found:
            problem = found
