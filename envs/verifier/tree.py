"""Tier 2: questions about a tree that need no numbers."""

from __future__ import annotations

from typing import Any

from .tokens import Node


def contains(node: Any, kinds: frozenset[str]) -> bool:
    """Is there a node of one of ``kinds``, or a function of that name?"""
    if not isinstance(node, tuple) or not node:
        return False
    if isinstance(node[0], str) and (node[0] in kinds or (node[0] == "fn" and node[1] in kinds)):
        return True
    return any(contains(child, kinds) for child in node)


def symbols(node: Any) -> frozenset[str]:
    """The free names in a tree."""
    if not isinstance(node, tuple) or not node:
        return frozenset()
    if node[0] == "sym":
        return frozenset((node[1],))
    found = frozenset[str]().union(*(symbols(child) for child in node))
    return found - {node[2]} if node[0] == "sum" else found


SETS = frozenset(("cup", "cap", "diff", "builder", "R", "empty"))
PLUS_MINUS = frozenset(("pm", "mp"))
BARE_LOG = frozenset(("log",))
_NON_NUMERIC = SETS | {"tuple", "set", "list", "rel", "matrix", "text", "base", "cases", "ratio"}


def numeric(node: Node) -> bool:
    """Is the tree a number, given numbers for its variables?"""
    return not contains(node, _NON_NUMERIC) and not (node[0] == "unit" and node[2] != "%")
