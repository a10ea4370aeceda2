r"""Tier 2: rewrites of trees that need no evaluation: multiples of matrices, lists with dots, constants in one case."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import Any

from .tokens import Node
from .tree import contains, symbols

MATRIX = frozenset(("matrix",))
DOTS: Node = ("dots",)
MAX_LISTED = 40
"""Longest list with dots that is written out."""


def scaled(node: Node) -> Node:
    """Multiples, quotients and sums of matrices as one matrix, if that is what the tree is."""
    kind = node[0]
    if kind == "neg":
        inner = scaled(node[1])
        return _each(inner, lambda cell: ("neg", cell)) if inner[0] == "matrix" else node
    if kind == "div":
        inner = scaled(node[1])
        return _each(inner, lambda cell: ("div", cell, node[2])) if inner[0] == "matrix" else node
    if kind == "mul":
        matrices = [factor for factor in node[1] if contains(factor, MATRIX)]
        scalars = tuple(factor for factor in node[1] if not contains(factor, MATRIX))
        inner = scaled(matrices[0]) if len(matrices) == 1 else node
        return _each(inner, lambda cell: ("mul", (*scalars, cell))) if inner[0] == "matrix" else node
    if kind == "add":
        terms = [scaled(term) for term in node[1]]
        shapes = [[len(row) for row in term[1]] if term[0] == "matrix" else None for term in terms]
        if shapes[0] is None or any(shape != shapes[0] for shape in shapes):
            return node
        rows = zip(*(term[1] for term in terms), strict=True)
        return ("matrix", tuple(tuple(("add", cells) for cells in zip(*row, strict=True)) for row in rows))
    return node


def _each(matrix: Node, function: Any) -> Node:
    return ("matrix", tuple(tuple(function(cell) for cell in row) for row in matrix[1]))


def progression(node: Node) -> Node:
    r"""A list such as ``1, 3, \ldots, 2n-1`` as its first member, its step and its last one, if that is its rule.

    A list of numbers is written out instead.
    """
    if node[0] not in ("list", "set") or node[1].count(DOTS) != 1:
        return node
    members = node[1]
    at = members.index(DOTS)
    before, after = members[:at], members[at + 1 :]
    if not before or len(after) > 1 or any(member[0] != "num" for member in before):
        return node
    values = [member[1] for member in before]
    step = values[1] - values[0] if len(values) > 1 else Fraction(1)
    if step == 0 or any(y - x != step for x, y in pairwise(values)):
        return node
    if after and after[0][0] == "num":
        count = (after[0][1] - values[0]) / step
        if count.denominator != 1 or not len(values) <= count < MAX_LISTED:
            return node
        listed = tuple(("num", values[0] + step * k) for k in range(int(count) + 1))
        return ("list", listed, (",",) * int(count)) if node[0] == "list" else ("set", listed)
    return ("progression", ("num", values[0]), ("num", step), *after)


_CONSTANT = re.compile(r"[Cc]_?\{?[0-9]\}?")


def one_case(a: Node, b: Node) -> tuple[Node, Node]:
    """Both trees with arbitrary constants in capitals, where one has ``C_1`` and the other ``c_1``."""
    left, right = symbols(a), symbols(b)
    different = left ^ right
    if not different or not all(_CONSTANT.fullmatch(name) for name in different):
        return a, b
    upper = {name: name.upper() for name in different}
    if any(len({name.upper() for name in side}) != len(side) for side in (left, right)):
        return a, b  # c_1 beside C_1
    return _renamed(a, upper), _renamed(b, upper)


def _renamed(node: Any, names: dict[str, str]) -> Any:
    if node.__class__ is not tuple:
        return node
    if node and node[0] == "sym":
        return ("sym", names.get(node[1], node[1]))
    return tuple(_renamed(child, names) for child in node)
