"""Tier 2: compares equations, inequalities and chains of them."""

from __future__ import annotations

from typing import Any

from . import compare  # which imports this module: answers contain relations, and relations contain answers
from .agree import ENOUGH, Point, agree, integers_only
from .evaluate import Evaluator, NotNumeric
from .exact import Undefined, divide, same, sign, until_precise
from .tokens import Node
from .tree import PLUS_MINUS, SETS, contains, numeric, symbols


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
    _, sides, _, names = node
    start = 1 if names[0] and len(sides) > 2 else 0
    values = sides[start:]
    if len(values) < 2 or not all(numeric(side) and not symbols(side) for side in values):
        return node
    if all(agree(values[0], side) for side in values[1:]):
        return values[-1] if start == 0 else ("rel", (sides[0], values[-1]), ("=",), (True, False))
    return node


def relations(a: Node, b: Node) -> bool | None:
    """Whether two answers, at least one of them a relation, are the same; None if undecided."""
    if a[0] == b[0] == "rel":
        return _two_relations(a, b)
    relation, other = (a, b) if a[0] == "rel" else (b, a)
    operators = set(relation[2])
    if operators == {"="} and len(relation[1]) == 2:
        value = _named_value(relation)
        if value is not None:
            return compare.equal(value, other)
        return False
    if operators == {"="}:
        sides, names = relation[1], relation[3]
        return compare.equal(sides[-1], other) if names[0] else False
    if operators == {"in"} and len(relation[1]) == 2 and relation[3][0]:
        return compare.equal(relation[1][1], other)
    if other[0] in ("tuple", "set", "list") or other[0] in SETS:
        verdict = compare.real_sets(relation, other)
        return verdict if verdict is not None else False
    return False


def _named_value(relation: Node) -> Node | None:
    """The other side of an equation with a name on one side; None if neither side is a name."""
    left: Node
    right: Node
    (left, right), (left_named, right_named) = relation[1], relation[3]
    if left_named and not (right_named and left[0] == "tuple"):
        return right
    return left if right_named else None


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
    kind = "integer" if integers_only(f, g) else "positive"
    return [Point(kind, number) for number in range(6)]


def _constant_ratio(f: Node, g: Node) -> int | None:
    """The sign of f/g if the ratio is constant and real, None if it varies or is not known."""
    return until_precise(lambda ctx: _ratio_sign(f, g, ctx))


def _ratio_sign(f: Node, g: Node, ctx: Any) -> int | None:
    first: Any = None
    seen = 0
    for point in _points(f, g):
        try:
            above, below = (Evaluator(ctx, point).value(tree) for tree in (f, g))
        except (Undefined, NotNumeric):
            continue
        if same(above, 0) or same(below, 0):
            return None
        ratio = divide(above, below)
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
