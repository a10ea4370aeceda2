"""Tier 1: exact rational numbers with their units."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from .units import conflicting, read_unit

MAX_DIGITS = 1000
"""Maximum number of digits of an exact number, and largest exponent of scientific notation."""


class Quantity(NamedTuple):
    """A rational number and what follows it: "", "%", "°" or a unit."""

    value: Fraction
    unit: str


_SPACED_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}(?: [0-9]{3})+")
_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_QUANTITY = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?P<money>[€£¥₹]?)\s*(?:\(\s*(?=-?[0-9.\\]+[^()]*\)\Z))?(?P<inner>-?)\s*
    (?:(?P<whole>[0-9]+)\s*(?=\\frac)|(?P<whole2>[0-9]+)\s+(?=[0-9]+\s*/\s*[0-9]+))?
    (?:\\frac\s*(?:\{{\s*(?P<fsign>-?)\s*(?P<num>{_DECIMAL})\s*\}}|(?P<num1>[0-9]))\s*
        (?:\{{\s*(?P<dsign>-?)\s*(?P<den>{_DECIMAL})\s*\}}|(?P<den1>[0-9]))
    |(?P<decimal>{_DECIMAL})
        (?:\s*(?:[eE]|(?:\\times|\\cdot|[*])\s*10\s*\^)\s*(?:\{{\s*(?P<exp>[-+]?\s*[0-9]{{1,5}})\s*\}}|(?P<exp1>[-+]?[0-9]{{1,5}})))?
        (?:\s*/\s*(?P<over>{_DECIMAL}))?)
    \s*\)?\s*(?P<unit>.*)""",
    re.VERBOSE | re.DOTALL,
)


def decimal(text: str) -> Fraction | None:
    """The exact value of a decimal such as ``1,234.50``; None if it is too long."""
    text = text.replace(",", "")
    if len(text) > MAX_DIGITS:
        return None
    return Fraction(text)


@lru_cache(maxsize=8192)
def quantity(tidied: str, letters: bool = False) -> Quantity | None:
    """The value and unit of an answer that is one plain number; None for any other answer.

    ``letters``: a letter behind the number and a space may be a unit, not only a variable.
    """
    if tidied.isdecimal() and tidied.isascii() and len(tidied) <= MAX_DIGITS:
        return Quantity(Fraction(int(tidied)), "")
    if len(tidied) > 3 * MAX_DIGITS:
        return None
    if _SPACED_THOUSANDS.fullmatch(tidied):
        tidied = tidied.replace(" ", "")
    if "°" in tidied and "'" in tidied:
        return _degrees_and_minutes(tidied)
    match = _QUANTITY.fullmatch(tidied)
    if match is None or (match["sign"] and match["inner"]):
        return None
    if tidied.count("(") != tidied.count(")"):
        return None
    value = _value(match)
    if value is None:
        return None
    unit: str | None = ""
    if match["unit"]:
        factor, named = _scale(match["unit"])
        letters = letters and tidied[match.start("unit") - 1].isspace()
        value, unit = value * factor, read_unit(named, letters) if named else ""
    if match["money"]:
        unit = read_unit(match["money"]) if unit == "" else None
    if unit is None:
        return None
    if unit == "" and "," in tidied and "(" in tidied:
        return None  # (1,234) is a pair
    return Quantity(value, unit)


_ARC = re.compile(r"([0-9]{1,4})°\s*([0-5]?[0-9])'(?:\s*([0-5]?[0-9](?:\.[0-9]{1,9})?)'')?")


def _degrees_and_minutes(tidied: str) -> Quantity | None:
    """An angle such as ``12°30'15''``."""
    match = _ARC.fullmatch(tidied)
    if match is None:
        return None
    degrees, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    return Quantity(degrees + minutes / 60 + seconds / 3600, "°")


_SCALE = re.compile(
    r"\s*((?:\\[a-z]+\s*\{)?)\s*(hundred|thousand|million|billion|trillion|万|亿)(?![A-Za-z])\s*", re.IGNORECASE
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "万": 4, "亿": 8}


def _scale(named: str) -> tuple[int, str]:
    """The factor that a word such as "million" is, and what follows it."""
    match = _SCALE.match(named)
    if match is None:
        return 1, named
    rest = match[1] + named[match.end() :]
    return 10 ** _SCALES[match[2].lower()], "" if rest.endswith("{}") else rest


def _value(match: re.Match[str]) -> Fraction | None:
    whole = match["whole"] or match["whole2"]
    negative = (match["sign"] == "-") != (match["inner"] == "-")
    if match["decimal"] is None:
        top = decimal(match["num"] or match["num1"])
        bottom = decimal(match["den"] or match["den1"])
        if top is None or not bottom:
            return None
        value = top / bottom
        if whole:
            if match["fsign"] or match["dsign"] or value >= 1 or value.denominator == 1:
                return None
            if len(whole) > MAX_DIGITS:
                return None
            value += int(whole)
        if (match["fsign"] == "-") != (match["dsign"] == "-"):
            value = -value
        return -value if negative else value
    number = decimal(match["decimal"])
    if number is None:
        return None
    exponent = match["exp"] or match["exp1"]
    if exponent is not None:
        power = int(exponent.replace(" ", ""))
        if abs(power) > MAX_DIGITS:
            return None
        number *= Fraction(10) ** power
    if match["over"]:
        bottom = decimal(match["over"])
        if not bottom:
            return None
        number /= bottom
    if whole:
        if number >= 1 or not match["over"] or len(whole) > MAX_DIGITS:
            return None
        number += int(whole)
    return -number if negative else number


def same_quantity(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities are equal.

    A unit that only one of them names is taken as understood, a percent sign as understood or as 1/100.
    """
    if conflicting(a.unit, b.unit):
        return False
    if a.value == b.value:
        return True
    if a.unit == "%" and b.unit == "":
        return a.value == 100 * b.value
    if b.unit == "%" and a.unit == "":
        return b.value == 100 * a.value
    return False


def quantity_like(tidied: str, other: Quantity) -> Quantity | None:
    """``quantity`` beside a number without variables: ``18.9 m`` has a unit, and ``100N`` if ``other`` is in N."""
    unit = other.unit
    if len(unit) == 1 and unit.isalpha() and tidied.endswith(unit):
        number = quantity(tidied[:-1].rstrip())
        if number is not None and not number.unit:
            return Quantity(number.value, unit)
    return quantity(tidied, letters=True) if tidied[-1:].isalnum() and " " in tidied else None
