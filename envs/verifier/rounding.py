"""Whether two answers are the same but for rounding: numbers that differ little, at the same places."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from .compare import equal
from .evaluate import NotNumeric, allow, constant_value
from .exact import Imprecise, Undefined, context, lift
from .parse import Node, TooLarge, Unreadable, parse
from .tree import numeric, symbols

MAX_NUMBERS = 40
"""Most numbers in an answer that are compared with those of the reference."""
_COLLECTIONS = frozenset(("tuple", "list", "set", "unit", "deg", "rel", "matrix", "cup", "cap"))
_NUMBERS = frozenset(("num", "const", "add", "mul", "div", "pow", "neg", "root", "fn", "sum", "unit"))


def equal_rounded(given: str, wanted: str, tolerance: float) -> bool:
    """Whether tidied answers are equal once each number of ``given`` that rounds one of ``wanted`` is replaced by it.

    A number of the reference replaces at most one, so that two roundings of it are not one answer. The numbers are
    those that an answer consists of, alone or in lists, tuples, sets, intervals, matrices and equations, not the
    coefficients of a formula.
    """
    try:
        tree, gold = parse(given), parse(wanted)
        allow()
        exact = [(node, _value(node)) for node in _numbers(gold)]
        if not exact or len(exact) > MAX_NUMBERS or len(_numbers(tree)) > MAX_NUMBERS:
            return False
        return equal(_snapped(tree, exact, tolerance), gold) is True
    except (Unreadable, TooLarge, RecursionError):
        return False


def _numbers(node: Any) -> list[Node]:
    """The numbers that an answer consists of."""
    if not isinstance(node, tuple) or not node:
        return []
    if _is_number(node):
        return [node]
    if isinstance(node[0], str) and node[0] not in _COLLECTIONS:
        return []
    return [number for child in node for number in _numbers(child)]


def _is_number(node: Node) -> bool:
    return node[0] in _NUMBERS and numeric(node) and not symbols(node)


def _snapped(node: Any, exact: list[tuple[Node, Any]], tolerance: float) -> Any:
    """A copy of ``node`` with the numbers of ``exact`` in place of their roundings; takes those used out of it."""
    if not isinstance(node, tuple) or not node:
        return node
    if _is_number(node):
        value = _value(node)
        for place, (wanted, other) in enumerate(exact):
            if _rounds(node, value, wanted, other, tolerance):
                del exact[place]
                return wanted
        return node
    if isinstance(node[0], str) and node[0] not in _COLLECTIONS:
        return node
    return tuple(_snapped(child, exact, tolerance) for child in node)


def _rounds(given: Node, value: Any, wanted: Node, exact: Any, tolerance: float) -> bool:
    if given == wanted:
        return True
    if value is None or exact is None or exact == int(exact) or not (_decimal(given) or _decimal(wanted)):
        return False
    return bool(abs(value - exact) <= tolerance * abs(exact))


def _value(node: Node) -> Any:
    """The value of a number; None if it has none, or one that is not real and finite."""
    try:
        value = constant_value(node, context())
        if isinstance(value, float):  # infinity
            return None
        number = lift(value, context()).real().mid
    except (Undefined, NotNumeric, Imprecise):
        return None
    return number if abs(number) < 1e30 else None


def _decimal(node: Any) -> bool:
    """Whether a decimal fraction is part of a number."""
    if isinstance(node, Fraction):
        rest = node.denominator
        for factor in (2, 5):
            while rest % factor == 0:
                rest //= factor
        return node.denominator > 1 and rest == 1
    return isinstance(node, tuple) and any(_decimal(child) for child in node)
