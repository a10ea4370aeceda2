"""Exact polynomials of trees, with roots and functions in the place of variables."""

from __future__ import annotations

from fractions import Fraction

from .parse import Node

MAX_TERMS = 200
MAX_DEGREE = 60
MAX_STEPS = 2_000
"""Most products of terms in one multiplication."""
MAX_BITS = 2_048
"""Most bits of a numerator or a denominator."""

Monomial = frozenset[tuple[Node, int]]
"""The variables of a term with their exponents; empty for a constant."""
Polynomial = dict[Monomial, Fraction]
"""The coefficients, none of them 0."""

_UNIT: Monomial = frozenset()
_ONE: Polynomial = {_UNIT: Fraction(1)}
_VARIABLES = ("sym", "const", "root", "fn", "app")


class NotAPolynomial(Exception):
    """The tree divides by a variable, has one in an exponent, or is larger than the bounds."""


def polynomial(node: Node) -> Polynomial:
    """The polynomial that a tree is. Raises ``NotAPolynomial``."""
    kind = node[0]
    if kind == "num":
        return {_UNIT: node[1]} if node[1] else {}
    if kind in _VARIABLES:
        return {frozenset(((node, 1),)): Fraction(1)}
    if kind == "neg":
        return _times({_UNIT: Fraction(-1)}, polynomial(node[1]))
    if kind == "add":
        total: Polynomial = {}
        for term in node[1]:
            for monomial, value in polynomial(term).items():
                total[monomial] = total.get(monomial, Fraction(0)) + value
        return {monomial: value for monomial, value in total.items() if value}
    if kind == "mul":
        product = _ONE
        for factor in node[1]:
            product = _times(product, polynomial(factor))
        return product
    if kind == "pow":
        exponent = constant(node[2])
        if exponent is None or exponent.denominator != 1 or not 0 <= exponent <= MAX_DEGREE:
            raise NotAPolynomial
        base, power = polynomial(node[1]), _ONE
        for _ in range(int(exponent)):
            power = _times(power, base)
        return power
    if kind == "div":
        divisor = constant(node[2])
        if not divisor:
            raise NotAPolynomial
        return _times({_UNIT: 1 / divisor}, polynomial(node[1]))
    raise NotAPolynomial


def constant(node: Node) -> Fraction | None:
    """The value of a number, also of a negative one or a fraction; None for anything else."""
    if node[0] == "num":
        return Fraction(node[1])
    if node[0] == "neg":
        value = constant(node[1])
        return None if value is None else -value
    if node[0] == "div":
        top, bottom = constant(node[1]), constant(node[2])
        return top / bottom if top is not None and bottom else None
    return None


def _times(a: Polynomial, b: Polynomial) -> Polynomial:
    if len(a) * len(b) > MAX_STEPS or _degree(a) + _degree(b) > MAX_DEGREE:
        raise NotAPolynomial
    total: Polynomial = {}
    for left, x in a.items():
        for right, y in b.items():
            exponents = dict(left)
            for variable, exponent in right:
                exponents[variable] = exponents.get(variable, 0) + exponent
            monomial = frozenset(exponents.items())
            total[monomial] = total.get(monomial, Fraction(0)) + x * y
    if len(total) > MAX_TERMS or any((abs(v.numerator) | v.denominator) >> MAX_BITS for v in total.values()):
        raise NotAPolynomial
    return {monomial: value for monomial, value in total.items() if value}


def _degree(polynomial: Polynomial) -> int:
    return max((sum(exponent for _, exponent in monomial) for monomial in polynomial), default=0)
