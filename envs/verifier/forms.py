"""Whether a right answer is written in the form that was asked for. Applied after a ``correct`` verdict.

A form sees the answer and the reference as written, and the reference shows how far one can go: an answer is factored
if it has as many factors as a reference that is. So the references must be in the form themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import gcd
from typing import Any

from ..verdict import Verdict
from .parse import Node, TooLarge, Unreadable, parse
from .polynomial import MAX_DEGREE, NotAPolynomial, Polynomial, constant, polynomial
from .tidy import tidy

Form = Callable[[str, str], bool]
"""From an answer and its reference, as written, to whether the answer is in the form."""

MAX_RADICAND, MAX_INDEX = 10**12, 40
"""Largest number under a root, and largest index of a root, that count as simplified."""


def decimal_places(n: int) -> Form:
    """The form of one decimal number with exactly ``n`` decimals, with or without a unit. Raises ValueError for ``n``
    below 0.
    """
    if n < 0:
        raise ValueError(f"a number of decimal places is 0 or more, not {n}")
    decimals = rf"\.[0-9]{{{n}}}" if n else ""
    written = re.compile(rf"(?:[A-Za-z]\s*=\s*)?[-+]?[0-9]+(?:,[0-9]{{3}})*{decimals}(?![0-9.,^/!_])[^0-9]*")

    def form(answer: str, reference: str) -> bool:
        return written.fullmatch(tidy(answer)) is not None

    form.__name__ = f"{n} decimal places"
    return form


def form_of(form: str | Form) -> tuple[str, Form]:
    """The name of a form and the form, which may be given by its name. Raises ValueError for an unknown one."""
    if not isinstance(form, str):
        return getattr(form, "__name__", type(form).__name__), form
    places = re.fullmatch(r"([0-9]{1,2}) decimal places?", form)
    if places:
        return form, decimal_places(int(places[1]))
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; known: {', '.join(FORMS)}, '2 decimal places', or a function")
    return form, FORMS[form]


def in_form(verdicts: Iterable[Verdict], form: str | Form) -> list[Verdict]:
    """``verdicts``, of which those that are correct in another form are incorrect, with the form as their reason."""
    name, has_form = form_of(form)
    return [
        replace(verdict, status="incorrect", reason=f"form: {name}")
        if verdict.correct and not has_form(verdict.answer or "", verdict.reference or "")
        else verdict
        for verdict in verdicts
    ]


def _of_trees(holds: Callable[[Node, Node], bool]) -> Form:
    """A form from a question about the trees of answer and reference; what cannot be read is in no form."""

    def form(answer: str, reference: str) -> bool:
        try:
            return holds(_value(answer), _value(reference))
        except (Unreadable, TooLarge, NotAPolynomial, RecursionError):
            return False

    return form


def _value(text: str) -> Node:
    """The tree of an answer, without the name in ``y = ...`` and without a unit."""
    node = parse(tidy(text))
    if node[0] == "rel" and set(node[2]) == {"="}:
        node = node[1][-1]
    return node[1] if node[0] == "unit" else node


def _nodes(node: Any) -> Iterator[Node]:
    """All nodes of a tree."""
    if isinstance(node, tuple) and node:
        if isinstance(node[0], str):
            yield node
        for child in node:
            yield from _nodes(child)


# ---- polynomials


def _factors(node: Node, times: int = 1) -> list[tuple[Polynomial, int]]:
    """The factors of a product as written, and how often each occurs. Raises NotAPolynomial."""
    kind = node[0]
    if kind == "mul":
        return [factor for child in node[1] for factor in _factors(child, times)]
    if kind == "neg":
        return _factors(node[1], times)
    if kind == "pow" and (exponent := constant(node[2])) is not None and exponent in range(1, MAX_DEGREE + 1):
        return _factors(node[1], times * int(exponent))
    if kind == "div" and constant(node[2]):
        return [*_factors(node[1], times), (polynomial(node[2]), times)]
    return [(polynomial(node), times)]


def _factored(answer: Node, reference: Node) -> bool:
    """As many factors as the reference. What divides all terms of a factor must be a factor of its own."""
    own, known = _factors(answer), _factors(reference)
    if any(len(factor) > 1 and _divisor(factor.values()) > 1 for factor, _ in own):
        return False
    counts = [sum(times for factor, times in factors if any(factor)) for factors in (own, known)]  # without numbers
    return counts[0] >= counts[1]


def _divisor(values: Iterable[Fraction]) -> int:
    """The largest number that divides all ``values``; 0 if they are not integers."""
    values = list(values)
    return gcd(*map(int, values)) if all(value.denominator == 1 for value in values) else 0


def _expanded(answer: Node, reference: Node) -> bool:
    """A sum of terms without brackets, no two of which can be put together."""
    terms = _terms(answer)
    if any(part[0] == "add" for term in terms for part in _nodes(term)):
        return False
    return len(polynomial(answer)) == len(terms) and all(_one_number(term) for term in terms)


def _terms(node: Node) -> Sequence[Node]:
    return node[1] if node[0] == "add" else (node,)


def _one_number(term: Node) -> bool:
    """Whether a product has one number at most: ``6x``, not ``2*3x``; and each letter once: ``x^2``, not ``xx``."""
    for node in _nodes(term):
        if node[0] == "mul":
            bases = [factor[1] if factor[0] == "pow" else factor for factor in node[1]]
            if sum(constant(base) is not None for base in bases) > 1 or len(set(bases)) < len(bases):
                return False
    return True


# ---- numbers

_FRACTION = re.compile(
    r"(?<![0-9.])([0-9]+)\s*/\s*([0-9]+)(?![0-9.])|\\frac\s*\{\s*-?([0-9]+)\s*\}\s*\{\s*-?([0-9]+)\s*\}"
)


def _lowest_terms(answer: str, reference: str) -> bool:
    """No fraction, also in a mixed number, can be reduced by a number; nothing is written as a decimal."""
    if not _of_trees(lambda own, known: _reduced(own))(answer, reference):
        return False
    given = tidy(answer)
    pairs = [(int(m[1] or m[3]), int(m[2] or m[4])) for m in _FRACTION.finditer(given)]  # mixed numbers have no tree
    return "." not in given and all(bottom > 1 and gcd(top, bottom) == 1 for top, bottom in pairs)


def _reduced(node: Node) -> bool:
    """Whether no number divides the numerator and the denominator of a fraction."""
    for part in _nodes(node):
        if part[0] == "div":
            values = [value for side in part[1:] for value in polynomial(side).values()]
            if _divisor(values) != 1 or constant(part[2]) in (1, -1):
                return False
    return True


def _simplified_radical(answer: Node, reference: Node) -> bool:
    """Roots of whole numbers without a power as a factor, none in a denominator, one in each term, like terms put
    together, fractions reduced.
    """
    roots = frozenset(("root",))
    for node in _nodes(answer):
        if node[0] == "root" and not _is_simple_root(node):
            return False
        if node[0] == "div" and any(part[0] in roots for part in _nodes(node[2])):
            return False
        if node[0] == "pow" and (exponent := constant(node[2])) is not None and exponent.denominator != 1:
            return False
        if node[0] == "mul" and sum(factor[0] in roots for factor in node[1]) > 1:
            return False
    top = answer[1] if answer[0] == "div" else answer
    terms = _terms(top[1] if top[0] == "neg" else top)
    return _reduced(answer) and len(polynomial(top)) == len(terms) and all(map(_one_number, terms))


def _is_simple_root(node: Node) -> bool:
    index, radicand = constant(node[1]), constant(node[2])
    if radicand is None:  # the root of a sum with a root, or of a formula
        return bool(node[2][0] != "div")
    if index is None or index not in range(2, MAX_INDEX + 1) or radicand.denominator != 1:
        return False
    if not 1 < abs(radicand) <= MAX_RADICAND:
        return False
    return _power_free(abs(int(radicand)), int(index))


def _power_free(number: int, index: int) -> bool:
    """Whether no ``index``-th power except 1 divides ``number``."""
    factor = 2
    while factor ** (index + 1) <= number:
        if number % factor**index == 0:
            return False
        while number % factor == 0:
            number //= factor
        factor += 1
    root = round(number ** (1 / index))  # with no small prime left, only the whole can be a power
    return number == 1 or all(candidate**index != number for candidate in (root - 1, root, root + 1))


def _prime_factorization(answer: Node, reference: Node) -> bool:
    """A product of primes and of powers of primes."""
    factors = answer[1] if answer[0] == "mul" else (answer,)
    for factor in factors:
        base, exponent = (factor[1], constant(factor[2])) if factor[0] == "pow" else (factor, Fraction(1))
        if base[0] != "num" or exponent is None or exponent.denominator != 1 or exponent < 1:
            return False
        if base[1].denominator != 1 or not _prime(int(base[1])):
            return False
    return True


_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def _prime(number: int) -> bool:
    """Miller and Rabin's test, which is proven for these witnesses below 3.3e24 (Sorenson and Webster 2015)."""
    if number < 2 or any(number % prime == 0 for prime in _WITNESSES):
        return number in _WITNESSES
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in _WITNESSES:
        power = pow(witness, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


FORMS: dict[str, Form] = {
    "factored": _of_trees(_factored),
    "expanded": _of_trees(_expanded),
    "lowest terms": _lowest_terms,
    "simplified radical": _of_trees(_simplified_radical),
    "prime factorization": _of_trees(_prime_factorization),
}
"""Forms by name; a number of decimal places is named ``"2 decimal places"``."""
