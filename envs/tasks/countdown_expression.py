"""Arithmetic expressions with ``+ - * /`` and parentheses: a parser, exact values and a canonical form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
MAX_LENGTH = 1000
MAX_DEPTH = 50


@dataclass(frozen=True)
class Expression:
    """A number, or a sum (product) of parts, each of which is added or subtracted (multiplied or divided by).

    Parts of a sum are never sums, parts of a product never products: ``a-(b-c)`` is the sum of +a, -b and +c.
    """

    kind: str
    """``number``, ``sum`` or ``product``."""
    parts: tuple[tuple[bool, Expression], ...] = ()
    """Pairs of (is it subtracted or divided by?, part)."""
    number: int = 0
    """The value if ``kind`` is ``number``."""

    @property
    def value(self) -> Fraction:
        """The exact value. Raises ZeroDivisionError."""
        if self.kind == "number":
            return Fraction(self.number)
        total = Fraction(self.kind == "product")
        for inverse, part in self.parts:
            value = part.value
            if self.kind == "sum":
                total += -value if inverse else value
            else:
                total = total / value if inverse else total * value
        return total

    @property
    def numbers(self) -> list[int]:
        """All numbers in the expression, repeated as often as they occur."""
        return [self.number] if self.kind == "number" else [n for _, part in self.parts for n in part.numbers]

    @property
    def canonical(self) -> str:
        """A normal form, equal for expressions that differ only in order and in needless parentheses."""
        if self.kind == "number":
            return str(self.number)
        plus, minus = ("+", "-") if self.kind == "sum" else ("*", "/")
        terms = sorted(
            (inverse, f"({part.canonical})" if self.kind == "product" and part.kind == "sum" else part.canonical)
            for inverse, part in self.parts
        )
        text = "".join((minus if inverse else plus) + term for inverse, term in terms)
        return text if text.startswith(minus) and self.kind == "sum" else text[1:]


def parse_expression(text: str) -> Expression:
    """Parse an expression with the usual precedence; a number or parenthesis may have a sign.

    Raises ValueError if ``text`` is not an expression, is longer than 1000 characters or is nested deeper than 50.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the expression is longer than {MAX_LENGTH} characters")
    return _Parser(_tokens(text)).read()


def _tokens(text: str) -> Iterator[str]:
    text, position = text.rstrip(), 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"unexpected {text[position:].strip()[:10]!r}")
        yield match[1]
        position = match.end()
    yield ""


class _Parser:
    """Recursive descent with one method per rule of the grammar; ``self.token`` is the next token, "" at the end.

    sum = [sign] product {("+" | "-") product};  product = factor {("*" | "/") factor};
    factor = [sign] (number | "(" sum ")")
    """

    def __init__(self, tokens: Iterator[str]) -> None:
        self.tokens = tokens
        self.token = next(tokens)
        self.depth = 0

    def read(self) -> Expression:
        expression = self.sum()
        if self.token:
            raise ValueError(f"unexpected {self.token!r}")
        return expression

    def take(self) -> str:
        token, self.token = self.token, next(self.tokens, "")
        return token

    def sign(self) -> bool:
        return self.token in ("+", "-") and self.take() == "-"

    def sum(self) -> Expression:
        parts = [(self.sign(), self.product())]
        while self.token in ("+", "-"):
            parts.append((self.take() == "-", self.product()))
        return combine("sum", parts)

    def product(self) -> Expression:
        parts = [(False, self.factor())]
        while self.token in ("*", "/"):
            parts.append((self.take() == "/", self.factor()))
        return combine("product", parts)

    def factor(self) -> Expression:
        negative = self.sign()
        if self.token == "(":
            self.take()
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise ValueError(f"the expression is nested deeper than {MAX_DEPTH}")
            inner = self.sum()
            self.depth -= 1
            if self.take() != ")":
                raise ValueError("a parenthesis is not closed")
        elif self.token.isdigit():
            inner = Expression("number", number=int(self.take()))
        else:
            raise ValueError(f"a number is missing before {self.token!r}" if self.token else "a number is missing")
        return combine("sum", [(negative, inner)])


def combine(kind: str, parts: list[tuple[bool, Expression]]) -> Expression:
    """The sum or product of the parts (``kind``), flattened."""
    if len(parts) == 1 and not parts[0][0]:
        return parts[0][1]
    flat = ((outer != inner, leaf) for outer, part in parts for inner, leaf in _parts(kind, part))
    return Expression(kind, tuple(flat))


def _parts(kind: str, expression: Expression) -> tuple[tuple[bool, Expression], ...]:
    return expression.parts if expression.kind == kind else ((False, expression),)
