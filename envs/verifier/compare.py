"""Tier 2: decides whether two trees are the same answer: True, False, or None if undecided. Nothing is guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from . import sets
from .agree import agree
from .clock import same_time
from .relations import in_decimal, mismatched, relations, without_names
from .rewrite import MATRIX, one_case, progression, scaled
from .tokens import Node
from .tree import PLUS_MINUS, SETS, contains, numeric, symbols
from .units import conflicting

MAX_MEMBERS = 40
"""Maximum number of members of an unordered answer that are matched with each other."""


def equal(a: Node, b: Node) -> bool | None:
    """Whether two trees are the same answer; None if undecided. Raises ``TooLarge`` beyond the bounds."""
    if a == b:
        return True
    if mismatched(a, b):
        return False
    a, b = without_names(a), without_names(b)
    a, b = one_case(progression(a), progression(b))
    if a == b:
        return True
    kinds = (a[0], b[0])
    if "rel" in kinds:
        return relations(a, b)
    if contains(a, PLUS_MINUS) or contains(b, PLUS_MINUS):
        return _plus_minus(a, b)
    if "unit" in kinds or "deg" in kinds:
        return _units(a, b)
    if numeric(a) and numeric(b):
        return agree(a, b)
    if "progression" in kinds:
        return ordered(a[1:], b[1:]) if a[0] == b[0] else False
    if "text" in kinds:
        return _texts(a, b)
    if "list" in kinds or "set" in kinds:
        return _unordered(a, b)
    if kinds == ("tuple", "tuple"):
        return _tuples(a, b)
    if "ratio" in kinds:
        return _ratios(a, b)
    if kinds[0] in SETS or kinds[1] in SETS:
        return real_sets(a, b)
    if contains(a, MATRIX) or contains(b, MATRIX):
        return _matrices(scaled(a), scaled(b))
    if kinds == ("base", "base"):
        return bool(a[1:] == b[1:])
    for x, y in ((a, b), (b, a)):
        if x[0] == "base" and x[2] == 10 and numeric(y):
            return agree(in_decimal(x), y)
    if kinds == ("cases", "cases"):
        return ordered(_cells(a[1]), _cells(b[1])) if [len(r) for r in a[1]] == [len(r) for r in b[1]] else False
    if "base" in kinds or ("tuple" in kinds and (numeric(a) or numeric(b))):
        return False
    return None


# ---- collections


def ordered(a: Sequence[Node], b: Sequence[Node]) -> bool | None:
    """Whether two sequences are equal element by element; None if undecided."""
    if len(a) != len(b):
        return False
    verdicts = []
    for x, y in zip(a, b, strict=True):
        verdict = equal(x, y)
        if verdict is False:
            return False
        verdicts.append(verdict)
    return None if None in verdicts else True


def _matched(a: Sequence[Node], b: Sequence[Node]) -> bool | None:
    """Whether ``a`` and ``b`` can be matched one to one. Undecided from one side, it is tried from the other."""
    verdict = _partners(a, b)
    return _partners(b, a) if verdict is None else verdict


def _partners(a: Sequence[Node], b: Sequence[Node]) -> bool | None:
    """``_matched``, going through the members of ``a``."""
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
        if len(kept) > MAX_MEMBERS or not any(
            member == other or (not _of_different_things(member, other) and equal(member, other)) for other in kept
        ):
            kept.append(member)
    return kept


def _of_different_things(a: Node, b: Node) -> bool:
    """``12 boys and 12 girls`` is not one value in two forms."""
    return bool(a[0] == b[0] == "unit" and a[2] != b[2])


def _members(node: Node) -> list[Node] | None:
    if node[0] == "list":
        return [without_names(member) for member in node[1]]
    if node[0] == "set":
        return list(node[1])
    return None


def _unordered(a: Node, b: Node) -> bool | None:
    """Lists and sets; a list of assignments is also the tuple of its values."""
    for x, y in ((a, b), (b, a)):
        if x[0] == "list" and y[0] == "tuple":
            values = _by_name(x)
            return ordered(values, y[2]) if values is not None and y[1] == "(" else _interval_of(x, y)
        if y[0] in SETS or _inequalities(x):
            verdict = real_sets(x, y)
            if verdict is not None:
                return verdict
    if _inequalities(a) and _inequalities(b) and {"and", "or"} <= set(a[2]) | set(b[2]):
        return False  # x > 0 and y > 0 is not x > 0 or y > 0
    left, right = _members(a), _members(b)
    if left is None or right is None:
        only = left if left is not None else right
        if only is not None and len(only) <= MAX_MEMBERS:
            units = {_unit_of(member)[1] for member in only}
            only = _distinct(only)
            if len(only) == 1 and len(units) == 1:  # one value, perhaps in two forms; not 2 boys and 2 girls
                return equal(only[0], b if left is not None else a)
        return False
    left, right = [_grouped(member) for member in left], [_grouped(member) for member in right]
    if "set" in (a[0], b[0]) or all(member[0] == "tuple" for member in (*left, *right)):
        left, right = _distinct(left), _distinct(right)  # sequences may repeat a number, sets of solutions do not
    for x, y in ((a, b), (b, a)):
        values = _by_name(x) if x[0] == "list" and y[0] == "list" and _assigned(y) is None else None
        if values is not None and len({_initials(member[1][0]) for member in x[1]}) == len(values):
            return ordered(values, y[1])  # x = 1, y = 2 beside 1, 2; but x_1 = 1, x_2 = 2 in any order
    if a[0] == b[0] == "list":
        verdict = _matched(a[1], b[1]) if len(a[1]) <= 12 else False
        if verdict:
            return True
        if _named_differently(a, b):
            return False
    return _matched(left, right)


def _inequalities(node: Node) -> bool:
    return node[0] == "list" and any(member[0] == "rel" and member[2] != ("=",) for member in node[1])


def _grouped(member: Node) -> Node:
    """``p=5, q=2`` as a member of a list becomes the pair of its values."""
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


def _by_name(node: Node) -> list[Node] | None:
    """The values of assignments in the order of their names, as in a pair (x, y)."""
    values = _assigned(node)
    if values is None or not all(member[1][0][0] == "sym" and len(member[1][0][1]) == 1 for member in node[1]):
        return values
    return [
        value for _, value in sorted(zip([m[1][0][1] for m in node[1]], values, strict=True), key=lambda pair: pair[0])
    ]


def _named_differently(a: Node, b: Node) -> bool:
    """Whether both lists assign to the same names, so that values must match by name: ``x=1, y=2``, ``y=2, x=1``."""
    if _assigned(a) is None or _assigned(b) is None:
        return False
    names = [Counter(member[1][0] for member in node[1]) for node in (a, b)]
    return names[0] == names[1] and max(names[0].values()) == 1


def _initials(name: Node) -> tuple[str, str]:
    """What ``x_1`` and ``x_2`` have in common, and ``x`` and ``y`` have not."""
    return name[0], name[1][:2] if isinstance(name[1], str) else ""


def _interval_of(conditions: Node, interval: Node) -> bool | None:
    verdict = real_sets(conditions, interval)
    return False if verdict is None else verdict


def _tuples(a: Node, b: Node) -> bool | None:
    (_, open_a, members_a, close_a), (_, open_b, members_b, close_b) = a, b
    if len(members_a) != len(members_b):
        return False
    if len(members_a) == 2 and (open_a, close_a) != (open_b, close_b):
        return real_sets(a, b) or False
    return ordered(members_a, members_b)


def real_sets(a: Node, b: Node) -> bool | None:
    """Whether two trees are the same set of real numbers; None if undecided or if they are not such sets."""
    left, right = sets.is_set(a), sets.is_set(b)
    if left and right:
        return False if different_variables(a, b) else sets.same(a, b)
    if a[0] == b[0] and a[0] in ("cup", "cap"):
        return _matched(_flat(a, a[0]), _flat(b, b[0]))
    if a[0] == b[0] and a[0] in ("diff", "builder"):
        return True if ordered(a[1:], b[1:]) else None
    if left != right and (numeric(a) or numeric(b)):
        return False
    return None


def different_variables(a: Node, b: Node) -> bool:
    """``x > 3`` is not ``y > 3``."""
    if not (a[0] in ("rel", "list") and b[0] in ("rel", "list")):
        return False
    return symbols(a) != symbols(b)


def _flat(node: Node, kind: str) -> list[Node]:
    return [*_flat(node[1], kind), *_flat(node[2], kind)] if node[0] == kind else [node]


def _matrices(a: Node, b: Node) -> bool | None:
    for x, y in ((a, b), (b, a)):
        if x[0] == "matrix" and y[0] == "tuple":
            if not (y[1] == "(" or len(y[2]) > 2) or not (len(x[1]) == 1 or all(len(row) == 1 for row in x[1])):
                return False
            return ordered(_cells(x[1]), y[2])
    if a[0] != "matrix" or b[0] != "matrix":
        return False if numeric(a) or numeric(b) else None
    if [len(row) for row in a[1]] != [len(row) for row in b[1]]:
        return False
    return ordered(_cells(a[1]), _cells(b[1]))


def _cells(rows: Sequence[Sequence[Node]]) -> list[Node]:
    return [cell for row in rows for cell in row]


# ---- text, units, ratios, plus-minus


def _texts(a: Node, b: Node) -> bool | None:
    return bool(a[0] == b[0] and a[1] == b[1])


def _ratios(a: Node, b: Node) -> bool | None:
    """``4 : 6`` equals ``2 : 3`` and two thirds; a time is only itself."""
    if a[0] == b[0]:
        time = same_time(a, b)
        if time is not None:
            return time
    elif len(a if a[0] == "ratio" else b) == 3:
        return False
    left, right = (node[1] if node[0] == "ratio" else None for node in (a, b))
    if left is None or right is None:
        terms, other = (left, b) if left is not None else (right, a)
        if terms is None or len(terms) != 2 or not numeric(other):
            return False
        return equal(("div", *terms), other)
    if len(left) != len(right):
        return False
    if len(left) == 2 and (equal(left[1], _ZERO) or equal(right[1], _ZERO)):
        return ordered(left, right)  # 1:00 is a time
    if any(all(equal(term, _ZERO) for term in terms) for terms in (left, right)):
        return False
    pairs = [(j, k) for j in range(len(left)) for k in range(j)]
    return ordered([("mul", (left[j], right[k])) for j, k in pairs], [("mul", (left[k], right[j])) for j, k in pairs])


_ZERO: Node = ("num", Fraction(0))


def _units(a: Node, b: Node) -> bool | None:
    """Degrees and percent may be meant as numbers. Other units matter only if both are known and they differ."""
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
    """The two values of a plus-minus, or the members of a list."""
    if node[0] in ("list", "set"):
        return [value for member in node[1] for value in _values(without_names(member))]
    if contains(node, PLUS_MINUS):
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


def _plus_minus(a: Node, b: Node) -> bool | None:
    if "tuple" in (a[0], b[0]) and a[0] != b[0]:
        return False
    return _matched(_distinct(_values(a)), _distinct(_values(b)))
