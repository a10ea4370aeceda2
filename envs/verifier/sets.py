"""Tier 2: sets of real numbers (intervals, unions, inequalities in one variable) as sorted pieces."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

from .evaluate import NotNumeric, constant_value
from .exact import Ball, Imprecise, Undefined, context, until_precise
from .tokens import Node, TooLarge
from .tree import contains, symbols

MAX_PIECES = 50


class Piece(NamedTuple):
    """An interval or a point; the ends are values as in ``exact.py``, or infinite."""

    low: Any
    low_closed: bool
    high: Any
    high_closed: bool


Pieces = list[Piece]


class NotASet(Exception):
    """The tree is not a set of real numbers, or one that could not be computed."""


def pieces(node: Node, ctx: Any) -> Pieces:
    """The set that a tree describes, in normal form. Raises ``NotASet``, ``TooLarge`` or ``Imprecise``."""
    try:
        return _normal(_pieces(node, ctx))
    except (Undefined, NotNumeric, TypeError):
        raise NotASet from None


def is_set(node: Node) -> bool:
    """Whether a tree is a set of real numbers, as far as ``BITS`` bits show. Raises ``TooLarge``."""
    try:
        pieces(node, context())
    except NotASet:
        return False
    except Imprecise:
        pass
    return True


def same(a: Node, b: Node) -> bool | None:
    """Whether two trees describe the same set, its ends compared as numbers are; None if undecided.

    Raises ``TooLarge``.
    """
    try:
        return until_precise(lambda ctx: pieces(a, ctx) == pieces(b, ctx))
    except NotASet:
        return None


def _real(node: Node, ctx: Any) -> Any:
    value = constant_value(node, ctx)
    return value.real() if isinstance(value, Ball) else value


def _point(value: Any) -> Piece:
    return Piece(value, True, value, True)


def _line() -> Piece:
    return Piece(-inf, False, inf, False)


def _pieces(node: Node, ctx: Any) -> Pieces:
    kind = node[0]
    if kind == "tuple" and len(node[2]) == 2:
        low, high = _real(node[2][0], ctx), _real(node[2][1], ctx)
        if low > high:
            raise NotASet
        infinite = (low == -inf, high == inf)
        return [Piece(low, node[1] == "[" and not infinite[0], high, node[3] == "]" and not infinite[1])]
    if kind == "set":
        return [_point(_real(member, ctx)) for member in node[1]]
    if kind == "R":
        return [_line()]
    if kind == "empty":
        return []
    if kind == "cup":
        return _pieces(node[1], ctx) + _pieces(node[2], ctx)
    if kind == "cap":
        return _intersection(_normal(_pieces(node[1], ctx)), _normal(_pieces(node[2], ctx)))
    if kind == "diff":
        return _intersection(_normal(_pieces(node[1], ctx)), _complement(_normal(_pieces(node[2], ctx))))
    if kind == "builder":
        names = symbols(node[1]) if node[1][0] != "rel" else symbols(node[1][1][0])
        if len(names) != 1:
            raise NotASet
        found = _conditions(node[2], next(iter(names)), ctx)
        return (
            found
            if node[1][0] != "rel"
            else _intersection(_normal(_conditions(node[1], next(iter(names)), ctx)), _normal(found))
        )
    if kind in ("rel", "list"):
        return _conditions(node, variable(node), ctx)
    raise NotASet


def variable(node: Node) -> str:
    """The only variable of a relation that describes a set. Raises ``NotASet`` if there is not exactly one."""
    names = symbols(node)
    if len(names) != 1 or not contains(node, frozenset(("rel",))):
        raise NotASet
    return next(iter(names))


def _conditions(node: Node, name: str, ctx: Any) -> Pieces:
    """The values of ``name`` that one or several relations allow."""
    if node[0] == "rel":
        return _relation(node, name, ctx)
    if node[0] != "list" or not all(member[0] == "rel" for member in node[1]):
        raise NotASet
    sets = [_normal(_relation(member, name, ctx)) for member in node[1]]
    separators = set(node[2])
    if separators == {"or"}:
        return [piece for found in sets for piece in found]
    common = sets[0]
    for found in sets[1:]:
        common = _intersection(common, found)
    if separators == {"and"}:
        return common
    return common if common else [piece for found in sets for piece in found]  # x < -1, x > 1


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}


def _relation(node: Node, name: str, ctx: Any) -> Pieces:
    _, sides, operators, _ = node
    result = [_line()]
    for left, operator, right in zip(sides, operators, sides[1:], strict=False):
        if left == ("sym", name):
            found = _pieces(right, ctx) if operator == "in" else _ray(operator, _real(right, ctx))
        elif right == ("sym", name) and operator != "in":
            found = _ray(_FLIPPED[operator], _real(left, ctx))
        else:
            raise NotASet
        result = _intersection(_normal(result), _normal(found))
    return result


def _ray(operator: str, end: Any) -> Pieces:
    if operator in (">", ">="):
        return [Piece(end, operator == ">=", inf, False)]
    if operator in ("<", "<="):
        return [Piece(-inf, False, end, operator == "<=")]
    if operator == "!=":
        return [Piece(-inf, False, end, False), Piece(end, False, inf, False)]
    raise NotASet  # equations are compared as equations


def _normal(found: Pieces) -> Pieces:
    """The pieces sorted, without empty ones, with touching ones joined."""
    if len(found) > MAX_PIECES:
        raise TooLarge
    kept = sorted(
        (p for p in found if p.low < p.high or (p.low == p.high and p.low_closed and p.high_closed)),
        key=lambda p: (p.low, not p.low_closed),
    )
    joined: Pieces = []
    for piece in kept:
        last = joined[-1] if joined else None
        if last and (piece.low < last.high or (piece.low == last.high and (piece.low_closed or last.high_closed))):
            high, closed = max((last.high, last.high_closed), (piece.high, piece.high_closed))
            joined[-1] = Piece(last.low, last.low_closed, high, closed)
        else:
            joined.append(piece)
    return joined


def _intersection(a: Pieces, b: Pieces) -> Pieces:
    if len(a) * len(b) > MAX_PIECES * 10:
        raise TooLarge
    result = []
    for x in a:
        for y in b:
            low, low_open = max((x.low, not x.low_closed), (y.low, not y.low_closed))
            high, high_closed = min((x.high, x.high_closed), (y.high, y.high_closed))
            result.append(Piece(low, not low_open, high, high_closed))
    return [p for p in result if p.low < p.high or (p.low == p.high and p.low_closed and p.high_closed)]


def _complement(found: Pieces) -> Pieces:
    result, low, closed = [], -inf, False
    for piece in found:
        result.append(Piece(low, closed, piece.low, not piece.low_closed))
        low, closed = piece.high, not piece.high_closed
    result.append(Piece(low, closed, inf, False))
    return [p for p in result if p.low < p.high or (p.low == p.high and p.low_closed and p.high_closed)]
