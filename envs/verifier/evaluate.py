"""Tier 2: evaluates trees to 40 digits.

Nothing large is ever computed: values are floating-point numbers of fixed precision at any magnitude, the arguments of
functions are bounded, sums are bounded, and one evaluation takes a bounded number of steps. What exceeds the bounds
raises ``TooLarge``, what has no value ``Undefined``, what is not a number at all ``NotNumeric``.
"""

from __future__ import annotations

import threading
import zlib
from typing import Any

from .tokens import Node, TooLarge
from .tree import symbols

DIGITS = 40
MAX_STEPS = 4000
"""Maximum number of nodes visited by one evaluation."""
MAX_DECISION_STEPS = 40_000
"""Maximum number of nodes visited by all evaluations for one decision."""
MAX_TERMS = 200
"""Maximum number of terms of a sum or product."""
_MAX_ARGUMENT_BITS = 64
_MAX_POWER_BITS = 1 << 62


class Undefined(Exception):
    """The tree has no value here: a division by zero, a pole, infinity minus infinity."""


class NotNumeric(Exception):
    """The tree is a set, a matrix, a relation: not a number."""


_local = threading.local()


def context(digits: int = DIGITS) -> Any:
    """An mpmath context with ``digits`` digits, one per thread, because its precision is mutable state."""
    contexts = _local.__dict__.setdefault("contexts", {})
    if digits not in contexts:
        import mpmath

        contexts[digits] = mpmath.MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


_MPMATH = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
_MPMATH |= {name: name for name in ("sin", "cos", "sinh", "cosh", "tanh", "exp", "floor", "ceil")}


def allow(steps: int = MAX_DECISION_STEPS) -> None:
    """Set the number of steps that this thread's next decision may take."""
    _local.steps_left = steps


def exhausted() -> bool:
    """Whether the current decision has used up its steps."""
    return bool(getattr(_local, "steps_left", 1) <= 0)


