"""Tier 2: evaluates trees.

Nothing large is ever computed: exact numbers are bounded, other values are floating-point numbers of fixed precision at
any magnitude (``exact.py``), the arguments of functions are bounded, sums are bounded, and one evaluation takes a
bounded number of steps. What exceeds the bounds raises ``TooLarge``, what has no value ``Undefined``, what is not a
number at all ``NotNumeric``, and what needs more digits ``Imprecise``.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from fractions import Fraction
from math import inf
from typing import Any

from . import functions, integers
from .exact import BITS, Ball, Undefined, Value, bounded, divide, imaginary_unit, pi, sign
from .tokens import Node, TooLarge
from .tree import symbols

MAX_STEPS = 4000
"""Maximum number of nodes visited by one evaluation."""
MAX_DECISION_STEPS = 40_000
"""Maximum number of nodes visited by all evaluations for one decision; more for functions of many digits."""
MAX_TERMS = 200
"""Maximum number of terms of a sum or product."""


class NotNumeric(Exception):
    """The tree is a set, a matrix, a relation: not a number."""


_local = threading.local()


def allow(steps: int = MAX_DECISION_STEPS) -> None:
    """Set the number of steps that this thread's next decision may take."""
    _local.steps_left = steps


def exhausted() -> bool:
    """Whether the current decision has used up its steps."""
    return bool(getattr(_local, "steps_left", 1) <= 0)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": functions.sin,
    "cos": functions.cos,
    "tan": functions.tangent,
    "cot": lambda x, ctx: divide(functions.cos(x, ctx), functions.sin(x, ctx)),
    "sec": lambda x, ctx: divide(1, functions.cos(x, ctx)),
    "csc": lambda x, ctx: divide(1, functions.sin(x, ctx)),
    "arcsin": functions.arcsin,
    "arccos": functions.arccos,
    "arctan": functions.arctan,
    "arccot": lambda x, ctx: pi(ctx) * Fraction(1, 2) - functions.arctan(x, ctx),
    "sinh": lambda x, ctx: functions.hyperbolic("sinh", x, ctx),
    "cosh": lambda x, ctx: functions.hyperbolic("cosh", x, ctx),
    "tanh": lambda x, ctx: functions.hyperbolic("tanh", x, ctx),
    "exp": functions.exp,
    "ln": functions.ln,
    "log10": lambda x, ctx: divide(functions.ln(x, ctx), functions.ln(10, ctx)),
    "abs": integers.absolute,
    "floor": lambda x, ctx: integers.floor(x),
    "ceil": lambda x, ctx: -integers.floor(-x),
    "fact": integers.factorial,
    "Gamma": integers.gamma,
    "binom": integers.binomial,
}


_COSTLY = frozenset(("fn", "pow", "root"))


