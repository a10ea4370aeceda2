r"""Tier 1: answers as strings, exact rationals, choices and words. No sympy, no mpmath, no recursion.

``tidy`` writes the same answer in fewer ways (``\dfrac`` is ``\frac``, a full-width digit is a digit); everything that
compares answers reads what it returns.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MAX_DIGITS = 1000
"""Digits of a number that is read exactly; exponents of scientific notation go up to the same."""

# ---- writing an answer in one way

_UNICODE = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑﹣－", "-"),
        **dict.fromkeys("​‌‍﻿⁠", ""),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "),
        **{"×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "/", "⁄": "/", "∕": "/"},
        **{"π": "\\pi ", "∞": "\\infty ", "√": "\\sqrt ", "°": "\\circ ", "º": "\\circ ", "∪": "\\cup ", "∩": "\\cap "},
        **{"≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "±": "\\pm ", "∈": "\\in ", "∅": "\\emptyset "},
        **{
            "⩽": "\\le ",
            "⩾": "\\ge ",
            "ℝ": "\\mathbb{R}",
            "，": ",",
            "；": ";",
            "：": ":",
            "。": ".",
            "’": "'",
            "′": "'",
        },
        **{"（": "(", "）": ")", "【": "[", "】": "]", "、": ",", "“": '"', "”": '"', "％": "%", "…": "\\ldots "},
        **{"½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}"},
        **{"⅕": "\\frac{1}{5}", "⅖": "\\frac{2}{5}", "⅗": "\\frac{3}{5}", "⅘": "\\frac{4}{5}", "⅙": "\\frac{1}{6}"},
        **{"⅚": "\\frac{5}{6}", "⅛": "\\frac{1}{8}", "⅜": "\\frac{3}{8}", "⅝": "\\frac{5}{8}", "⅞": "\\frac{7}{8}"},
        **{"α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "θ": "\\theta ", "λ": "\\lambda ", "μ": "\\mu "},
        **{"σ": "\\sigma ", "φ": "\\phi ", "ω": "\\omega ", "Δ": "\\Delta ", "ρ": "\\rho ", "τ": "\\tau "},
    }
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")

_SPACING = re.compile(
    r"\\\\|(?:\\left|\\right)\s*\.|\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|nolimits)(?![A-Za-z])|"
    r"\\[,;:! \n]|\\q?quad|~|\\\$|\\%|\\[dtc]frac(?![A-Za-z])|\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|"
    r"\\(?:degree|circ)(?![A-Za-z])|\\l(?:vert|brace)(?![A-Za-z])|\\r(?:vert|brace)(?![A-Za-z])"
)
_SPACING_MEANS = {"\\\\": "\\\\", "\\!": "", "\\$": "", "\\%": "%", "\\degree": "°", "\\circ": "°"}
_MARKED_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\}|\{,\\!\}|\\,|\\!,)\s*(?=\d{3}(?!\d))")
_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|operatorname|boxed)\s*\{"
)
_SQUEEZE = re.compile(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])|(?<=[0-9])\s+(?=[0-9])|\s+")
_BRACED_CHARACTER = re.compile(r"(?<!\\)([\^_])\s*\{\s*([A-Za-z0-9])\s*\}")


def _space(match: re.Match[str]) -> str:
    found = match.group()
    if found in _SPACING_MEANS:
        return _SPACING_MEANS[found]
    if found.endswith("frac"):
        return "\\frac"
    if found[0] == "^":
        return "°"
    if found.endswith("brace"):
        return "\\{" if found[1] == "l" else "\\}"
    if found.endswith("vert"):
        return "|"
    return " "


def fold_unicode(text: str) -> str:
    """The same text in ASCII and LaTeX where that is known. Digits of other scripts are left as they are."""
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = text.translate(_UNICODE)
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFKC", c) if "\uff01" <= c <= "\uff5e" else c for c in text)


@lru_cache(maxsize=8192)
def tidy(answer: str) -> str:
    """``answer`` without spacing commands, delimiters, size commands, fonts around the whole and a final full stop."""
    if not answer.isascii():
        answer = fold_unicode(answer)
    if "\\" in answer or "~" in answer or "{,}" in answer:
        answer = _MARKED_THOUSANDS.sub("", answer)
        answer = _SPACING.sub(_space, answer)
    answer = answer.replace("$", "").replace("**", "^") if "**" in answer.strip("*") else answer.replace("$", "")
    while True:
        before = answer
        answer = answer.strip(" \t\r\n*")
        if answer[-1:] in ".,;:" and not answer.endswith("\\,"):
            answer = answer[:-1]
        font = _FONT.match(answer)
        if font and _closes_last(answer, font.end() - 1):
            answer = answer[font.end() : -1]
        elif answer[:1] == "{" and _closes_last(answer, 0):
            answer = answer[1:-1]
        if answer == before:
            return answer


def _closes_last(text: str, opening: int) -> bool:
    """Is the brace at ``opening`` closed by the last character and by no earlier one?"""
    if not text.endswith("}") or text.endswith("\\}"):
        return False
    depth = 0
    for at in range(opening, len(text)):
        character = text[at]
        if character in "{}" and text[at - 1] != "\\":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return at == len(text) - 1
    return False


def squeeze(tidied: str) -> str:
    """Without the spaces and braces that mean nothing: equal strings are equal answers."""
    tidied = _BRACED_CHARACTER.sub(r"\1\2", tidied)
    return _SQUEEZE.sub(
        lambda m: m.group(1) + " " if m.group(1) else (" " if m.group().isspace() and _both(m) else ""), tidied
    )


def _both(match: re.Match[str]) -> bool:
    text, start, end = match.string, match.start(), match.end()
    return start > 0 and end < len(text) and text[start - 1].isdigit() and text[end].isdigit()


# ---- exact numbers


class Quantity(NamedTuple):
    """A rational number and what stands behind it: "", "%", "°" or a unit."""

    value: Fraction
    unit: str


_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_QUANTITY = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?:\(\s*(?=-?[0-9.\\]+[^()]*\)\Z))?(?P<inner>-?)\s*
    (?:(?P<whole>[0-9]+)\s*(?=\\frac)|(?P<whole2>[0-9]+)\s+(?=[0-9]+\s*/\s*[0-9]+))?
    (?:\\frac\s*(?:\{{\s*(?P<fsign>-?)\s*(?P<num>{_DECIMAL})\s*\}}|(?P<num1>[0-9]))\s*
        (?:\{{\s*(?P<dsign>-?)\s*(?P<den>{_DECIMAL})\s*\}}|(?P<den1>[0-9]))
    |(?P<decimal>{_DECIMAL})
        (?:\s*(?:[eE]|(?:\\times|\\cdot|[*])\s*10\s*\^)\s*(?:\{{\s*(?P<exp>[-+]?\s*[0-9]{{1,5}})\s*\}}|(?P<exp1>[-+]?[0-9]{{1,5}})))?
        (?:\s*/\s*(?P<over>{_DECIMAL}))?)
    \s*\)?\s*(?P<unit>.*)""",
    re.VERBOSE | re.DOTALL,
)
_UNIT_WORD = r"(?:\\(?:text|mathrm|mbox|textnormal|textrm|operatorname|textbf|mathbf)\s*\{(?P<t>[^{}]*)\}|(?P<w>[A-Za-z]{2,}\.?))"
_UNIT_PART = re.compile(rf"\s*(?P<per>/|\\cdot|\*)?\s*{_UNIT_WORD}(?:\s*\^\s*\{{?\s*(?P<p>-?[0-9])\s*\}}?)?")
_NO_UNITS = frozenset("sin cos tan cot sec csc ln log exp sqrt pi inf nan oo zoo and or mod if not".split())
SHORT_UNITS = frozenset(
    "mm cm dm km nm mi ft in yd yds lb lbs oz kg mg ml mL dl dL cl ms us ns min hr hrs sec Hz kHz MHz GHz Pa kPa MPa kJ MJ "
    "kW MW mW eV keV MeV GeV kV mV mA mol mph kph rad deg AU pc ly pm am".split()
)


