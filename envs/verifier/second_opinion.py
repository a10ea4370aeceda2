r"""Compares two formulas by other means than the verifier, to audit its verdicts.

The verifier's own parser, trees and 40-digit arithmetic are not used. Answer and reference are parsed by a separate
small precedence parser and evaluated at random points: exactly, in rationals, as long as only rational operations
occur, else in floating point. There is no opinion on what it cannot parse (sets, lists, relations, words).
"""

from __future__ import annotations

import cmath
import math
import random
import re
from dataclasses import dataclass
from fractions import Fraction

POINTS = 6
"""Number of points at which two formulas are compared."""
MAX_TOKENS = 300
MAX_DEPTH = 30
MAX_BITS = 4096
"""Largest exact number; beyond it there is no opinion."""
TOLERANCE = 1e-9
"""Relative difference of equal floating-point values."""

Value = Fraction | complex


def second_opinion(answer: str, reference: str, rng: random.Random) -> bool | None:
    """Whether two formulas are equal at random points; None if one of them cannot be parsed or compared."""
    try:
        answer, reference = _same_kind(answer, reference)
        left, right = _read(answer), _read(reference)
    except (_Unread, RecursionError):
        return None
    agreed = 0
    for number in range(POINTS):
        point = _Point(rng, negative=number % 2 == 1)
        try:
            a, b = left.value(point), right.value(point)
            if number % 2 == 1 and (_complex(a) or _complex(b)):
                continue  # roots and logarithms of negative numbers: the branch is a matter of convention
            if not _close(a, b):
                return False
        except _Unread:
            return None
        except (ZeroDivisionError, OverflowError, ValueError):
            continue
        agreed += 1
    return True if agreed >= 2 else None


def _complex(value: Value) -> bool:
    return isinstance(value, complex) and abs(value.imag) > TOLERANCE * abs(value)


def _close(a: Value, b: Value) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    x, y = complex(a), complex(b)
    if not (cmath.isfinite(x) and cmath.isfinite(y)):
        raise _Unread
    return abs(x - y) <= TOLERANCE * max(abs(x), abs(y))


class _Unread(Exception):
    pass


class _Point(dict[str, Fraction]):
    """Random rational values, drawn when a variable is first used."""

    def __init__(self, rng: random.Random, negative: bool) -> None:
        super().__init__()
        self.rng, self.sign = rng, -1 if negative else 1

    def __missing__(self, name: str) -> Fraction:
        value = self.sign * Fraction(self.rng.randint(30, 400), self.rng.randint(60, 150))
        self[name] = value
        return value


# ---- reading

_GONE = re.compile(r"\\left|\\right(?![a-z])|\\[,;:! ]|\\q?quad|\\displaystyle|\$|~")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox)\{[\s~]*[a-z]{2,}\s*\}(?:\^\{?[23]\}?)?")
_WORDS = re.compile(r"(?<![\\A-Za-z])[a-z]{3,}|\d\s+[A-Za-z]{2,}")
_NAMED = re.compile(r"^[\s$]*[A-Za-z](?:_\{?\w+\}?)?\s*=")
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?![\d,])")
_TOKEN = re.compile(
    r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3}(?!\w))?)|(\\[A-Za-z]+)|([A-Za-z](?:_(?:\{\w+\}|\w))?)|(.))",
    re.DOTALL,
)
_BINARY = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4}
_FUNCTIONS = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "ln": cmath.log,
    "arctan": cmath.atan,
    "exp": cmath.exp,
}
_MEANS = {"\\cdot": "*", "\\times": "*", "\\div": "/", "\\dfrac": "\\frac", "\\tfrac": "\\frac"}


@dataclass(frozen=True)
class _Formula:
    """An operation and its operands."""

    operation: str
    parts: tuple[_Formula, ...] = ()
    number: Fraction = Fraction(0)

    def value(self, point: _Point) -> Value:
        name = self.operation
        if name == "number":
            return self.number
        if name == "i":
            return 1j
        if name in ("\\pi", "e"):
            return complex(math.pi if name == "\\pi" else math.e)
        if not self.parts:
            return point[name]
        return _apply(name, [part.value(point) for part in self.parts])


