"""Tier 2: compares equations, inequalities and chains of them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from . import compare  # which imports this module: answers contain relations, and relations contain answers
from .agree import ENOUGH, Point, agree, integers_in
from .evaluate import Evaluator, NotNumeric
from .exact import Undefined, divide, same, sign, until_precise
from .tokens import Node
from .tree import PLUS_MINUS, SETS, contains, numeric, symbols

_NAMES = (("const", "e"), ("const", "i"))
"""Constants that are names if they are alone on one side: ``e`` of an ellipse."""


_UNKNOWNS = frozenset("abcdefghijklmnopqrstxy")


def without_names(node: Node) -> Node:
    """A chain of equal constants (``2 = 4/2``) becomes its value, and ``x = 1 = 2/2`` becomes ``x = 1``."""
    if node[0] == "list" and len(node[1]) > 1:
        members = node[1]
        first = members[0]
        named = first[0] == "rel" and first[2] == ("=",) and first[3][0]
        if named and all(m[0] != "rel" for m in members[1:]):  # x = 1, 2
            value = first[1][1]
            if value[0] == members[1][0] or numeric(value):
                return ("list", (value, *members[1:]), node[2])
        return node
    if node[0] != "rel" or set(node[2]) != {"="}:
        return node
    sides, names = node[1], node[3]
    start = 1 if len(sides) > 2 and (names[0] or not _constant(sides[0])) else 0
    values = sides[start:]
    if not all(map(_constant, values)) or (values[0] in _NAMES and start == 0):
        return node
    if not all(agree(in_decimal(values[0]), in_decimal(side)) for side in values[1:]):
        return node
    return ("rel", (sides[0], values[-1]), ("=",), (True, False)) if names[0] and start else values[-1]


def _constant(side: Node) -> bool:
    return side[0] == "base" or (numeric(side) and not symbols(side))


def in_decimal(node: Node) -> Node:
    """A number written in a base, as a number; any other tree as it is."""
    if node[0] != "base" or not 2 <= node[2] <= 10 or not all(int(digit) < node[2] for digit in str(node[1])):
        return node
    return ("num", Fraction(int(str(node[1]), node[2])))


def mismatched(a: Node, b: Node) -> bool:
    r"""Whether one is a relation, and the other an equation without a name that is not the same one side by side.

    ``\log_3 27 = 3`` and ``6x+5 = 18+5 = 23`` have a value, but they are not ``x = 3`` or ``x = 23``, nor ``1 = 1``.
    """
    for x, y in ((a, b), (b, a)):
        if (
            x[0] == y[0] == "rel"
            and set(y[2]) == {"="}
            and not any(y[3])
            and (_true(y) or without_names(y)[0] != "rel")
        ):
            alike = x[2] == y[2] and list(map(symbols, x[1])) == list(map(symbols, y[1]))
            return not (alike and compare.ordered(x[1], y[1]))
    return False


def _true(relation: Node) -> bool:
    """Whether an equation between formulas holds whatever its variables are."""
    sides = [in_decimal(side) for side in relation[1]]
    return all(map(numeric, sides)) and all(agree(sides[0], side) for side in sides[1:])


def relations(a: Node, b: Node) -> bool | None:
    """Whether two answers, at least one of them a relation, are the same; None if undecided."""
    if a[0] == b[0] == "rel":
        return _two_relations(a, b)
    relation, other = (a, b) if a[0] == "rel" else (b, a)
    operators = set(relation[2])
    if operators == {"="}:
        value = _value(relation)
        # dy/dx = 2x says what dy/dx is, but sin x = cos x not what sin x is
        if value is not None and _quantity(relation[1][0]) and symbols(value) & symbols(relation[1][0]):
            value = value if _derivative_in(relation[1][0]) or _true(relation) else None
        return compare.equal(value, other) if value is not None else False
    if operators == {"in"} and len(relation[1]) == 2 and relation[3][0]:
        return compare.equal(relation[1][1], other)
    if other[0] in ("tuple", "set", "list") or other[0] in SETS:
        verdict = compare.real_sets(relation, other)
        return verdict if verdict is not None else False
    return False


def _value(relation: Node) -> Node | None:
    """What an equation says that something is: ``x = 1``, ``1 = x``, ``P(A) = 1``, ``(x+1)^2 = x^2+2x+1``; or None."""
    sides: tuple[Node, ...] = relation[1]
    names = [name or _quantity(side) for side, name in zip(sides, relation[3], strict=True)]
    if len(sides) > 2:
        return sides[-1] if names[0] or _true(relation) else None
    if names[0] and not (relation[3][1] and sides[0][0] == "tuple"):
        return sides[1]
    if relation[3][1] or sides[1] in _NAMES:
        return sides[0]
    return sides[1] if _true(relation) else None


def _quantity(side: Node) -> bool:
    r"""Whether a side stands for one quantity: ``e``, ``\sin\theta``, ``\sin^2\theta``, ``|AB|``, ``n!``, ``dy/dx``."""
    if side in _NAMES:
        return True
    if side[0] == "pow":
        return side[2][0] == "num" and side[1][0] == "fn" and _quantity(side[1])
    if side[0] == "fn":
        unknown = side[1] == "abs" and side[2][0] == "sym" and side[2][1] in _UNKNOWNS  # |x| = 5 has two solutions
        return bool(symbols(side)) and all(map(_name, side[2:])) and not unknown
    return _derivative_in(side)


def _derivative_in(side: Node) -> bool:
    return _derivative(side) or (side[0] == "mul" and _derivative(side[1][0]) and all(map(_name, side[1][1:])))


def _name(node: Node) -> bool:
    """Whether a tree consists of letters: ``\\theta``, ``2x``, ``AB``, ``f(x)``."""
    return node[0] in ("sym", "app") or (
        node[0] == "mul" and all(factor[0] in ("sym", "num", "app") for factor in node[1])
    )


def _derivative(node: Node) -> bool:
    return node[0] == "div" and all(_differential(part) for part in node[1:]) and len(node[2][1]) > 1


def _differential(node: Node) -> bool:
    first = node[1][0] if node[0] == "mul" else node
    first = first[1] if first[0] == "pow" else first
    return first in (("sym", "d"), ("sym", "\\partial"))


def _two_relations(a: Node, b: Node) -> bool | None:
    if "in" in a[2] or "in" in b[2]:
        if a[2] == b[2] == ("in",):
            return compare.equal(a[1][1], b[1][1]) if a[1][0] == b[1][0] else False
        return compare.real_sets(a, b)
    if len(a[1]) != len(b[1]):
        return compare.real_sets(a, b) if len(a[1]) == 3 or len(b[1]) == 3 else False
    if len(a[1]) > 2:
        return _chains(a, b)
    return _equations(a, b) if a[2] == b[2] == ("=",) else _inequalities(a, b)


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def _chains(a: Node, b: Node) -> bool | None:
    forward = compare.ordered(a[1], b[1]) if a[2] == b[2] else False
    if forward is not False:
        return forward
    backward = tuple(_FLIPPED.get(operator, operator) for operator in reversed(b[2]))
    return compare.ordered(a[1], tuple(reversed(b[1]))) if a[2] == backward else False


def _equations(a: Node, b: Node) -> bool | None:
    """Whether two equations are the same: side by side, up to a constant factor, or solved for a variable."""
    straight = compare.ordered(a[1], b[1])
    if straight or compare.ordered(a[1], (b[1][1], b[1][0])):
        return True
    if not all(numeric(side) for relation in (a, b) for side in relation[1]):
        return straight
    f, g = _difference(a), _difference(b)
    if not symbols(f) or symbols(f) != symbols(g) or contains(f, PLUS_MINUS) or contains(g, PLUS_MINUS):
        return False
    if _constant_ratio(f, g) is not None:
        return True
    return _solved(a, g) or _solved(b, f) or False


def _difference(relation: Node) -> Node:
    return ("add", (relation[1][0], ("neg", relation[1][1])))


def _points(f: Node, g: Node) -> list[Point]:
    whole = integers_in(f, g)
    return [Point("positive", number, whole=whole) for number in range(6)]


def _constant_ratio(f: Node, g: Node) -> int | None:
    """The sign of f/g if the ratio is constant and real, None if it varies or is not known."""
    return until_precise(lambda ctx: _ratio_sign(f, g, ctx))


def _ratio_sign(f: Node, g: Node, ctx: Any) -> int | None:
    first: Any = None
    seen = 0
    for point in _points(f, g):
        try:
            values: list[Any] = [Evaluator(ctx, point).value(tree) for tree in (f, g)]
        except (Undefined, NotNumeric):
            continue
        if same(values[0], 0) or same(values[1], 0):
            return None
        ratio = divide(*values)
        if first is None:
            first = ratio
        elif not same(first, ratio):
            return None
        seen += 1
    try:
        return sign(first) if seen >= ENOUGH else None
    except Undefined:
        return None  # not real


def _solved(relation: Node, other: Node) -> bool:
    """Whether ``y = t(x)`` solves ``other(x, y) = 0``: ``t`` is a root of ``other``, which is linear in ``y``."""
    (left, right), _ = relation[1], relation[3]
    name, value = (left, right) if left[0] == "sym" else (right, left)
    if name[0] != "sym" or name[1] in symbols(value):
        return False
    return bool(until_precise(lambda ctx: _is_root(name[1], value, other, ctx)))


def _is_root(name: str, value: Node, other: Node, ctx: Any) -> bool:
    seen = 0
    for point in _points(value, other):
        try:
            root = Evaluator(ctx, point).value(value)
            found: list[Any] = []
            for shift in (0, 1, 2):
                point.values[name] = root + shift
                found.append(Evaluator(ctx, point).value(other))
        except (Undefined, NotNumeric):
            continue
        if not same(found[0], 0) or same(found[1], 0) or not same(found[2], 2 * found[1]):
            return False
        seen += 1
    return seen >= ENOUGH


def _inequalities(a: Node, b: Node) -> bool | None:
    if compare.different_variables(a, b):
        return False
    verdict = compare.real_sets(a, b)
    if verdict is not None:
        return verdict
    if not all(numeric(side) for relation in (a, b) for side in relation[1]):
        return None
    op_a, op_b = a[2][0], b[2][0]
    if op_a not in _FLIPPED or op_b not in _FLIPPED:
        return None
    ratio = _constant_ratio(_difference(a), _difference(b)) if symbols(a) else None
    if ratio is None:
        return None if symbols(a) == symbols(b) and op_a != "=" and op_b != "=" else False
    return bool(op_a == (op_b if ratio > 0 else _FLIPPED[op_b]))
