"""Tier 2: questions about a tree that need no evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from .tokens import Node


def contains(node: Node, kinds: frozenset[str]) -> bool:
    """Whether a tree contains a node of one of ``kinds``, or a function with such a name."""
    waiting: list[Node] = [node]
    while waiting:
        here = waiting.pop()
        if not here:
            continue
        kind = here[0]
        if kind.__class__ is str and (kind in kinds or (kind == "fn" and here[1] in kinds)):
            return True
        waiting.extend([child for child in here if child.__class__ is tuple])
    return False


def numbers(node: Node) -> Iterator[Fraction]:
    """The numbers written in a tree."""
    waiting: list[Node] = [node]
    while waiting:
        here = waiting.pop()
        if here and here[0] == "num":
            yield here[1]
        else:
            waiting.extend([child for child in here if child.__class__ is tuple])


def symbols(node: Node) -> frozenset[str]:
    """The names of the free variables of a tree."""
    found: set[str] = set()
    waiting: list[Node] = [node]
    while waiting:
        here = waiting.pop()
        if not here:
            continue
        if here[0] == "sym":
            found.add(here[1])
        elif here[0] == "sum":
            found |= symbols(here[3:5]) | (symbols(here[5:]) - {here[2]})
        else:
            waiting.extend([child for child in here if child.__class__ is tuple])
    return frozenset(found)


SETS = frozenset(("cup", "cap", "diff", "builder", "R", "empty"))
PLUS_MINUS = frozenset(("pm", "mp"))
BARE_LOG = frozenset(("log",))
_NON_NUMERIC = SETS | {"tuple", "set", "list", "rel", "matrix", "text", "base", "cases", "ratio", "dots", "progression"}


def numeric(node: Node) -> bool:
    """Whether a tree is a number once its variables are."""
    return not contains(node, _NON_NUMERIC) and not (node[0] == "unit" and node[2] != "%")