class Evaluator:
    """Evaluates trees at one point, with one method per kind of node.

    ``point`` maps the names of variables to values, ``sign`` (1 or -1) is the sign that plus-minus stands for, and
    ``log_base`` the base of a bare log (10, or 0 for e).
    """

    def __init__(self, ctx: Any, point: Any, sign: int = 1, log_base: int = 0) -> None:
        self.ctx, self.point, self.sign, self.log_base = ctx, point, sign, log_base
        self.steps = min(MAX_STEPS, getattr(_local, "steps_left", MAX_STEPS))
        self.bound: dict[str, Any] = {}

    def value(self, node: Node) -> Any:
        """The value of a tree. Raises ``Undefined``, ``NotNumeric`` or ``TooLarge`` if it has none."""
        allowed = self.steps
        try:
            result = self._value(node)
        except (ZeroDivisionError, ValueError):
            raise Undefined from None
        except OverflowError:
            raise TooLarge from None
        finally:
            _local.steps_left = getattr(_local, "steps_left", MAX_DECISION_STEPS) - (allowed - self.steps)
        if self.ctx.isnan(result):
            raise Undefined
        return result

    def _value(self, node: Node) -> Any:
        self.steps -= 1
        if self.steps < 0:
            raise TooLarge
        handler = getattr(self, "_" + node[0], None)
        if handler is None:
            raise NotNumeric
        return handler(node)

    # ---- leaves

    def _num(self, node: Node) -> Any:
        value = node[1]
        if value.denominator == 1:
            return self.ctx.mpf(value.numerator)
        return self.ctx.mpf(value.numerator) / value.denominator

    def _sym(self, node: Node) -> Any:
        bound = self.bound.get(node[1])
        return self.point[node[1]] if bound is None else bound

    def _const(self, node: Node) -> Any:
        name = node[1]
        if name in self.bound:  # a sum over i
            return self.bound[name]
        if name == "pi":
            return +self.ctx.pi
        if name == "e":
            return +self.ctx.e
        if name == "i":
            return self.ctx.mpc(0, 1)
        return self.ctx.inf

    # ---- arithmetic

    def _add(self, node: Node) -> Any:
        total = self._value(node[1][0])
        for term in node[1][1:]:
            total = total + self._value(term)
        return total

    def _mul(self, node: Node) -> Any:
        product = self._value(node[1][0])
        for factor in node[1][1:]:
            product = product * self._value(factor)
        return product

    def _neg(self, node: Node) -> Any:
        return -self._value(node[1])

    def _div(self, node: Node) -> Any:
        return self._value(node[1]) / self._value(node[2])

    def _ratio(self, node: Node) -> Any:
        if len(node[1]) > 2:
            raise NotNumeric
        return self._value(node[1][0]) / self._value(node[1][1])

    def _pm(self, node: Node) -> Any:
        return self._value(node[1]) + self.sign * self._value(node[2])

    def _mp(self, node: Node) -> Any:
        return self._value(node[1]) - self.sign * self._value(node[2])

    def _deg(self, node: Node) -> Any:
        return self._value(node[1]) * self.ctx.pi / 180

    def _unit(self, node: Node) -> Any:
        if node[2] != "%":
            raise NotNumeric
        return self._value(node[1]) / 100

    def _pow(self, node: Node) -> Any:
        base, exponent = self._value(node[1]), self._value(node[2])
        return self._power(base, exponent)

    def _power(self, base: Any, exponent: Any) -> Any:
        ctx = self.ctx
        if not (ctx.isfinite(base) and ctx.isfinite(exponent)):
            raise Undefined
        if exponent == 0:
            if base == 0:
                raise Undefined
            return ctx.one
        if base == 0:
            if ctx.re(exponent) < 0:
                raise Undefined
            return ctx.zero
        self._bounded(exponent)
        whole = ctx.isint(exponent)
        if whole and abs(exponent) <= (1 << 60):
            whole_exponent = int(ctx.re(exponent))
            if isinstance(base, ctx.mpf) or abs(whole_exponent) <= 1000:
                if abs(ctx.mag(base)) * abs(whole_exponent) > _MAX_POWER_BITS:
                    raise TooLarge
                return base**whole_exponent
        logarithm = ctx.ln(base) * exponent
        self._bounded(logarithm)
        return ctx.exp(logarithm)

    def _bounded(self, value: Any) -> None:
        """Raise ``TooLarge`` for large values: functions reduce them to a period, which costs time by magnitude."""
        if not self.ctx.isfinite(value):
            raise Undefined
        if value and self.ctx.mag(value) > _MAX_ARGUMENT_BITS:
            raise TooLarge

    def _root(self, node: Node) -> Any:
        degree, value = self._value(node[1]), self._value(node[2])
        ctx = self.ctx
        if degree == 2:
            return ctx.sqrt(value)
        if value == 0:
            return value
        if isinstance(value, ctx.mpf) and value < 0 and self._odd(degree):
            return -self._power(-value, 1 / degree)
        return self._power(value, 1 / degree)

    # ---- functions

    def _fn(self, node: Node) -> Any:
        name = node[1]
        arguments = [self._value(argument) for argument in node[2:]]
        for argument in arguments:
            self._bounded(argument)
        if name == "fact":
            return self._factorial(arguments[0])
        if name == "binom":
            n, k = arguments
            if not self.ctx.isint(k) or abs(k) > 200:
                self._small(n)
                self._small(k)
                return self.ctx.binomial(n, k)
            product, k = self.ctx.one, self.ctx.re(k)
            for j in range(int(k)):
                product = product * (n - j) / (j + 1)
            return product if k >= 0 else self.ctx.zero
        if name in _MPMATH:
            return getattr(self.ctx, _MPMATH[name])(arguments[0])
        return getattr(self, "_f_" + name)(arguments[0])

    def _odd(self, value: Any) -> bool:
        """Whether a number is an odd integer. Of more bits than the precision has, it is even."""
        return bool(self.ctx.isint(value) and self.ctx.mag(value) <= self.ctx.prec and int(self.ctx.re(value)) % 2)

    def _real(self, value: Any) -> Any:
        if self.ctx.im(value) != 0:
            raise Undefined
        return self.ctx.re(value)

    def _small(self, value: Any) -> None:
        if value and self.ctx.mag(value) > 40:
            raise TooLarge

    def _factorial(self, value: Any) -> Any:
        self._small(value)
        return self.ctx.gamma(value + 1)

    def _f_tan(self, x: Any) -> Any:
        return self.ctx.sin(x) / self._away_from_zero(self.ctx.cos(x))

    def _f_cot(self, x: Any) -> Any:
        return self.ctx.cos(x) / self._away_from_zero(self.ctx.sin(x))

    def _f_sec(self, x: Any) -> Any:
        return 1 / self._away_from_zero(self.ctx.cos(x))

    def _f_csc(self, x: Any) -> Any:
        return 1 / self._away_from_zero(self.ctx.sin(x))

    def _away_from_zero(self, x: Any) -> Any:
        if self.ctx.mag(x) < -self.ctx.prec + 8:
            raise Undefined
        return x

    def _f_arccot(self, x: Any) -> Any:
        return self.ctx.pi / 2 - self.ctx.atan(x)

    def _f_ln(self, x: Any) -> Any:
        if x == 0:
            raise Undefined
        return self.ctx.ln(x)

    def _f_log(self, x: Any) -> Any:
        return self._f_ln(x) / (self.ctx.ln(10) if self.log_base == 10 else 1)

    def _f_log10(self, x: Any) -> Any:
        return self._f_ln(x) / self.ctx.ln(10)

    def _f_abs(self, x: Any) -> Any:
        return abs(x)

    def _f_Gamma(self, x: Any) -> Any:
        self._small(x)
        return self.ctx.gamma(x)

    def _app(self, node: Node) -> Any:
        """An unknown function: an arbitrary function of its name and arguments, the same wherever it occurs."""
        seed = zlib.crc32(node[1].encode())
        phase, value = self.ctx.mpf(seed % 1009) / 512 + 1, self.ctx.one
        for at, argument in enumerate(node[2]):
            x = self._value(argument)
            self._bounded(x)
            value = value + self.ctx.sin(x * phase + at) * (at + 2) + x * phase / 3
        return value

    def _sum(self, node: Node) -> Any:
        _, kind, variable, start, end, term = node
        first, last = self._real(self._value(start)), self._real(self._value(end))
        if abs(first) > 10**6 or last - first > MAX_TERMS:
            raise TooLarge
        if not (self.ctx.isint(first) and self.ctx.isint(last)):
            raise Undefined
        if last < first - 1:  # conventions differ: 0, or minus the terms between
            raise Undefined
        outer = self.bound.get(variable)
        total = self.ctx.zero if kind == "sum" else self.ctx.one
        for k in range(int(first), int(last) + 1):
            self.bound[variable] = self.ctx.mpf(k)
            value = self._value(term)
            total = total + value if kind == "sum" else total * value
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
    total = 0
    for column, cell in enumerate(rows[0]):
        minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
        total = total + (-1) ** column * cell * _determinant(minor)
    return total


def constant_value(node: Node, digits: int = DIGITS) -> Any:
    """The value of a tree without variables. Raises ``Undefined``, ``NotNumeric`` or ``TooLarge`` if it has none."""
    if symbols(node):
        raise NotNumeric
    return Evaluator(context(digits), {}).value(node)
