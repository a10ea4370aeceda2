"""Tier 2: whether two trees are the same answer. True, False, or None: undecided, which is never a guess."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import sets
from .evaluate import NotNumeric, Undefined, agree, close, constant_value, context, contains, numeric, symbols
from .normal import conflicting
from .parse import Node, TooLarge

Answer = bool | None
MAX_MEMBERS = 40
"""Members of an unordered answer that are matched with each other."""
_PM = frozenset(("pm", "mp"))
_SETS = frozenset(("cup", "cap", "diff", "builder", "R", "empty"))


def equal(a: Node, b: Node) -> Answer:
    """Are two trees the same answer?"""
    if a == b:
        return True
    a, b = _without_names(a), _without_names(b)
    if a == b:
        return True
    kinds = (a[0], b[0])
    if "rel" in kinds:
        return _relations(a, b)
    if contains(a, _PM) or contains(b, _PM):
        return _plus_minus(a, b)
    if "unit" in kinds or "deg" in kinds:
        return _units(a, b)
    if numeric(a) and numeric(b):
        return agree(a, b)
    if "text" in kinds:
        return _texts(a, b)
    if "list" in kinds or "set" in kinds:
        return _unordered(a, b)
    if kinds == ("tuple", "tuple"):
        return _tuples(a, b)
    if kinds[0] in _SETS or kinds[1] in _SETS:
        return _real_sets(a, b)
    if "matrix" in kinds:
        return _matrices(a, b)
    if kinds == ("base", "base"):
        return bool(a[1:] == b[1:])
    if kinds == ("cases", "cases"):
        return _ordered(_cells(a[1]), _cells(b[1])) if [len(r) for r in a[1]] == [len(r) for r in b[1]] else False
    if "base" in kinds or ("tuple" in kinds and (numeric(a) or numeric(b))):
        return False
    return None


# ---- collections


def _ordered(a: Sequence[Node], b: Sequence[Node]) -> Answer:
    if len(a) != len(b):
        return False
    verdicts = []
    for x, y in zip(a, b, strict=True):
        verdict = equal(x, y)
        if verdict is False:
            return False
        verdicts.append(verdict)
    return None if None in verdicts else True


def _matched(a: Sequence[Node], b: Sequence[Node]) -> Answer:
    """Is there a partner in ``b`` for every member of ``a``, one each?"""
    if len(a) != len(b):
        return False
    rest, unmatched = list(b), []
    for x in a:
        if x in rest:
            rest.remove(x)
        else:
            unmatched.append(x)
    if len(unmatched) > MAX_MEMBERS:
        return None
    undecided = False
    for x in unmatched:
        verdicts = [equal(x, y) for y in rest]
        if True in verdicts:
            del rest[verdicts.index(True)]
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _distinct(members: Sequence[Node]) -> list[Node]:
    kept: list[Node] = []
    for member in members:
        if len(kept) > MAX_MEMBERS or not any(member == other or equal(member, other) for other in kept):
            kept.append(member)
    return kept


def _members(node: Node) -> list[Node] | None:
    if node[0] == "list":
        return [_without_names(member) for member in node[1]]
    if node[0] == "set":
        return list(node[1])
    return None


def _unordered(a: Node, b: Node) -> Answer:
    """Lists and sets; a list of assignments is also the tuple of its values."""
    for x, y in ((a, b), (b, a)):
        if x[0] == "list" and y[0] == "tuple":
            values = _assigned(x)
            return _ordered(values, y[2]) if values is not None and y[1] == "(" else _interval_of(x, y)
        if y[0] in _SETS or (x[0] == "list" and any(member[0] == "rel" and member[2] != ("=",) for member in x[1])):
            verdict = _real_sets(x, y)
            if verdict is not None:
                return verdict
    left, right = _members(a), _members(b)
    if left is None or right is None:
        only = left if left is not None else right
        if only is not None and len(only) <= MAX_MEMBERS:
            only = _distinct(only)
            if len(only) == 1:  # one value, perhaps in two forms
                return equal(only[0], b if left is not None else a)
        return False
    left, right = [_grouped(member) for member in left], [_grouped(member) for member in right]
    if "set" in (a[0], b[0]) or all(member[0] == "tuple" for member in (*left, *right)):
        left, right = _distinct(left), _distinct(right)  # sequences may repeat a number, sets of solutions do not
    if a[0] == b[0] == "list":
        verdict = _matched(a[1], b[1]) if len(a[1]) <= 12 else False
        if verdict:
            return True
        if _named_differently(a, b):
            return False
    return _matched(left, right)


def _grouped(member: Node) -> Node:
    """``p=5, q=2`` as a member of a list is the pair of its values."""
    if member[0] == "list":
        values = _assigned(member)
        if values is not None:
            return ("tuple", "(", tuple(values), ")")
    return member


def _assigned(node: Node) -> list[Node] | None:
    """The values of a list of assignments to names, in order."""
    values = []
    for member in node[1]:
        if member[0] != "rel" or member[2] != ("=",) or not member[3][0]:
            return None
        values.append(member[1][1])
    return values


def _named_differently(a: Node, b: Node) -> bool:
    """``x=1, y=2`` is not ``x=2, y=1``: with names on both sides each value belongs to its own."""
    if _assigned(a) is None or _assigned(b) is None:
        return False
    names = [sorted(str(member[1][0]) for member in node[1]) for node in (a, b)]
    return names[0] == names[1] and len(set(names[0])) == len(names[0])


def _interval_of(conditions: Node, interval: Node) -> Answer:
    verdict = _real_sets(conditions, interval)
    return False if verdict is None else verdict


def _tuples(a: Node, b: Node) -> Answer:
    (_, open_a, members_a, close_a), (_, open_b, members_b, close_b) = a, b
    if len(members_a) != len(members_b):
        return False
    if len(members_a) == 2 and (open_a, close_a) != (open_b, close_b):
        return _real_sets(a, b) or False
    return _ordered(members_a, members_b)


def _real_sets(a: Node, b: Node) -> Answer:
    try:
        left = sets.pieces(a)
    except sets.NotASet:
        left = None
    try:
        right = sets.pieces(b)
    except sets.NotASet:
        right = None
    if left is not None and right is not None:
        if _different_variables(a, b):
            return False
        return sets.same(left, right)
    if a[0] == b[0] and a[0] in ("cup", "cap"):
        return _matched(_flat(a, a[0]), _flat(b, b[0]))
    if a[0] == b[0] and a[0] in ("diff", "builder"):
        return True if _ordered(a[1:], b[1:]) else None
    if (left is None) != (right is None) and (numeric(a) or numeric(b)):
        return False
    return None


def _different_variables(a: Node, b: Node) -> bool:
    """``x > 3`` is not ``y > 3``."""
    if not (a[0] in ("rel", "list") and b[0] in ("rel", "list")):
        return False
    return symbols(a) != symbols(b)


def _flat(node: Node, kind: str) -> list[Node]:
    return [*_flat(node[1], kind), *_flat(node[2], kind)] if node[0] == kind else [node]


def _matrices(a: Node, b: Node) -> Answer:
    for x, y in ((a, b), (b, a)):
        if x[0] == "matrix" and y[0] == "tuple":
            if not (y[1] == "(" or len(y[2]) > 2) or not (len(x[1]) == 1 or all(len(row) == 1 for row in x[1])):
                return False
            return _ordered(_cells(x[1]), y[2])
    if a[0] != "matrix" or b[0] != "matrix":
        return False if numeric(a) or numeric(b) else None
    if [len(row) for row in a[1]] != [len(row) for row in b[1]]:
        return False
    return _ordered(_cells(a[1]), _cells(b[1]))


def _cells(rows: Sequence[Sequence[Node]]) -> list[Node]:
    return [cell for row in rows for cell in row]


# ---- text, units, plus-minus


def _texts(a: Node, b: Node) -> Answer:
    return bool(a[0] == b[0] and a[1] == b[1])


def _units(a: Node, b: Node) -> Answer:
    """Degrees and percentages may be meant as numbers; of other units only two that are known to differ matter."""
    if a[0] == b[0] == "deg":
        return equal(a[1], b[1])
    if "deg" in (a[0], b[0]):
        degrees, other = (a, b) if a[0] == "deg" else (b, a)
        if other[0] == "unit":
            return False
        plain = equal(degrees[1], other)
        return plain if plain is not False or not numeric(other) else agree(degrees, other)
    (inner_a, unit_a), (inner_b, unit_b) = _unit_of(a), _unit_of(b)
    if "%" in (unit_a, unit_b) and unit_a != unit_b:
        if unit_a and unit_b:
            return False
        plain = equal(inner_a, inner_b)
        return plain if plain is not False or not (numeric(a) and numeric(b)) else agree(a, b)
    if conflicting(unit_a, unit_b):
        return False
    return equal(inner_a, inner_b)


def _unit_of(node: Node) -> tuple[Node, str]:
    return (node[1], node[2]) if node[0] == "unit" else (node, "")


def _values(node: Node) -> list[Node]:
    """The two values of a plus-minus, the members of a list."""
    if node[0] in ("list", "set"):
        return [value for member in node[1] for value in _values(_without_names(member))]
    if contains(node, _PM):
        return [_signed(node, 1), _signed(node, -1)]
    return [node]


def _signed(node: Any, sign: int) -> Any:
    if not isinstance(node, tuple):
        return node
    if node and node[0] in ("pm", "mp"):
        positive = (sign > 0) == (node[0] == "pm")
        left, right = _signed(node[1], sign), _signed(node[2], sign)
        return ("add", (left, right if positive else ("neg", right)))
    return tuple(_signed(child, sign) for child in node)


def _plus_minus(a: Node, b: Node) -> Answer:
    if "tuple" in (a[0], b[0]) and a[0] != b[0]:
        return False
    return _matched(_distinct(_values(a)), _distinct(_values(b)))


# ---- relations


def _without_names(node: Node) -> Node:
    """``2 = 4/2`` and ``1 \\cdot 2 = 2``: a chain of equal constants is its value. ``x = 1 = 2/2`` is ``x = 1``."""
    if node[0] == "list" and len(node[1]) > 1:
        members = node[1]
        first = members[0]
        if first[0] == "rel" and first[2] == ("=",) and first[3][0] and all(m[0] != "rel" for m in members[1:]):
            if first[1][1][0] == members[1][0] or numeric(first[1][1]):  # x = 1, 2
                return ("list", (first[1][1], *members[1:]), node[2])
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


def _relations(a: Node, b: Node) -> Answer:
    if a[0] == b[0] == "rel":
        return _two_relations(a, b)
    relation, other = (a, b) if a[0] == "rel" else (b, a)
    operators = set(relation[2])
    if operators == {"="} and len(relation[1]) == 2:
        value = _named_value(relation)
        if value is not None:
            return equal(value, other)
        return False
    if operators == {"="}:
        sides, names = relation[1], relation[3]
        return equal(sides[-1], other) if names[0] else False
    if operators == {"in"} and len(relation[1]) == 2 and relation[3][0]:
        return equal(relation[1][1], other)
    if other[0] in ("tuple", "set", "list") or other[0] in _SETS:
        verdict = _real_sets(relation, other)
        return False if verdict is None and other[0] != "list" else verdict
    return False


def _named_value(relation: Node) -> Node | None:
    """The side of an equation that is not a mere name."""
    (left, right), (left_named, right_named) = relation[1], relation[3]
    if left_named and not (right_named and left[0] == "tuple"):
        return right  # type: ignore[no-any-return]
    return left if right_named else None  # type: ignore[no-any-return]


def _two_relations(a: Node, b: Node) -> Answer:
    if "in" in a[2] or "in" in b[2]:
        if a[2] == b[2] == ("in",):
            return equal(a[1][1], b[1][1]) if a[1][0] == b[1][0] else False
        return _real_sets(a, b)
    if len(a[1]) != len(b[1]):
        return _real_sets(a, b) if len(a[1]) == 3 or len(b[1]) == 3 else False
    if len(a[1]) > 2:
        return _chains(a, b)
    return _equations(a, b) if a[2] == b[2] == ("=",) else _inequalities(a, b)


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def _chains(a: Node, b: Node) -> Answer:
    forward = _ordered(a[1], b[1]) if a[2] == b[2] else False
    if forward is not False:
        return forward
    backward = tuple(_FLIPPED.get(operator, operator) for operator in reversed(b[2]))
    return _ordered(a[1], tuple(reversed(b[1]))) if a[2] == backward else False


def _equations(a: Node, b: Node) -> Answer:
    """The same equation: side by side, or up to a constant factor, or solved for a variable."""
    straight = _ordered(a[1], b[1])
    if straight or _ordered(a[1], (b[1][1], b[1][0])):
        return True
    if not all(numeric(side) for relation in (a, b) for side in relation[1]):
        return straight
    f, g = _difference(a), _difference(b)
    if symbols(f) != symbols(g) or contains(f, _PM) or contains(g, _PM):
        return False
    ratio = _constant_ratio(f, g)
    if ratio is not None and ratio != 0:
        return True
    return _solved(a, g) or _solved(b, f) or False


def _difference(relation: Node) -> Node:
    return ("add", (relation[1][0], ("neg", relation[1][1])))


def _constant_ratio(f: Node, g: Node) -> int | None:
    """The sign of f/g if that is the same number everywhere, 0 if it is not real, None if it varies."""
    from .evaluate import Evaluator, Point

    ctx, first, seen = context(), None, 0
    for number in range(5):
        try:
            point = Point(ctx, "positive", number)
            values = [Evaluator(ctx, point).value(tree) for tree in (f, g)]
        except (Undefined, TooLarge, NotNumeric):
            continue
        if values[0] == 0 or values[1] == 0:
            return None
        ratio = values[0] / values[1]
        if first is None:
            first = ratio
        elif not close(ctx, first, ratio, 28):
            return None
        seen += 1
    if first is None or seen < 3:
        return None
    if isinstance(first, ctx.mpc):
        return 0 if abs(first.imag) > abs(first) / 10**20 else (1 if first.real > 0 else -1)
    return 1 if first > 0 else -1


def _solved(relation: Node, other: Node) -> bool:
    """``y = t(x)`` against ``other(x, y) = 0``: ``t`` is a root of ``other``, and ``other`` is linear in ``y``."""
    from .evaluate import Evaluator, Point

    (left, right), _ = relation[1], relation[3]
    name, value = (left, right) if left[0] == "sym" else (right, left)
    if name[0] != "sym" or name[1] in symbols(value):
        return False
    ctx, seen = context(), 0
    for number in range(4):
        try:
            point = Point(ctx, "positive", number)
            root = Evaluator(ctx, point).value(value)
            found = []
            for shift in (0, 1, 2):
                point.values[name[1]] = root + shift
                found.append(Evaluator(ctx, point).value(other))
        except (Undefined, TooLarge, NotNumeric):
            continue
        scale = max(abs(v) for v in found)
        if scale == 0 or abs(found[0]) > scale / 10**25 or abs(found[2] - 2 * found[1] + found[0]) > scale / 10**25:
            return False
        seen += 1
    return seen >= 3


def _inequalities(a: Node, b: Node) -> Answer:
    if _different_variables(a, b):
        return False
    verdict = _real_sets(a, b)
    if verdict is not None:
        return verdict
    if not all(numeric(side) for relation in (a, b) for side in relation[1]):
        return None
    op_a, op_b = a[2][0], b[2][0]
    if op_a not in _FLIPPED or op_b not in _FLIPPED:
        return None
    ratio = _constant_ratio(_difference(a), _difference(b))
    if ratio is None or ratio == 0:
        return None if symbols(a) == symbols(b) and op_a != "=" and op_b != "=" else False
    return bool(op_a == (op_b if ratio > 0 else _FLIPPED[op_b]))
