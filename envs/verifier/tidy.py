r"""Tier 1: reduces the ways in which an answer can be written.

``\dfrac`` becomes ``\frac``, a full-width digit a digit, ``\left(`` a parenthesis. Everything that compares answers
gets what ``tidy`` returns.
"""

# ruff: noqa: RUF001 (the look-alikes of a minus sign and a quote are what this file is about)

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_WRAPPERS = 12
"""Maximum number of braces and fonts around an answer that are removed."""

_THEREFORE = re.compile(r"\\(?:Rightarrow|Longrightarrow|implies|therefore)(?![A-Za-z])")
_SPACES = re.compile(r"\s+")
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
        **{"或": " or ", "且": " and ", "和": " and ", "与": " and ", "及": " and ", "″": "''", "≡": "\\equiv "},
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
    r"\\[,;:! \n()\[\]]|\\q?quad|~|\\\$|\\%|\\(?:[dtcs]|nice)frac(?![A-Za-z])|"
    r"\\(?:tag|label|hspace|phantom)\*?\{[^{}]*\}|"
    r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|"
    r"\\(?:degree|circ)(?![A-Za-z])|\\l(?:vert|brace)(?![A-Za-z])|\\r(?:vert|brace)(?![A-Za-z])"
)
_SPACING_MEANS = {"\\\\": "\\\\", "\\!": "", "\\$": "", "\\%": "%", "\\degree": "°", "\\circ": "°"}
_MARKED_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\}|\{,\\!\}|\\,|\\!,)(?:\s|\\[,;:!])*(?=\d{3}(?!\d))")
_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|operatorname|"
    r"boxed|underline)\s*\{"
)
_REPEATING = re.compile(r"(?<![0-9.])([0-9]{0,9})\.([0-9]{0,9})\\(?:overline|bar|dot)\s*\{([0-9]{1,18})\}(?![0-9])")
_DOT = r"\\dot\s*(?:\{\s*([0-9])\s*\}|([0-9]))"
_DOTTED = re.compile(rf"(?<=[0-9.]){_DOT}(?:([0-9]{{0,16}}){_DOT})?")
_NEXT_VALUE = re.compile(
    r"(?<=[0-9A-Za-z)}])\s*\\q?quad(?:\s|\\q?quad)*(?=[-+]?[0-9]|(?:\\[a-z]+|[A-Za-z])\s*(?:_\{?\w{1,20}\}?|\([^()=]{0,40}\))?\s*=)"
)
_PREAMBLE = re.compile(
    r"(?:\\approx(?![A-Za-z])|approximately|about|\\(?:text|mathrm)\{[^{}]{0,80}?(?:is|=|:)\s*\})\s*(?=[-0-9.\\$(])"
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


def _fraction(match: re.Match[str]) -> str:
    """A repeating decimal such as ``0.1\\overline{6}`` as a fraction."""
    whole, head, tail = match.groups()
    bottom = 10 ** len(head) * (10 ** len(tail) - 1)
    return rf"\frac{{{int(whole + head + tail) - int((whole + head) or 0)}}}{{{bottom}}}"


def _overlined(match: re.Match[str]) -> str:
    """Dots over the first and the last digit that repeats, as a line over all of them."""
    return rf"\overline{{{''.join(digits or '' for digits in match.groups())}}}"


def fold_unicode(text: str) -> str:
    """``text`` with known Unicode characters replaced by ASCII and LaTeX. Digits of other scripts are kept."""
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = text.translate(_UNICODE)
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFKC", c) if "\uff01" <= c <= "\uff5e" else c for c in text)


@lru_cache(maxsize=8192)
def tidy(answer: str) -> str:
    """``answer`` without spacing, delimiters, size commands, a font around the whole, and a final full stop."""
    if not answer.isascii():
        answer = fold_unicode(answer)
    if "\\" in answer or "~" in answer or "{,}" in answer:
        answer = _MARKED_THOUSANDS.sub("", answer)
        if "quad" in answer:
            answer = _NEXT_VALUE.sub(", ", answer)
        answer = _SPACING.sub(_space, answer)
        if "\\overline" in answer or "\\bar" in answer or "\\dot" in answer:
            answer = _REPEATING.sub(_fraction, _DOTTED.sub(_overlined, answer))
    answer = _SPACES.sub(" ", answer.replace("$", "")).strip(" *")
    answer = answer.replace("**", "^")
    for _ in range(MAX_WRAPPERS):
        before = answer
        answer = answer.strip(" *").rstrip(" .,;:").removesuffix("\\\\")
        if answer[:1] == "=" and answer[1:2] not in ("=", "<", ">"):
            answer = answer[1:].lstrip()
        preamble = _PREAMBLE.match(answer)
        if preamble:
            answer = answer[preamble.end() :]
        font = _FONT.match(answer)
        if font and _closes_last(answer, font.end() - 1):
            answer = answer[font.end() : -1]
        elif answer[:1] == "{" and _closes_last(answer, 0):
            answer = answer[1:-1]
        if answer == before:
            *_, answer = _THEREFORE.split(answer)
        if answer == before:
            break
    return answer


def _closes_last(text: str, opening: int) -> bool:
    """Whether the brace at ``opening`` is closed by the last character and not earlier."""
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
    """A tidied answer without spaces and braces that have no meaning: equal strings are equal answers."""
    tidied = _BRACED_CHARACTER.sub(r"\1\2", tidied)
    return _SQUEEZE.sub(
        lambda m: m.group(1) + " " if m.group(1) else (" " if m.group().isspace() and _both(m) else ""), tidied
    )


def _both(match: re.Match[str]) -> bool:
    text, start, end = match.string, match.start(), match.end()
    return start > 0 and end < len(text) and text[start - 1].isdigit() and text[end].isdigit()
