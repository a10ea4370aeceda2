r"""Tier 1: units of measurement after a number."""

from __future__ import annotations

import re

_UNIT_FONT = r"\\(?:text|mathrm|mbox|textnormal|textrm)"
_UNIT_WORD = rf"(?:{_UNIT_FONT}\s*\{{(?P<t>[^{{}}]*)\}}|(?P<w>[A-Za-z]{{2,}}\.?))"
_UNIT_PART = re.compile(rf"\s*(?P<per>/|\\cdot|\*)?\s*{_UNIT_WORD}(?:\s*\^\s*\{{?\s*(?P<p>-?[0-9])\s*\}}?)?")


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


NO_UNITS = _set("sin cos tan cot sec csc ln log exp sqrt pi inf nan oo zoo and or mod if not")
"""Words after a number that are not units."""
SHORT_UNITS = _set(
    "mm cm dm km nm mi ft in yd yds lb lbs oz kg mg ml mL dl dL cl ms us ns min hr hrs sec Hz kHz MHz GHz Pa kPa MPa "
    "kJ MJ kW MW mW eV keV MeV GeV kV mV mA mol mph kph rad deg AU pc ly pm am"
)
"""Short units that need no space before them."""


_IN_UNITS = str.maketrans("", "", " /^-23.()")
_NOT_IN_UNITS = _set(
    "e i or and if when unless otherwise else not except where for but than more less least most only both either"
)


def read_unit(text: str) -> str | None:
    """The unit that ``text`` names, in one spelling; None if it is not a unit."""
    text = text.strip()
    if text in ("%", "°"):
        return text
    if text[:1] == "°" and text[1:].strip() in ("C", "F", "\\mathrm{C}", "\\mathrm{F}", "\\text{C}", "\\text{F}"):
        return "°"
    unit, at, words = "", 0, 0
    while at < len(text):
        part = _UNIT_PART.match(text, at)
        if part is None or part.end() == at:
            return None
        word = part["t"] if part["t"] is not None else part["w"]
        word = " ".join(word.replace("~", " ").split()).strip(" .")
        if part["t"] is None:  # bare letters are a unit only if they cannot be a product of variables
            spaced = text[at : at + 1].isspace() or at == 0 or bool(part["per"])
            if word in NO_UNITS or (word not in SHORT_UNITS and (len(word) < 3 or not spaced)):
                return None
        elif not word.translate(_IN_UNITS).isalpha() or _NOT_IN_UNITS.intersection(word.split()):
            return None
        unit += ("/" if part["per"] == "/" else " " if unit else "") + word + ("^" + part["p"] if part["p"] else "")
        at = part.end()
        words += 1
        if words > 6:
            return None
    return _one_spelling(unit)


_SPELLINGS = {"degree": "°", "percent": "%", "deg": "°", "pct": "%", "percentage": "%"}


def _one_spelling(unit: str) -> str:
    unit = unit.strip()
    if len(unit) > 3 and unit.endswith("s") and not unit.endswith("ss"):
        unit = unit[:-1]
    return _SPELLINGS.get(unit.lower(), unit)


_MEASURE_NAMES = (
    "m meter metre, cm centimeter centimetre, mm millimeter millimetre, km kilometer kilometre, dm decimeter, "
    "in inch inche, ft foot feet, yd yard yds, mi mile, g gram, kg kilogram, mg milligram, lb pound lbs, oz ounce, "
    "s second sec, min minute, h hour hr hrs, day, week, month, year, L liter litre l, mL milliliter millilitre ml, "
    "N newton, J joule, kJ kilojoule, W watt, kW kilowatt, V volt, A ampere, Pa pascal, kPa, K kelvin, Hz hertz, "
    "mol mole, M molar, T ton, eV, cent, dollar, euro, %, °, rad radian"
)
_MEASURES = {alias: names.split()[0] for names in _MEASURE_NAMES.split(",") for alias in names.split()}
_UNIT_FACTOR = re.compile(
    r"(?P<per>/|\bper )?\s*(?P<power>square |cubic |sq )?(?P<name>[A-Za-z%°]+)(?:\^(?P<exponent>-?[0-9]))?"
)


def _dimensions(unit: str) -> dict[str, int] | None:
    """A unit as powers of known measures; None if one of its words is unknown."""
    powers: dict[str, int] = {}
    sign = 1
    for factor in _UNIT_FACTOR.finditer(unit):
        name = factor["name"]
        measure = _MEASURES.get(name) or _MEASURES.get(name.lower().removesuffix("s"))
        if measure is None:
            return None
        sign = -1 if factor["per"] else sign
        power = {"square ": 2, "sq ": 2, "cubic ": 3}.get(factor["power"] or "", 1) * int(factor["exponent"] or 1)
        powers[measure] = powers.get(measure, 0) + sign * power
    return powers


def conflicting(a: str, b: str) -> bool:
    """Whether two units contradict each other. A missing or unknown unit contradicts none."""
    if a == b or not a or not b:
        return False
    left, right = _dimensions(a), _dimensions(b)
    return left is not None and right is not None and left != right
