r"""Where values stand in a text: formulas, numbers and runs of plain mathematics, bold values, choices.

A run is read whole, with its operators, brackets and functions: no number is ever taken out of a formula.
"""

# ruff: noqa: RUF001 (operators and punctuation as models write them)

from __future__ import annotations

import re
from typing import NamedTuple

from .markup import BOLD, DOLLAR

_OPENING = re.compile(r"(?<!\\)(?:\\\[|\\\(|\$\$?|\\begin\{align)")
_CLOSING = {"\\[": "\\]", "\\(": "\\)", "$$": "$$", "\\begin{align": "\\end{align"}
_PROSE = re.compile(r"(?<![A-Za-z])[A-Za-z]{3,}[ ,.]+[A-Za-z]{2,}[ ,.]+[A-Za-z]{2,}")
TEXT_ARGUMENT = re.compile(r"\\(?:text|mathrm|mbox|textbf|textnormal)\s*\{[^{}]*\}")
_NUMBER = r"(?:\d[\d,]*\d|\d)(?:\.\d+)?(?:[eE][-+]?\d+)?(?: \d+ ?/ ?\d+|(?:(?::| : )\d+)+)?(?:\s?\\?%)?|\.\d+"
_BRACED = r"\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]*\})*\})*\}"
_BRACKETED = r"[(\[](?:[^()\[\]\n]|\([^()\n]{0,99}\)){1,200}[)\]]"
_FUNCTION = r"(?:a(?:rc)?)?(?:sin|cos|tan)h?|log|ln|lg|exp|sqrt|mod|gcd|lcm|max|min"
_ATOM = (
    rf"{_NUMBER}|{_BRACED}|{_BRACKETED}|[ \t]?\\[A-Za-z]+[ \t]?|\b(?:{_FUNCTION})(?:_\w+)?(?![A-Za-z])[ \t]?|"
    r"\\[{}|,;!]|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|[!'°π∞√½¼¾⅓⅔]"
)
_RUN = re.compile(rf"[-+±−]?(?:{_ATOM})(?:[ \t]{{0,3}}[-+*/^_=<>|≤≥≠≈±×÷·−]+[ \t]{{0,3}}|{_ATOM})*")
HOLDS_VALUE = re.compile(r"[0-9π∞√½¼¾⅓⅔]|\\[A-Za-z]")
_WORD = re.compile(rf"(?<![\\A-Za-z])(?!(?:{_FUNCTION})(?![A-Za-z]))[A-Za-z]{{3,}}")
WORDS = re.compile(
    rf"(?<![\\A-Za-z])(?!(?:{_FUNCTION}|and|or)(?![A-Za-z]))(?<!\\begin\{{)(?<!\\end\{{)[A-Za-z]{{2,}}|[\u4e00-\u9fff]"
)
_MODIFIER = re.compile(
    r"\b(?:minus|negative|plus|at least|at most|(?:more|less|fewer|greater) than|up to|over|under|half(?: of)?|"
    r"twice|double|(?:square|cube) root of) $",
    re.IGNORECASE,
)
_SCALE = re.compile(r"[ -](?:i|pi|hundred|thousand|million|billion|trillion|dozen|squared|cubed|factorial|modulo)\b")
_CHOICE = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Ss]tatement|[Ll]etter)\s+\(?([A-J])\)?(?![\w'])|\(([A-J])\)|^\W*([A-J])\W*$"
)
_LEAD = re.compile(
    r"(?:^|[:：=≈是为于有得选]|\b(?:is|are|was|were|be|equals?|equal to|becomes?|obtain|gets?|gives?|giving|yields?|"
    r"ha[sd]|have|as|to|approximately|about|only|exactly|worth|total of|therefore|thus|hence|so))[\s*,$\\]*$",
    re.IGNORECASE,
)
ASSIGNMENT = re.compile(r"[\s$\\(\[]*(?:[A-Za-z]\w?(?:\([A-Za-z, ]+\))?|[-+*/×÷.()0-9\s$%]+)\s*=")


class Value(NamedTuple):
    """A value in a sentence: where it stands, with its delimiters, and how it is written."""

    start: int
    end: int
    kind: str
    """``formula``, ``plain``, ``bold`` or ``choice``."""
    text: str


def formulas(text: str) -> list[tuple[int, int]]:
    """The spans of the formulas with their delimiters. A pair of dollar signs around prose is two prices."""
    spans, at = [], 0
    while opening := _OPENING.search(text, at):
        at = opening.end()
        if opening.group() == "$":
            closing = DOLLAR.search(text, at)
            if closing is None or not _is_formula(text[at : closing.start()], text[closing.end() : closing.end() + 1]):
                continue
            end = closing.end()
        else:
            end = text.find(_CLOSING[opening.group()], at)
            if end < 0:
                continue
            end = text.find("}", end) + 1 or len(text) if opening.group().startswith("\\b") else end + 2
        spans.append((opening.start(), end))
        at = end
    return spans


def _is_formula(inside: str, after: str) -> bool:
    if not inside.strip() or "\n\n" in inside or (inside[-1].isspace() and not inside[0].isspace()):
        return False
    return not after.isdigit() and not is_prose(inside)


def find_values(text: str) -> list[Value]:
    """All values in a sentence, in order."""
    found = []
    for bold in BOLD.finditer(text):
        inside = bold.group(1) or bold.group(2)
        first = _WORD.search(inside)
        value = HOLDS_VALUE.search(inside)
        if (value and not (first and first.start() < value.start())) or leads(text, bold.start()):
            found.append(Value(bold.start(), bold.end(), "bold", inside))
    rest = _without(text, found)
    found += [Value(start, end, "formula", text[start:end]) for start, end in formulas(rest)]
    rest = _without(rest, found)
    for choice in _CHOICE.finditer(rest):
        if choice.group(1) or leads(text, choice.start()) or not text[choice.end() :].strip(" .*"):
            letter = next(filter(None, choice.groups()))
            found.append(Value(choice.start(), choice.end(), "choice", f"({letter})"))
    rest = _without(rest, found)
    for run in _RUN.finditer(rest):
        start, written = run.start(), run.group()
        if _WORD.search(TEXT_ARGUMENT.sub("", written)) and (number := re.search(_NUMBER, written)):
            start, written = start + number.start(), number.group()
        written = written.rstrip(" \t-+*/^_=<>|([{,")
        if HOLDS_VALUE.search(written) and text[start - 1 : start] != "#":
            before, after = _MODIFIER.search(text[max(0, start - 20) : start]), _SCALE.match(text, start + len(written))
            end = after.end() if after else start + len(written)
            start -= len(before.group()) if before else 0
            found.append(Value(start, end, "plain", text[start:end]))
    return sorted(found)


def _without(text: str, values: list[Value]) -> str:
    """``text`` with line breaks for values that were found, so that nothing else is found in or across them."""
    pieces, at = [], 0
    for value in sorted(values):
        pieces += [text[at : value.start], "\n" * (value.end - value.start)]
        at = value.end
    return "".join((*pieces, text[at:]))


def is_prose(text: str) -> bool:
    """Whether ``text`` has three words in a row."""
    return _PROSE.search(TEXT_ARGUMENT.sub("", text)) is not None


def leads(sentence: str, at: int) -> bool:
    """Whether the words before a value present it: "is", "=", "we get"."""
    return _LEAD.search(sentence[max(0, at - 40) : at] if at > 40 else sentence[:at]) is not None


def right_side(text: str) -> str:
    """The last side of ``x = 3 + 5 = 8``; other relations and lists stay whole."""
    whole = not ASSIGNMENT.match(text) or re.search(r"[<>≤≥≠,;\\]|\bor\b|\band\b", text.rpartition("=")[0])
    right = text.rpartition("=")[2].strip()
    return text if whole or not HOLDS_VALUE.search(right) else right