def decimal(text: str) -> Fraction | None:
    """``1,234.50`` exactly, None if it is too long."""
    text = text.replace(",", "")
    if len(text) > MAX_DIGITS:
        return None
    return Fraction(text)


@lru_cache(maxsize=8192)
def quantity(tidied: str) -> Quantity | None:
    """The number an answer is, with its unit; None if it is anything else than one plain number."""
    if tidied.isdecimal() and tidied.isascii() and len(tidied) <= MAX_DIGITS:
        return Quantity(Fraction(int(tidied)), "")
    if len(tidied) > 3 * MAX_DIGITS:
        return None
    match = _QUANTITY.fullmatch(tidied)
    if match is None or (match["sign"] and match["inner"]):
        return None
    if tidied.count("(") != tidied.count(")"):
        return None
    unit = read_unit(match["unit"]) if match["unit"] else ""
    value = _value(match)
    if unit is None or value is None:
        return None
    if unit == "" and "," in tidied and "(" in tidied:
        return None  # (1,234) is a pair
    return Quantity(value, unit)


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


def read_unit(text: str) -> str | None:
    """The unit ``text`` names, in one spelling; None if ``text`` is not a unit."""
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
            if word in _NO_UNITS or (word not in SHORT_UNITS and (len(word) < 3 or not spaced)):
                return None
        elif not word.replace(" ", "").replace("/", "").replace("^", "").replace("-", "").replace("2", "").replace(
            "3", ""
        ).replace(".", "").isalpha() or word in ("e", "i", "or", "and"):
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


