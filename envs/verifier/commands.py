r"""Tier 2: parses LaTeX commands and environments. See ``parse.py`` for the trees."""

from __future__ import annotations

import re
from fractions import Fraction

from .tokens import ACCENTS, ENVIRONMENTS, FONTS, FUNCTIONS, GREEK, Cursor, Node, Unreadable, letter, product

_WORD_TEXT = re.compile(r"[A-Za-z][A-Za-z .,'\-]*")
_FONT_TOKENS = frozenset("\\" + name for name in FONTS)
_CONSTANTS: dict[str, Node] = {
    "pi": ("const", "pi"),
    "infty": ("const", "inf"),
    "emptyset": ("empty",),
    "varnothing": ("empty",),
    "R": ("R",),
}


class Commands(Cursor):
    """LaTeX commands with their arguments. Methods that raise NotImplementedError are the subclasses' part."""

    def items(self) -> Node:
        """One or more relations with separators (implemented by ``Parser``)."""
        raise NotImplementedError

    def relation(self) -> Node:
        """An expression or a chain of relations (implemented by ``Parser``)."""
        raise NotImplementedError

    def sum(self) -> Node:
        """A sum (implemented by ``Arithmetic``)."""
        raise NotImplementedError

    def term(self) -> Node:
        """A product (implemented by ``Arithmetic``)."""
        raise NotImplementedError

    def factor(self) -> Node:
        """A power or another atom with a suffix (implemented by ``Arithmetic``)."""
        raise NotImplementedError

    def exponent(self) -> Node:
        """What follows ``^`` (implemented by ``Arithmetic``)."""
        raise NotImplementedError

    def starts_factor(self, token: str) -> bool:
        """Whether ``token`` begins a factor (implemented by ``Arithmetic``)."""
        raise NotImplementedError

    def atom(self) -> Node:
        """A number, a letter or another smallest part (implemented by ``Atoms``)."""
        raise NotImplementedError

    def braced(self, digits: int = 1) -> Node:
        """The argument of a command: a group in braces, else one character (with ``digits=0`` one token)."""
        token = self.peek()
        if token == "{":
            self.at += 1
            node = self.nested(self.items)
            self.expect("}")
            return node
        if token[:1].isdigit() and len(token) > 1 and digits:
            if not token.isdigit() or len(token) > 2:
                raise Unreadable
            self.tokens[self.at] = token[1:]
            self.spaced[self.at] = False
            return ("num", Fraction(token[0]))
        if token[:1].isalpha() and len(token) > 1:
            raise Unreadable
        return self.nested(self.atom)

    def command(self, name: str) -> Node:
        r"""What follows the LaTeX command ``\name``, together with it."""
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in ("ldots", "dots", "cdots"):
            return ("dots",)
        if name in GREEK:
            return ("sym", "\\" + name)
        if name == "frac":
            top = self.braced()
            return ("div", top, self.braced())
        if name == "sqrt":
            return self.radical()
        if name in FUNCTIONS or name in ("Gamma", "operatorname"):
            return self.function(name)
        if name in ("binom", "dbinom", "tbinom"):
            top = self.braced()
            return ("fn", "binom", top, self.braced())
        if name in ("lfloor", "lceil"):
            inside = self.nested(self.sum)
            self.expect("\\r" + name[1:])
            return ("fn", name[1:], inside)
        if name in ("sum", "prod"):
            return self.series(name)
        if name in ("angle", "measuredangle", "triangle"):
            vertices = self.take()
            if not vertices.isalnum():
                raise Unreadable
            return ("sym", f"\\{name} {vertices}")
        if name in ACCENTS:
            start = self.at
            self.braced()
            return ("sym", name + "(" + "".join(t for t in self.tokens[start : self.at] if t not in "{}") + ")")
        if name == "mathbb":
            field = self.text_like()
            return ("R",) if field == "R" else ("sym", "mathbb(" + field + ")")
        if name in FONTS:
            return self.font()
        if name == "begin":
            return self.environment()
        raise Unreadable

    def text_like(self) -> str:
        r"""The argument of ``\mathbb`` as a string, with or without braces."""
        if self.peek() != "{":
            return self.take()
        self.at -= 1
        return self.text_argument().strip()

    def font(self) -> Node:
        """The argument of a font command: a number, one or two letters, or words."""
        self.at -= 1
        if self.peek(1) != "{":
            self.at += 1
            return self.nested(self.atom)
        text = self.text_argument().replace("~", " ").strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return ("num", Fraction(text))
        if len(text) == 1 and text.isalpha():
            return letter(text, "")
        if len(text) <= 2 and text.isalpha():
            return ("mul", tuple(letter(each, "") for each in text))
        if _WORD_TEXT.fullmatch(text):
            return ("text", " ".join(re.sub(r"[.,]", " ", text.lower()).split()))
        raise Unreadable

    def radical(self) -> Node:
        r"""The degree and radicand of ``\sqrt``."""
        degree: Node = ("num", Fraction(2))
        if self.accept("["):
            degree = self.nested(self.sum)
            self.expect("]")
        if self.peek()[:1].isdigit():
            return ("root", degree, self.nested(self.atom))
        return ("root", degree, self.braced())

    def function(self, name: str) -> Node:
        r"""A named function with its base (``\log_2``), power (``\sin^2``, ``\sin^{-1}``) and argument."""
        if name == "operatorname":
            self.at -= 1
            name = self.text_argument().strip()
            name = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(name, name)
            if name not in FUNCTIONS:
                raise Unreadable
        name = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10"}.get(name, name)
        if name == "sqrt":
            return self.radical()
        base = power = None
        for _ in range(2):
            if power is None and self.accept("^"):
                power = self.nested(self.exponent)
            elif base is None and self.accept("_"):
                base = self.braced(digits=0)
        if name in ("max", "min", "gcd", "lcm"):
            raise Unreadable
        braced = name == "exp" and self.peek() == "{"
        argument = self.braced() if braced else self.nested(self.argument)
        if base is not None:
            if name != "log":
                raise Unreadable
            node: Node = ("div", ("fn", "ln", argument), ("fn", "ln", base))
        else:
            node = ("fn", name, argument)
        if power is None:
            return node
        if power == ("neg", ("num", Fraction(1))):
            inverse = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}.get(name)
            if inverse is None:
                raise Unreadable
            return ("fn", inverse, argument)
        return ("pow", node, power)

    def argument(self) -> Node:
        """The argument of a function without parentheses: ``\\sin 2 \\pi t``."""
        if self.peek() in ("(", "[", "|", "{"):
            return self.nested(self.atom)
        if self.accept("-"):
            return ("neg", self.argument())
        if self.peek()[1:] in FUNCTIONS:
            return self.factor()
        node = self.factor()
        while True:
            token = self.peek()
            plain = (
                (token.isalpha() and len(token) == 1 and token != "e")
                or token in ("\\pi", "\\sqrt")
                or token[1:] in GREEK
            )
            if not plain or not self.starts_factor(token) or token == "":
                return node
            node = product(node, self.factor())

    def series(self, name: str) -> Node:
        r"""The bounds and the term of ``\sum`` or ``\prod``."""
        self.expect("_")
        self.expect("{")
        variable = self.nested(self.atom)
        if variable[0] not in ("sym", "const"):
            raise Unreadable
        self.expect("=")
        start = self.nested(self.sum)
        self.expect("}")
        self.expect("^")
        end = self.nested(self.exponent)
        self.running.append(variable[1])
        node = ("sum", name, variable[1], start, end, self.nested(self.term))
        self.running.pop()
        return node

    def condition(self) -> None:
        r"""Move past ``\text{if}`` before a condition."""
        start = self.at
        if self.accept("if", "for", "when"):
            return
        if (
            self.peek() in _FONT_TOKENS
            and self.peek(1) == "{"
            and self.text_argument().strip(" ,") in ("if", "for", "when")
        ):
            return
        self.at = start

    def environment(self) -> Node:
        """A LaTeX environment: a matrix, a determinant, cases or aligned lines."""
        self.at -= 1
        name = self.text_argument()
        if name not in ENVIRONMENTS:
            raise Unreadable
        if name == "array":
            self.at -= 1
            self.text_argument()
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        while True:
            if self.peek() == "\\end":
                self.text_argument()
                break
            self.condition()
            row.append(self.nested(self.relation))
            self.accept(",")
            if self.accept("&"):
                continue
            if self.accept("\\\\"):
                rows.append(tuple(row))
                row = []
            elif self.peek() != "\\end":
                raise Unreadable
        if row:
            rows.append(tuple(row))
        if not rows:
            raise Unreadable
        if name in ("cases", "aligned"):
            if all(len(r) == 1 for r in rows):
                return ("list", tuple(r[0] for r in rows), ("and",) * (len(rows) - 1)) if len(rows) > 1 else rows[0][0]
            return ("cases", tuple(rows))
        if name in ("vmatrix", "Vmatrix"):
            return ("det", tuple(rows))
        return ("matrix", tuple(rows))
