"""Tier 1: multiple-choice letters and answers in words."""

from __future__ import annotations

import re

from .units import NO_UNITS

EMPTY_SETS = frozenset((r"\emptyset", r"\varnothing", r"\{\}", r"\{ \}"))
NO_SOLUTION = frozenset(("no solution", "no solutions", "no real solution", "no real solutions", "empty set", "none"))

_CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?\s*\.?")
_LABELLED_CHOICE = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[.):])\s*([A-Za-z0-9\\$-].*)", re.DOTALL)
_OTHER_CHOICE = re.compile(r"(?<![A-Za-z\\])(?:[A-J](?![A-Za-z])|or\b|and\b)|\([A-Ja-j]\)")
_FONT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)(?![A-Za-z])\s*")
_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9\s,.\-:'!?]*")
_LONG_WORD = re.compile(r"[A-Za-z]{3,}")


def choice(tidied: str) -> str | None:
    """The letter of a multiple-choice answer (``C``, ``(C)``, ``C.``, ``(C) 42``); None for other answers."""
    if len(tidied) > 1 and "\\" in tidied:
        tidied = _plain(tidied)
    match = _CHOICE.fullmatch(tidied)
    if match:
        return match[1]
    match = _LABELLED_CHOICE.fullmatch(tidied)
    if match is None or _OTHER_CHOICE.search(tidied, match.start(3)):
        return None
    return match[1] or match[2]


def _plain(tidied: str) -> str:
    return _FONT_COMMAND.sub("", tidied).replace("{", "").replace("}", "").strip()


def words(tidied: str) -> str | None:
    """The words of an answer in prose, in lower case without punctuation; None if it is not prose."""
    plain = _plain(tidied)
    if len(plain) > 2000 or "\\" in plain or "=" in plain or _WORDS.fullmatch(plain) is None:
        return None
    long_words = _LONG_WORD.findall(plain)
    if not [word for word in long_words if word not in NO_UNITS and not (word.isupper() and " " not in plain)]:
        return plain.lower() if plain.lower() in ("no", "up") else None
    return re.sub(r"[\s,.:!?\-']+", " ", plain.lower()).strip()


_LABEL = re.compile(r"[A-Za-z0-9\s.,:;'!?()\-/&]*")


def label(tidied: str) -> str | None:
    """An answer of words and digits (``4:30 p.m.``) in one spelling; None if it contains mathematics."""
    plain = _plain(tidied)
    if len(plain) > 2000 or _LABEL.fullmatch(plain) is None or not re.search("[A-Za-z]", plain):
        return None
    return re.sub(r"(?<=[a-z])\.|\.(?=[a-z])|[\s,;!?]+", "", plain.lower()).strip(".:")
