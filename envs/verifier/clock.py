r"""Times of day, which look like ratios: ``1:00`` is not ``12:00``.

A notation such as ``3:05``, ``05:30`` or ``3:30 PM`` says that it is a time: "AM", "PM" or "o'clock" follows, or a part
has a leading zero, which no ratio has. ``3:30`` has the shape of a time. Two answers are compared as times if either
says that it is one or both have the shape of one; otherwise ``3:30`` is the ratio 1 : 10.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

Terms = tuple[Fraction, ...]

_SUFFIX = r"(?:(?P<half>[ap])\.?\s?m\b\.?|o'?clock\b|(?P<noon>noon|midnight)\b)"
_CLOCK = re.compile(
    r"(?P<first>[0-9]{1,3})(?P<rest>(?:\s*:\s*[0-5][0-9](?![0-9])){0,2}(?:\.[0-9]+)?)"
    r"(?P<said>(?P<font>\s*\\(?:text|mathrm|textrm|mbox|textnormal|textbf)\s*\{)?(?P<gap>\s*)"
    + _SUFFIX
    + r"(?(font)\s*\}))?"
    r"(?!\s*:|[0-9])",
    re.IGNORECASE,
)
_SAID = re.compile(r"[ap]\.?\s?m\b|o'?clock|noon|midnight", re.IGNORECASE)
MAX_HOUR = 24


def mentions_clock(text: str) -> bool:
    """Whether ``text`` may contain a time."""
    if ":" in text:
        return True
    return any(part in text for part in ("m", "M", "clock", "noon")) and _SAID.search(text) is not None


def read_clock(text: str, at: int) -> tuple[Terms, str, int] | None:
    """The time at position ``at``: its parts, "a", "p" or "", and where it ends. None if nothing says it is a time."""
    match = _CLOCK.match(text, at)
    if match is None:
        return None
    parts = re.sub(r"\s", "", match["first"] + match["rest"]).split(":")
    if match["said"]:
        if len(parts) == 1 and not (match["gap"] or match["font"]):
            return None  # 2am may be a product
    elif len(parts) == 1 or not any(len(part) > 1 and part[0] == "0" for part in parts):
        return None
    if len(parts) == 1:
        parts.append("0")
    half = match["half"] or {"noon": "p", "midnight": "a"}.get((match["noon"] or "").lower(), "")
    return tuple(Fraction(part) for part in parts), half.lower(), match.end()


def same_time(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool | None:
    """Whether two ``ratio`` nodes of numbers are the same time; None if they are to be compared as ratios."""
    said = len(a) == 3, len(b) == 3
    if not any(said) and not (may_be_time(a) and may_be_time(b)):
        return None
    left, right = ([term[1] for term in node[1] if term[0] == "num"] for node in (a, b))
    if (len(left), len(right)) != (len(a[1]), len(b[1])) or left[1:] != right[1:]:
        return False
    halves = a[2] if said[0] else "", b[2] if said[1] else ""
    if all(halves):
        return left == right and halves[0] == halves[1]
    return left == right or _hour(left[0], halves[0]) == _hour(right[0], halves[1])


def may_be_time(node: tuple[Any, ...]) -> bool:
    """Whether a ``ratio`` node is a time or has the shape of one."""
    if len(node) == 3:
        return True
    terms = node[1]
    if not all(term[0] == "num" and term[1].denominator == 1 for term in terms):
        return False
    return terms[0][1] <= MAX_HOUR and all(10 <= term[1] < 60 for term in terms[1:])


def _hour(hour: Fraction, half: str) -> Fraction:
    """The hour from 0 to 23 if the half of the day is known."""
    return hour % 12 + (12 if half == "p" else 0) if half else hour
