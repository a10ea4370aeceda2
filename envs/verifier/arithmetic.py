r"""Tier 2: parses sums, products, powers and units. See ``parse.py`` for the trees."""

from __future__ import annotations

from fractions import Fraction

from .atoms import Atoms
from .clock import may_be_time
from .tokens import (
    FUNCTION_LETTERS,
    RELATIONS,
    SET_OPERATIONS,
    STOPS,
    WORD_COMMANDS,
    Node,
    TooLarge,
    Unreadable,
    in_base,
    is_font,
    letter,
    product,
    renamed,
)
from .units import SHORT_UNITS, read_unit


class Arithmetic(Atoms):
    """Everything between the atoms and a whole side of a relation."""

    def text_separator(self) -> str | None:
        r"""``\text{and}`` or ``\text{or}`` (implemented by ``Parser``)."""
        raise NotImplementedError

    def sum(self) -> Node:
        """Terms joined by plus, minus and plus-minus signs."""
        node = self.signed_term()
        while True:
            token = self.peek()
            if token == "+":
                self.at += 1
                right = self.signed_term()
                node = ("add", (*node[1], right)) if node[0] == "add" else ("add", (node, right))
            elif token == "-":
                self.at += 1
                right = ("neg", self.signed_term())
                node = ("add", (*node[1], right)) if node[0] == "add" else ("add", (node, right))
            elif token in ("\\pm", "\\mp"):
                self.at += 1
                node = (token[1:], node, self.signed_term())
            else:
                return node

    def signed_term(self) -> Node:
        """A term with its signs."""
        negative = False
        for _ in range(8):
            if self.accept("-"):
                negative = not negative
            elif self.accept("\\pm"):
                node: Node = ("pm", ("num", Fraction(0)), self.term())
                return ("neg", node) if negative else node
            elif self.accept("\\mp"):
                return ("mp", ("num", Fraction(0)), self.term())
            elif not self.accept("+"):
                break
        else:
            raise TooLarge
        node = self.term()
        return ("neg", node) if negative else node

    def term(self) -> Node:
        """A product, quotient or ratio, with the unit, percent or degree sign behind it."""
        start = self.at
        node = self.factor()
        if node[0] == "text":
            return node
        numeric = node[0] == "num"
        while True:
            token = self.peek()
            if token in ("\\cdot", "\\times", "*", "\\ast"):
                self.at += 1
                node = product(node, self.signed_factor())
            elif token in ("/", "\\div"):
                self.at += 1
                node = ("div", node, self.signed_factor())
            elif token == ":" and not self.in_set:
                self.at += 1
                terms = node[1] if node[0] == "ratio" else (node,)
                node = ("ratio", (*terms, self.signed_factor()))
            elif token in ("%", "°"):
                self.at += 1
                node = ("deg", node) if token == "°" else ("unit", node, "%")
            elif self.starts_factor(token):
                if node[0] == "ratio" and may_be_time(node):
                    raise Unreadable  # 3:00 p.m. on Tuesday: words
                if numeric and self.at == start + 1 and token == "\\frac":
                    mixed = self.mixed(node)
                    if mixed is not None:
                        node = mixed
                        continue
                unit = self.unit() if _constant(node) and self.begins_item(start) else None
                if unit is not None:
                    return ("deg", node) if unit == "°" else ("unit", node, unit)
                if token[0] in "0123456789." and self.tokens[self.at - 1][0].isdigit():
                    raise Unreadable  # 1 2
                node = product(node, self.factor())
            else:
                return node

    def signed_factor(self) -> Node:
        r"""A factor that may have a sign, as after ``\cdot``."""
        if self.accept("-"):
            return ("neg", self.signed_factor_once())
        self.accept("+")
        return self.factor()

    def signed_factor_once(self) -> Node:
        """The factor after a minus sign. Raises ``Unreadable`` for a second sign."""
        if self.peek() in "+-":
            raise Unreadable
        return self.factor()

    def starts_factor(self, token: str) -> bool:
        """Whether ``token`` begins a factor that is multiplied by what precedes it."""
        if not token:
            return False
        if token == "|":
            return self.bars == 0 and not self.in_set
        if token[0] == "\\":
            return token not in RELATIONS and token not in SET_OPERATIONS and token not in STOPS and not self._and()
        return (token[0].isalnum() and token not in ("and", "or")) or token in "([{." or token[0] == "."

    def _and(self) -> bool:
        start = self.at
        found = self.text_separator() is not None
        self.at = start
        return found

    def mixed(self, whole: Node) -> Node | None:
        """The mixed number ``2\\frac{1}{3}``; None for a product such as ``2\\frac{x}{3}``, without moving."""
        start = self.at
        fraction = self.factor()
        if fraction[0] == "div" and fraction[1][0] == fraction[2][0] == "num" and whole[1].denominator == 1:
            top, bottom = fraction[1][1], fraction[2][1]
            if top.denominator == bottom.denominator == 1 and 0 < top < bottom and self.peek() not in ("^", "!"):
                return ("num", whole[1] + top / bottom)
        self.at = start
        return None

    def begins_item(self, at: int) -> bool:
        """Whether at most a sign precedes position ``at`` in its item."""
        signed = at
        while at > 0 and self.tokens[at - 1] in ("+", "-", "\\pm"):
            at -= 1
        before = self.tokens[at - 1] if at > 0 else ","
        if before == "}" and at < signed:
            return False  # \frac{7}{2} - 3 x
        return before in (",", ";", "(", "[", "\\{", "{", "&", "\\\\", "and", "or", "}") or before in RELATIONS

    def unit(self) -> str | None:
        """The unit at the current position, if the rest of the item is one; moves past it."""
        start = self.at
        text, at = "", self.at
        while at < len(self.tokens) and self.tokens[at] not in (
            ",",
            ";",
            "=",
            ")",
            "]",
            "\\}",
            "and",
            "or",
            "&",
            "\\\\",
        ):
            if at - start > 40:
                return None
            text += (" " if self.spaced[at] else "") + self.tokens[at]
            at += 1
        word = self.peek()
        if not (is_font(word) or (word.isalpha() and len(word) > 1 and (word in SHORT_UNITS or self.spaced[start]))):
            return None
        if text.count("{") != text.count("}"):
            return None
        unit = read_unit(text if self.spaced[start] or word[0] == "\\" else " " + text)
        if unit is None:
            return None
        self.at = at
        return unit

    def factor(self) -> Node:
        """An atom with its powers, factorials, indices, degree signs and arguments."""
        node = self.nested(self.atom)
        while True:
            token = self.peek()
            if token == "^":
                self.at += 1
                if self.accept("\\prime", "'", "*", "\\ast"):
                    node = renamed(node, "'")
                    continue
                node = ("pow", node, self.nested(self.exponent))
            elif token == "!":
                self.at += 1
                if self.peek() == "!":
                    raise Unreadable
                node = ("fn", "fact", node)
            elif token == "_" and node[0] in ("sym", "num", "app"):
                self.at += 1
                node = self.subscript(node)
            elif token == "°":
                self.at += 1
                node = ("deg", node)
            elif token == "(" and node[0] == "sym" and self.applied(node[1]):
                node = ("app", node[1], self.arguments())
            elif token == "(" and node[0] == "pow" and node[1][0] == "sym" and node[1][1] in FUNCTION_LETTERS:
                if node[2] != ("neg", ("num", Fraction(1))):
                    return node
                node = ("app", node[1][1] + "^-1", self.arguments())
            else:
                return node

    def applied(self, name: str) -> bool:
        """Whether the parenthesis after a letter holds an argument: after f always, after I if it is one number."""
        return name.endswith("'") or name in FUNCTION_LETTERS or (self.peek(1)[:1].isdigit() and self.peek(2) == ")")

    def arguments(self) -> tuple[Node, ...]:
        """The arguments of an unknown function, in parentheses."""
        self.expect("(")
        node = self.nested(self.items)
        self.expect(")")
        return node[1] if node[0] == "list" else (node,)

    def oneletter(self) -> None:
        """Split a word into its first letter and the rest: in ``x^ab`` only the ``a`` is raised."""
        word = self.peek()
        if len(word) > 1 and word.isalpha() and word not in WORD_COMMANDS:
            self.tokens[self.at : self.at + 1] = [word[0], word[1:]]
            self.spaced[self.at : self.at + 1] = [False, False]

    def exponent(self) -> Node:
        """What follows ``^``: a group or one character, which may have a minus sign."""
        self.oneletter()
        if self.accept("-"):
            return ("neg", self.exponent_atom())
        return self.exponent_atom()

    def exponent_atom(self) -> Node:
        """An exponent without its sign, with its own exponent."""
        node = self.nested(self.atom)
        if self.peek() == "^":
            self.at += 1
            node = ("pow", node, self.nested(self.exponent))
        return node

    def subscript(self, node: Node) -> Node:
        """``node`` with the index that follows ``_``: a new name, a number's base, or an argument."""
        if self.peek() == "{":
            start = self.at
            depth, end = 0, self.at
            for end in range(start, len(self.tokens)):
                depth += (self.tokens[end] == "{") - (self.tokens[end] == "}")
                if depth == 0:
                    break
            inner = self.tokens[start + 1 : end]
            if node[0] == "num":
                self.at = end + 1
                return in_base(node, "".join(t for t in inner if t not in ("\\text", "\\mathrm", "{", "}")))
            if len(inner) > 1 and any(t in "+-" for t in inner) and any(t.isalpha() for t in inner):
                self.at += 1
                index = self.nested(self.sum)
                self.expect("}")
                return ("app", node[1] + "_", (index,))
            if len(inner) == 1 and inner[0] in self.running:
                self.at = end + 1
                return ("app", node[1] + "_", (letter(inner[0], ""),))
            self.at = end + 1
            return ("sym", node[1] + "_" + "".join(t for t in inner if t not in ("\\text", "\\mathrm", "{", "}")))
        if node[0] == "num":
            return in_base(node, self.take())
        self.oneletter()
        name = self.take()
        if name in self.running:
            return ("app", node[1] + "_", (letter(name, ""),))
        return ("sym", node[1] + "_" + name)


def _constant(node: Node) -> bool:
    """Whether a tree is free of variables. Only such a tree can be followed by a unit."""
    if node[0] in ("sym", "app", "text", "tuple", "set", "list", "rel", "matrix"):
        return False
    return all(
        _constant(child) for child in node[1:] if isinstance(child, tuple) and child and isinstance(child[0], str)
    ) and all(
        _constant(child)
        for group in node[1:]
        if isinstance(group, tuple) and group and isinstance(group[0], tuple)
        for child in group
    )