_MEASURES = {
    alias: names.split()[0]
    for names in (
        "m meter metre", "cm centimeter centimetre", "mm millimeter millimetre", "km kilometer kilometre", "dm decimeter",
        "in inch inche", "ft foot feet", "yd yard yds", "mi mile", "g gram", "kg kilogram", "mg milligram", "lb pound lbs",
        "oz ounce", "s second sec", "min minute", "h hour hr hrs", "day", "week", "month", "year", "L liter litre l",
        "mL milliliter millilitre ml", "N newton", "J joule", "kJ kilojoule", "W watt", "kW", "V volt", "A ampere", "Pa", "kPa",
        "K kelvin", "Hz hertz", "mol mole", "M molar", "T ton", "eV", "cent", "dollar", "euro", "%", "°", "rad radian",
    )
    for alias in names.split()
}  # fmt: skip
_UNIT_FACTOR = re.compile(
    r"(?P<per>/|\bper )?\s*(?P<power>square |cubic |sq )?(?P<name>[A-Za-z%°]+)(?:\^(?P<exponent>-?[0-9]))?"
)


def _dimensions(unit: str) -> dict[str, int] | None:
    """A unit as powers of known measures, None if a word in it is none."""
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
    """Do two units contradict each other? One that is missing, or not known as a measure, contradicts none."""
    if a == b or not a or not b:
        return False
    left, right = _dimensions(a), _dimensions(b)
    return left is not None and right is not None and left != right


def same_quantity(a: Quantity, b: Quantity) -> bool:
    """Are two quantities equal? A unit that only one of them names is taken as understood, a percent sign as either
    understood or a hundredth."""
    if conflicting(a.unit, b.unit):
        return False
    if a.value == b.value:
        return True
    if a.unit == "%" and b.unit == "":
        return a.value == 100 * b.value
    if b.unit == "%" and a.unit == "":
        return b.value == 100 * a.value
    return False


def quantity_like(tidied: str, unit: str) -> Quantity | None:
    """``quantity`` where one bare letter is a unit because the other answer names it: ``100 N`` beside ``100 \\mathrm{N}``."""
    if len(unit) == 1 and unit.isalpha() and tidied.endswith(unit):
        number = quantity(tidied[:-1].rstrip())
        if number is not None and not number.unit:
            return Quantity(number.value, unit)
    return None


# ---- choices and words

_CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?\s*\.?")
_LABELLED_CHOICE = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[.):])\s*\S.*", re.DOTALL)
_FONT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)(?![A-Za-z])\s*")
_WORDS = re.compile(r"[A-Za-z][A-Za-z'\-]*(?:[\s,.\-:']+[A-Za-z0-9'\-.]+)*[.!?]?")
_LONG_WORD = re.compile(r"[A-Za-z]{3,}")


def choice(tidied: str) -> str | None:
    """The letter of a multiple choice answer: ``C``, ``(C)``, ``C.``, ``(C) 42``."""
    if len(tidied) > 1 and "\\" in tidied:
        tidied = _plain(tidied)
    match = _CHOICE.fullmatch(tidied)
    if match:
        return match[1]
    match = _LABELLED_CHOICE.fullmatch(tidied)
    return (match[1] or match[2]) if match else None


def _plain(tidied: str) -> str:
    return _FONT_COMMAND.sub("", tidied).replace("{", "").replace("}", "").strip()


def words(tidied: str) -> str | None:
    """The words of an answer in prose, lower case, without punctuation; None if it is no prose."""
    plain = _plain(tidied)
    if len(plain) > 2000 or "\\" in plain or "=" in plain or _WORDS.fullmatch(plain) is None:
        return None
    long_words = _LONG_WORD.findall(plain)
    if not [word for word in long_words if word not in _NO_UNITS and not (word.isupper() and " " not in plain)]:
        return plain.lower() if plain.lower() in ("no", "up") else None
    return re.sub(r"[\s,.:!?\-']+", " ", plain.lower()).strip()


_LABEL = re.compile(r"[A-Za-z0-9\s.,:;'!?()\-/&]*[A-Za-z][A-Za-z0-9\s.,:;'!?()\-/&]*")


def label(tidied: str) -> str | None:
    """An answer of words, figures and punctuation, e.g. ``4:30 p.m.``, in one spelling; None if there is mathematics in it."""
    plain = _plain(tidied)
    if len(plain) > 2000 or _LABEL.fullmatch(plain) is None:
        return None
    return re.sub(r"(?<=[a-z])\.|\.(?=[a-z])|[\s,;!?]+", "", plain.lower()).strip(".:")
