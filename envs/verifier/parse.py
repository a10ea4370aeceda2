r"""Tier 2, first half: parses LaTeX arithmetic into a small tree, in bounded time and depth, without sympy or eval.

A node is a tuple whose first element names its kind:

======================  ==================================================================================
``num`` value           a Fraction
``sym`` name            a variable; ``const`` name: ``e``, ``i``, ``pi``, ``inf``
``add`` ``mul`` nodes   sum and product; ``div`` a b, ``pow`` a b, ``neg`` a, ``root`` n a
``fn`` name node        a known function; ``app`` name nodes: an unknown one, e.g. ``f(x)`` or ``F_{n-k}``
``pm`` a b, ``mp`` a b  a plus or minus b
``sum`` kind v a b t    sum or product over ``v`` from ``a`` to ``b``
``tuple`` [ nodes )     brackets and members; ``set`` nodes, ``builder`` v conditions, ``list`` nodes separators
``cup cap diff`` a b    of sets; ``R``, ``empty``
``rel`` sides ops names a chain of relations; ``names``: which sides are mere names (``x``, ``f(x)``)
``matrix`` rows, ``text`` words, ``base`` digits base, ``unit`` node unit, ``deg`` node
``ratio`` nodes         also of the parts of a time, which has a third element: "a", "p" or ""
``dots``                the dots in ``1, 2, \ldots, n``
======================  ==================================================================================

What is not understood raises ``Unreadable``, what exceeds the bounds ``TooLarge``. Nothing is guessed.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .arithmetic import Arithmetic
from .tokens import GREEK, RELATIONS, SET_OPERATIONS, Node, TooLarge, Unreadable, is_font

__all__ = ["Node", "TooLarge", "Unreadable", "parse"]

_SEPARATOR_TEXT = re.compile(r"[\s,]*(and|or)[\s,]*", re.IGNORECASE)

_QUANTITIES = frozenset(("\\angle", "\\measuredangle", "\\det", "\\dim", "\\mathbb", "P", "E", "Pr", "\\Pr", "Var"))
_QUANTITY = re.compile(
    r"\\(?:(?:measured)?angle|det|dim) \(? ?[A-Za-z]{1,3} ?\)?|"
    r"(?:\\mathbb \{ [EP] \}|\\?Pr|P|E|Var) (?:\([^()]*\)|\[[^\[\]]*\])"
)


@lru_cache(maxsize=8192)
def _parse_cached(tidied: str, thousands: bool) -> tuple[Node | None, str]:
    try:
        return Parser(tidied, thousands).answer(), ""
    except Unreadable:
        return None, "unreadable"
    except TooLarge:
        return None, "too large"


def parse(tidied: str, thousands: bool = True) -> Node:
    """The tree of an answer that ``tidy`` returned. ``thousands``: ``1,234`` at the top level is a number, not a list.

    Raises ``Unreadable`` or ``TooLarge``.
    """
    node, problem = _parse_cached(tidied, thousands)
    if node is None:
        raise TooLarge if problem == "too large" else Unreadable
    return node


class Parser(Arithmetic):
    """Answers, lists, relations and set operations; arithmetic is inherited."""

    def answer(self) -> Node:
        """The whole text. Raises ``Unreadable`` if tokens are left."""
        if not self.tokens:
            raise Unreadable
        node = self.items()
        if self.at < len(self.tokens):
            raise Unreadable
        return node

    def items(self) -> Node:
        """Members separated by commas, semicolons, "and", "or"; a single member is not put into a list."""
        members, separators = [self.relation()], []
        while True:
            found = self.separator()
            if found is None:
                break
            if self.at >= len(self.tokens) and found == ",":
                break
            separators.append(found)
            members.append(self.relation())
        if len(members) == 1:
            return members[0]
        if ";" in separators and "," in separators:
            return self._groups(members, separators)
        return ("list", tuple(members), tuple("," if s == ";" else s for s in separators))

    @staticmethod
    def _groups(members: list[Node], separators: list[str]) -> Node:
        """``p=5, q=2; p=7, q=2``: groups of values."""
        groups: list[list[Node]] = [[members[0]]]
        for member, separator in zip(members[1:], separators, strict=True):
            if separator == ";":
                groups.append([])
            groups[-1].append(member)
        nodes = [g[0] if len(g) == 1 else ("list", tuple(g), (",",) * (len(g) - 1)) for g in groups]
        return ("list", tuple(nodes), (";",) * (len(nodes) - 1))

    def separator(self) -> str | None:
        """The separators at the current position as one, "and" and "or" before commas; None if there is none."""
        found = None
        while self.at < len(self.tokens):
            if self.accept(","):
                found = found or ","
            elif self.accept(";"):
                found = found or ";"
            elif self.peek() in ("and", "or"):
                found = self.take()
            else:
                word = self.text_separator()
                if word is None:
                    return found
                found = word if found in (None, ",") else found
        return found

    def text_separator(self) -> str | None:
        r"""``\text{and}`` or ``\text{or}`` at the current position; None otherwise, without moving."""
        if not is_font(self.peek()) or self.peek(1) != "{":
            return None
        start = self.at
        text = self.text_argument()
        match = _SEPARATOR_TEXT.fullmatch(text)
        if match:
            return match[1].lower()
        self.at = start
        return None

    def relation(self) -> Node:
        """One side, or a chain of sides with relation symbols. What follows an approximation sign is dropped."""
        sides, operators, names = [], [], []
        while True:
            start = self.at
            sides.append(self.named_quantity() or self.nested(self.set_expression))
            names.append(self._is_name(start, self.at, sides[-1]))
            token = self.peek()
            if token == "\\not" and self.peek(1) == "=":
                self.at += 1
                operators.append("!=")
            elif token in RELATIONS:
                operators.append(RELATIONS[token])
            else:
                break
            self.at += 1
        if not operators:
            return sides[0]
        if "~" in operators:  # 16/3 = 5.33..: what precedes the approximation, if that is a value
            cut = operators.index("~")
            if cut == 0 and names[0]:
                operators[0] = "="
                return ("rel", tuple(sides[:2]), ("=",), tuple(names[:2]))
            sides, operators, names = sides[: cut + 1], operators[:cut], names[: cut + 1]
            if not operators:
                return sides[0]
        return ("rel", tuple(sides), tuple(operators), tuple(names))

    def named_quantity(self) -> Node | None:
        r"""``\angle ABC``, ``\det A``, ``P(A \mid B)`` or ``\mathbb{E}[X]`` before an equals sign: a name; or None."""
        if self.peek() not in _QUANTITIES or "=" not in self.tokens[self.at :]:
            return None
        end = self.tokens.index("=", self.at)
        text = " ".join(self.tokens[self.at : end])
        if _QUANTITY.fullmatch(text) is None:
            return None
        self.at = end
        return ("sym", text)

    def _is_name(self, start: int, end: int, node: Node) -> bool:
        """Whether a side is merely a name, as in ``x``, ``x_1``, ``f(x)``, ``f^{-1}(x)``, ``(x, y)``."""
        if node[0] == "sym" or node[0] == "app":
            return True
        if node[0] == "tuple":
            return all(member[0] == "sym" for member in node[2])
        if node[0] == "ratio":
            return all(term[0] in ("sym", "app") for term in node[1])
        if node[0] == "text":
            return True
        first = self.tokens[start] if start < end else ""
        is_letter = (first.isalpha() and len(first) == 1) or first[1:] in GREEK
        if is_letter and self.tokens[end - 1] == ")":
            return self._is_application(start + 1, end)
        factors = node[1] if node[0] == "mul" else ()  # AB, the length of a segment
        return bool(factors) and all(f[0] == "sym" for f in factors) and "".join(f[1] for f in factors).isupper()

    def _is_application(self, at: int, end: int) -> bool:
        """Whether the tokens after a letter make it ``f_1(...)`` or ``f^{-1}(...)``, with nothing after it."""
        while at < end and self.tokens[at] != "(":
            if self.tokens[at] not in ("^", "_", "{", "}", "-", "'", "\\prime") and not self.tokens[at].isalnum():
                return False
            at += 1
        depth = 0
        for place in range(at, end):
            depth += (self.tokens[place] == "(") - (self.tokens[place] == ")")
            if depth == 0:
                return place == end - 1
        return False

    def set_expression(self) -> Node:
        """Sums joined by set operations."""
        node = self.sum()
        while True:
            token = self.peek()
            if token in SET_OPERATIONS:
                self.at += 1
                node = (SET_OPERATIONS[token], node, self.sum())
            elif token == "U" and node[0] in ("tuple", "cup", "set") and self.peek(1) in ("(", "[", "\\{"):
                self.at += 1
                node = ("cup", node, self.sum())
            else:
                return node