class Evaluator:
    """Evaluates trees at one point, with one method per kind of node.

    ``point`` maps the names of variables to values, ``sign`` (1 or -1) is the sign that plus-minus stands for,
    ``log_base`` the base of a bare log (10, or 0 for e), and ``real_roots`` makes ``(-8)^{1/3}`` -2, which otherwise is
    complex, as ``\\sqrt[3]{-8}`` always is -2.
    """

    def __init__(self, ctx: Any, point: Any, sign: int = 1, log_base: int = 0, real_roots: bool = False) -> None:
        self.ctx, self.point, self.sign, self.log_base, self.real_roots = ctx, point, sign, log_base, real_roots
        self.steps = min(MAX_STEPS, getattr(_local, "steps_left", MAX_STEPS))
        self.cost = (ctx.prec // BITS) ** 2
        self.bound: dict[str, Value] = {}

    def value(self, node: Node) -> Value | float:
        """The value of a tree, a float if it is infinite. Raises an exception named above if it has none."""
        if node == ("const", "inf"):
            return inf
        if node == ("neg", ("const", "inf")):
            return -inf
        allowed = self.steps
        try:
            value: Value = self._value(node)
            return value
        except (ZeroDivisionError, ValueError):
            raise Undefined from None
        except OverflowError:
            raise TooLarge from None
        finally:
            _local.steps_left = getattr(_local, "steps_left", MAX_DECISION_STEPS) - (allowed - self.steps)

    def _value(self, node: Node) -> Any:
        self.steps -= self.cost if node[0] in _COSTLY else 1
        if self.steps < 0:
            raise TooLarge
        handler = getattr(self, "_" + node[0], None)
        if handler is None:
            raise NotNumeric
        return handler(node)

    def _kept(self, value: Value) -> Value:
        """``value``, as a ``Ball`` if it is too long; long exact numbers take time."""
        if not isinstance(value, Ball):
            self.steps -= (value.numerator.bit_length() + value.denominator.bit_length()) >> 7
        return bounded(value, self.ctx)

    # ---- leaves

    def _num(self, node: Node) -> Any:
        value = node[1]
        return self._kept(value.numerator if value.denominator == 1 else value)

    def _sym(self, node: Node) -> Any:
        bound = self.bound.get(node[1])
        return self.point[node[1]] if bound is None else bound

    def _const(self, node: Node) -> Any:
        name = node[1]
        if name in self.bound:  # a sum over i
            return self.bound[name]
        if name == "pi":
            return pi(self.ctx)
        if name == "e":
            return functions.exp(1, self.ctx)
        if name == "i":
            return imaginary_unit(self.ctx)
        raise Undefined  # infinity in a formula

    # ---- arithmetic

    def _add(self, node: Node) -> Any:
        total = self._value(node[1][0])
        for term in node[1][1:]:
            total = self._kept(total + self._value(term))
        return total

    def _mul(self, node: Node) -> Any:
        product = self._value(node[1][0])
        for factor in node[1][1:]:
            product = self._kept(product * self._value(factor))
        return product

    def _neg(self, node: Node) -> Any:
        return -self._value(node[1])

    def _div(self, node: Node) -> Any:
        return self._kept(divide(self._value(node[1]), self._value(node[2])))

    def _ratio(self, node: Node) -> Any:
        if len(node[1]) > 2:
            raise NotNumeric
        return divide(self._value(node[1][0]), self._value(node[1][1]))

    def _pm(self, node: Node) -> Any:
        return self._value(node[1]) + self.sign * self._value(node[2])

    def _mp(self, node: Node) -> Any:
        return self._value(node[1]) - self.sign * self._value(node[2])

    def _deg(self, node: Node) -> Any:
        return self._value(node[1]) * (pi(self.ctx) * Fraction(1, 180))

    def _unit(self, node: Node) -> Any:
        if node[2] != "%":
            raise NotNumeric
        return divide(self._value(node[1]), 100)

    def _pow(self, node: Node) -> Any:
        exponent = self._value(node[2])
        if node[1] == ("const", "e") and "e" not in self.bound:
            return functions.exp(exponent, self.ctx)
        return functions.power(self._value(node[1]), exponent, self.ctx, self.real_roots)

    def _root(self, node: Node) -> Any:
        degree, value = self._value(node[1]), self._value(node[2])
        if isinstance(degree, Ball) or degree.denominator != 1 or not 0 < degree <= functions.MAX_ORDER:
            return functions.power(value, divide(1, degree), self.ctx, real_roots=True)
        if degree % 2 and not (isinstance(value, Ball) and value.complex) and sign(value) < 0:
            return -functions.root(-value, int(degree), self.ctx)
        return functions.root(value, int(degree), self.ctx)

    # ---- functions

    def _fn(self, node: Node) -> Any:
        name = node[1]
        arguments = [self._value(argument) for argument in node[2:]]
        if name == "log":
            value = functions.ln(arguments[0], self.ctx)
            return divide(value, functions.ln(10, self.ctx)) if self.log_base == 10 else value
        return self._kept(_FUNCTIONS[name](*arguments, self.ctx))

    def _app(self, node: Node) -> Any:
        """An unknown function: an arbitrary one for its name, rational and without symmetries."""
        seed = zlib.crc32(node[1].encode())
        phase = Fraction(seed % 1009, 512) + 1
        value: Any = 1
        for at, argument in enumerate(node[2]):
            x = self._value(argument)
            value = self._kept(divide(phase, x * x + phase * x + phase * phase + (at + 1) * value))
        return value

    def _sum(self, node: Node) -> Any:
        _, kind, variable, start, end, term = node
        first, last = self._value(start), self._value(end)
        for bound in (first, last):
            if not integers.is_whole(bound):
                raise Undefined
        first, last = integers.whole(first), integers.whole(last)
        if abs(first) > 10**6 or last - first > MAX_TERMS:
            raise TooLarge
        if last < first - 1:  # conventions differ: 0, or minus the terms between
            raise Undefined
        outer = self.bound.get(variable)
        total: Any = 0 if kind == "sum" else 1
        for k in range(first, last + 1):
            self.bound[variable] = k
            value = self._value(term)
            total = self._kept(total + value if kind == "sum" else total * value)
        if outer is None:
            self.bound.pop(variable, None)  # it was never bound if there are no terms
        else:
            self.bound[variable] = outer
        return total

    def _det(self, node: Node) -> Any:
        rows = node[1]
        if len(rows) > 6 or any(len(row) != len(rows) for row in rows):
            raise NotNumeric
        return _determinant([[self._value(cell) for cell in row] for row in rows])


def _determinant(rows: list[list[Any]]) -> Any:
    if len(rows) == 1:
        return rows[0][0]
    total: Any = 0
    for column, cell in enumerate(rows[0]):
        minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
        total = total + cell * _determinant(minor) * (-1) ** column
    return total


def constant_value(node: Node, ctx: Any) -> Value | float:
    """The value of a tree without variables. Raises ``NotNumeric`` if it has variables, and what ``value`` raises."""
    if symbols(node):
        raise NotNumeric
    return Evaluator(ctx, {}).value(node)
