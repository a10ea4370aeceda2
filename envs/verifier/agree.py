r"""Tier 2: decides whether two numeric trees are equal. What makes an acceptance sound:

* Without variables, the two values are compared as ``exact.py`` compares numbers: rationals exactly, others by a bound
  below which a difference would have to be 0, with as many digits as that takes.
* With variables, the trees are evaluated at rational points, each compared in the same way. One difference, or a
  value on one side only, makes them different. An acceptance takes ``ENOUGH`` points at which both have a value and the
  comparison is certain. A polynomial or a quotient of polynomials is exact at each of them.
* Functions with steps and corners (floor, ceiling, absolute values, roots) are also compared on both sides of the
  numbers in the trees; those with steps at 29 integers and, unless the variables are named like integers, between them.
* An unknown function, as in ``f(x+1)``, is one arbitrary function of its arguments, so that only what holds for every
  function holds for it.
* What overflows, takes too many steps or has too few points with values is undecided.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any, NamedTuple

from .evaluate import Evaluator, NotNumeric
from .exact import Ball, Imprecise, Undefined, context, same, until_precise
from .tokens import Node, TooLarge
from .tree import BARE_LOG, contains, numbers, symbols

MAX_UNDECIDED = 8
"""Number of undecided points after which no more digits are spent on another."""
ENOUGH = 3
"""Number of points at which two trees with variables must certainly agree."""
POINTS = (("positive", 0), ("positive", 1), ("positive", 2), ("negative", 3), ("mixed", 4), ("large", 5))
"""Where trees with variables are evaluated. Values at negative points count only if both are real."""
_MORE = range(60, 66)
"""Where they are also evaluated if few of ``POINTS`` have values."""
_STEPS = frozenset(("floor", "ceil"))
_CORNERS = frozenset(("floor", "ceil", "abs", "root"))
_WHOLE_NAMES = frozenset("ijklmnpqKMN")
_DENOMINATOR = 2039


class Point:
    """Values of the variables, determined by their names and the number of the point, no two equal as a rule."""

    def __init__(
        self, kind: str, number: int, near: Fraction = Fraction(0), whole: frozenset[str] = frozenset()
    ) -> None:
        self.kind, self.number, self.near, self.whole = kind, number, near, whole
        self.values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        value = self.values.get(name)
        if value is None:
            seed = zlib.crc32(f"{name}/{self.number}".encode())
            value = self.values[name] = self._value(name, seed)
        return value

    def _value(self, name: str, seed: int) -> int | Fraction:
        if name in self.whole and self.kind != "step":
            return 3 + seed % 23 + 2 * self.number
        if self.kind == "step":  # each of 1 to 29 once, in an order that depends on the name
            stride = 1 + zlib.crc32(name.encode()) % 28
            return 1 + stride * self.number % 29
        if self.kind == "twelfth":
            return Fraction(1 + seed % 71, 12) * (-1 if seed & 128 else 1)
        value = Fraction(1223 + seed % _DENOMINATOR, _DENOMINATOR)  # 0.6 to 1.6
        if self.kind == "near":
            return self.near + value / 64 * (1 if self.number % 2 else -1)
        if self.kind == "large":
            return value * (11 if not self.near else self.near)
        negative = self.kind == "negative" or (self.kind == "mixed" and seed & 1)
        return -value if negative else value


class _Reading(NamedTuple):
    """What a tree leaves open."""

    sign: int
    log_base: int
    real_roots: bool


def integers_in(*trees: Node) -> frozenset[str]:
    """The variables that stand for integers: in bounds of sums, factorials, powers of -1, and, by name, in floors."""
    found: set[str] = set()
    waiting: list[Any] = list(trees)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, tuple) or not node:
            continue
        kind = node[0]
        if kind == "sum":
            found |= symbols(node[3:5])
        elif kind == "fn" and node[1] in ("fact", "binom"):
            found |= symbols(node[2:])
        elif kind == "fn" and node[1] in _STEPS:
            found |= symbols(node[2]) & _WHOLE_NAMES
        elif kind == "pow" and not symbols(node[1]) and (node[1][0] == "neg" or node[1] == ("const", "i")):
            found |= symbols(node[2])
        waiting.extend(node)
    return frozenset(found)


def points(a: Node, b: Node, names: frozenset[str]) -> Iterator[Point]:
    """The points at which two trees are compared."""
    whole = integers_in(a, b)
    if contains(a, _STEPS) or contains(b, _STEPS):
        yield from (Point("step", number, whole=whole) for number in range(29))
        if not names <= whole:
            yield from (Point("twelfth", number, whole=whole) for number in range(12))
    yield from (Point(kind, number, whole=whole) for kind, number in POINTS)
    if whole:
        yield Point("positive", 50, whole=whole)
    if contains(a, _CORNERS) or contains(b, _CORNERS):
        literals = sorted({abs(n) for node in (a, b) for n in numbers(node) if 1 < abs(n) < 10**9}, reverse=True)[:4]
        for number, literal in enumerate(literals):
            for at in (literal, -literal):
                yield from (Point("near", 20 + 2 * number + side, at, whole) for side in (0, 1))
        if literals:
            yield from (Point("large", 40 + side, 3 * literals[0] * (1 - 2 * side), whole) for side in (0, 1))


def _more(a: Node, b: Node) -> Iterator[Point]:
    yield from (Point("positive", number, whole=integers_in(a, b)) for number in _MORE)


def agree(a: Node, b: Node, sign: int = 1) -> bool | None:
    """Whether two numeric trees are equal at every point; None if that could not be determined.

    ``sign`` (1 or -1) is the sign that plus-minus stands for. A bare log has base ten or e, and a fractional power of a
    negative number is the real root or the complex one: either is accepted, the same on both sides.
    """
    bases = (10, 0) if contains(a, BARE_LOG) or contains(b, BARE_LOG) else (0,)
    branches = (False, True) if _roots_and_powers(a, b) else (False,)
    verdicts = []
    for real_roots in branches:
        for log_base in bases:
            verdict = _agree(a, b, _Reading(sign, log_base, real_roots))
            if verdict:
                return True
            verdicts.append(verdict)
    return None if None in verdicts else False


def computable(node: Node) -> bool:
    """Whether a numeric tree has a value, within the bounds, at one of the first points."""

    for point in (Point("positive", 0), Point("positive", 1, whole=integers_in(node))):

        def value(ctx: Any, point: Point = point) -> Any:
            return Evaluator(ctx, point).value(node)

        try:
            if until_precise(value) is not None:
                return True
        except (Undefined, TooLarge, NotNumeric, RecursionError):
            continue
    return False


def _roots_and_powers(a: Node, b: Node) -> bool:
    return _odd_power(a) != _odd_power(b) and (contains(a, frozenset(("root",))) or contains(b, frozenset(("root",))))


def _odd_power(node: Any) -> bool:
    """Whether there is a power with an exponent such as 1/3."""
    if not isinstance(node, tuple) or not node:
        return False
    if node[0] == "pow" and node[2][0] in ("div", "neg"):
        exponent = node[2][1] if node[2][0] == "neg" else node[2]
        if exponent[0] == "div" and exponent[2][0] == "num" and exponent[2][1] % 2 == 1:
            return True
    return any(_odd_power(child) for child in node)


def _agree(a: Node, b: Node, reading: _Reading) -> bool | None:
    names = symbols(a) | symbols(b)
    if not names:
        return _at_any_precision(a, b, Point("positive", 0), reading)
    agreed = undecided = 0
    for point in chain(points(a, b, names), _more(a, b)):
        if agreed >= ENOUGH and point.number in _MORE:
            break
        verdict = _at_any_precision(a, b, point, reading, insist=agreed < ENOUGH and undecided < MAX_UNDECIDED)
        if verdict is False:
            return False
        agreed += verdict is True
        undecided += verdict is None
    return True if agreed >= ENOUGH else None


def _at_any_precision(a: Node, b: Node, point: Point, reading: _Reading, insist: bool = True) -> bool | None:
    try:
        return _at(context(), a, b, point, reading)
    except Imprecise as problem:
        if not insist:
            return None
        return until_precise(lambda ctx: _at(ctx, a, b, point, reading), problem)


def _at(ctx: Any, a: Node, b: Node, point: Point, reading: _Reading) -> bool | None:
    try:
        left, right = _try(a, ctx, point, reading), _try(b, ctx, point, reading)
        if left is None or right is None:
            return None if left is right or point.kind != "positive" else False
        if same(left, right):
            return True
        if point.kind not in ("positive", "step") and (_complex(left) or _complex(right)):
            return None
    except (TooLarge, NotNumeric, RecursionError):
        return None
    return False


def _try(node: Node, ctx: Any, point: Point, reading: _Reading) -> Any:
    try:
        return Evaluator(ctx, point, *reading).value(node)
    except Undefined:
        return None


def _complex(value: Any) -> bool:
    return isinstance(value, Ball) and value.complex and not value.imaginary().zero()