def _apply(name: str, values: list[Value]) -> Value:
    a, b = values[0], values[-1]
    exact = isinstance(a, Fraction) and isinstance(b, Fraction)
    if exact and max(v.numerator.bit_length() + v.denominator.bit_length() for v in (a, b)) > MAX_BITS:  # type: ignore[union-attr]
        raise _Unread
    if not exact:
        a, b = complex(a), complex(b)
    if name == "+":
        return a + b
    if name == "-":
        return a - b
    if name == "*":
        return a * b
    if name == "/":
        return a / b
    if name == "negate":
        return -a
    if name == "|":
        return abs(a) if isinstance(a, Fraction) else complex(abs(a))
    if name == "^":
        if isinstance(b, Fraction) and isinstance(a, Fraction) and b.denominator == 1:
            if abs(b) * (a.numerator.bit_length() + a.denominator.bit_length()) > MAX_BITS:
                raise _Unread
            return a ** int(b)
        if isinstance(a, Fraction) and a < 0:
            raise _Unread  # (-1)^n is meant for integers
        return complex(a) ** complex(b)
    if name == "root":
        return complex(b) ** (1 / complex(a))
    return _FUNCTIONS[name](complex(a))


def _same_kind(answer: str, reference: str) -> tuple[str, str]:
    """Both without the name before an equals sign and the unit after a number, unless these disagree."""
    for part in (_NAMED, _UNIT):
        found = [part.search(text) for text in (answer, reference)]
        if found[0] and found[1] and found[0].group().split() != found[1].group().split():
            raise _Unread
        answer, reference = (part.sub(" ", text, count=1) for text in (answer, reference))
    return answer, reference


def _read(text: str) -> _Formula:
    if not text.isascii() or _WORDS.search(_GONE.sub(" ", text)):
        raise _Unread
    text = _GONE.sub(" ", text).strip().rstrip(".")
    text = _GROUPED.sub(lambda m: m.group().replace(",", ""), text.replace("{,}", ""))
    tokens = []
    for match in _TOKEN.finditer(text):
        token = next((group for group in match.groups() if group), "")
        if token.strip():
            tokens.append(_MEANS.get(token, token))
        if len(tokens) > MAX_TOKENS:
            raise _Unread
    reader = _Reader(tokens)
    formula = reader.sum(0)
    if reader.at != len(tokens) or not tokens:
        raise _Unread
    return formula


class _Reader:
    """Precedence climbing. Adjacent factors are a product, an integer before a fraction is a mixed number."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise _Unread
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise _Unread

    def sum(self, lowest: int) -> _Formula:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unread
        left = self.unary()
        while True:
            token = self.peek()
            if token in _BINARY and _BINARY[token] >= max(lowest, 1):
                self.at += 1
                right = self.sum(_BINARY[token] + (token != "^"))
                left = _Formula(token, (left, right))
            elif lowest <= 2 and self.juxtaposed(token):
                mixed = left.operation == "number" and left.number.denominator == 1 and token == "\\frac"
                right = self.sum(3)
                plain = right.operation == "/" and all(part.operation == "number" for part in right.parts)
                left = _Formula("+" if mixed and plain else "*", (left, right))
            else:
                self.depth -= 1
                return left

    @staticmethod
    def juxtaposed(token: str) -> bool:
        return (
            token == "("
            or token.isalpha()
            or (token[:1].isalpha() and "_" in token)
            or (token[:1] == "\\" and (token in ("\\frac", "\\sqrt", "\\pi") or token[1:] in _FUNCTIONS))
        )

    def unary(self) -> _Formula:
        token = self.take()
        if token in "+-":
            inner = self.sum(2)
            return inner if token == "+" else _Formula("negate", (inner,))
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            if self.peek()[:1] in tuple("0123456789_"):
                raise _Unread
            return _Formula("number", number=Fraction(token))
        if token in ("(", "{"):
            inner = self.sum(0)
            self.expect(")" if token == "(" else "}")
            return inner
        if token == "|":
            inner = self.sum(0)
            self.expect("|")
            return _Formula("|", (inner,))
        if token == "\\frac":
            return _Formula("/", (self.argument(), self.argument()))
        if token == "\\sqrt":
            degree = _Formula("number", number=Fraction(2))
            if self.peek() == "[":
                self.at += 1
                degree = self.sum(0)
                self.expect("]")
            return _Formula("root", (degree, self.argument()))
        if token[1:] in _FUNCTIONS and self.peek() in ("(", "{"):
            return _Formula(token[1:], (self.unary(),))
        if token == "\\pi" or token[0].isalpha():
            return _Formula(token)
        raise _Unread

    def argument(self) -> _Formula:
        """A group, or one character as in ``\\frac12``."""
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = list(token)
        return self.unary()
