r"""Tier 1: units of measurement after a number."""

from __future__ import annotations

import re

_UNIT_FONT = r"\\(?:text|mathrm|mbox|textnormal|textrm|textbf|textit|mathbf|mathit|mathsf)"
_UNIT_WORD = rf"(?:{_UNIT_FONT}\s*\{{(?P<t>[^{{}}]*)\}}|(?P<w>[A-Za-z]+\.?))"
_TEXT = re.compile(_UNIT_FONT + r"\s*\{\s*([^{}]*?)\s*\}")
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
    "e i or and if when unless otherwise else not except where for but than more less least most only both either "
)
"""Words that say more about a number than what it counts."""
_OTHER_NUMBERS = _set(
    "squared cubed half third fourth halves thirds fourths fifths sixths sevenths eighths ninths tenths hundredths "
    "thousandths below hundred thousand million billion trillion hundreds thousands millions billions trillions"
)
"""Words that make a number another number."""
_COUNTERS = frozenset("个人只本种次名棵张条件辆支枝块头间天年月页岁倍根颗粒位组套台双元角分秒米克升时斤度")
_CHINESE = {
    **{
        "元": "¥",
        "米": "m",
        "厘米": "cm",
        "毫米": "mm",
        "分米": "dm",
        "千米": "km",
        "公里": "km",
        "克": "g",
        "千克": "kg",
    },
    **{
        "公斤": "kg",
        "秒": "s",
        "分钟": "min",
        "小时": "h",
        "时": "h",
        "天": "day",
        "年": "year",
        "升": "L",
        "毫升": "mL",
    },
    **{"平方厘米": "cm^2", "平方米": "m^2", "平方分米": "dm^2", "平方千米": "km^2"},
    **{"立方厘米": "cm^3", "立方米": "m^3", "立方分米": "dm^3", "度": "°", "米/秒": "m/s", "千米/时": "km/h"},
}
_MONEY = {"¥": "¥", "€": "€", "£": "£", "₹": "₹", "¢": "cent"}


def read_unit(text: str, letters: bool = False) -> str | None:
    """The unit that ``text`` names, in one spelling; None if it is not a unit.

    ``letters``: a bare letter may be one, as in ``9.8 m/s^2``.
    """
    bare = not text.startswith("\\")
    text = text.strip()
    if text in ("%", "°"):
        return text
    if not text.isascii():
        name = text if bare else _TEXT.sub(r"\1", text).strip()
        return _MONEY.get(name) or _CHINESE.get(name) or (name if name in _COUNTERS else None)
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
            short = word in SHORT_UNITS or (letters and word in _MEASURES and word not in _AMBIGUOUS)
            if word in NO_UNITS or word in _OTHER_NUMBERS or not (short or (len(word) > 2 and spaced)):
                return None
        elif len(word) == 1 and word not in _LETTERS:
            return None  # \mathrm{x}
        elif not word.translate(_IN_UNITS).isalpha() or (_NOT_IN_UNITS | _OTHER_NUMBERS).intersection(word.split()):
            return None
        unit += ("/" if part["per"] == "/" else " " if unit else "") + word + ("^" + part["p"] if part["p"] else "")
        at = part.end()
        words += 1
        if words > 6:
            return None
    return _one_spelling(unit)


_SPELLINGS = {
    **{"degree": "°", "percent": "%", "deg": "°", "pct": "%", "percentage": "%"},
    **{"am": "am", "a.m": "am", "pm": "pm", "p.m": "pm"},
}


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
    "mol mole, M molar, T ton, eV, cent, dollar, euro €, ¥ yuan yen, £, ₹ rupee, %, °, rad radian, am, pm"
)
_LETTERS = frozenset("mgshNJLlWVAKMTCFtdHBbc")
"""Units of one letter: other letters in a font after a number are variables."""
_AMBIGUOUS = frozenset("KMT")
"""Units of one letter that also stand for thousands, millions and so on."""
_MEASURES = {alias: names.split()[0] for names in _MEASURE_NAMES.split(",") for alias in names.split()}
_UNIT_FACTOR = re.compile(
    r"(?P<per>/|\bper )?\s*(?P<power>square |cubic |sq )?(?P<name>[A-Za-z%°€¥£₹]+)(?:\^(?P<exponent>-?[0-9]))?"
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
