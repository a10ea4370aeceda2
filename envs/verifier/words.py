"""Tier 1: multiple-choice letters and answers in words."""

from __future__ import annotations

import re

from .units import NO_UNITS

EMPTY_SETS = frozenset((r"\emptyset", r"\varnothing", r"\{\}", r"\{ \}"))
NO_SOLUTION = frozenset(("nosolution", "nosolutions", "norealsolution", "norealsolutions", "emptyset", "none"))
"""Words for the empty set, without spaces."""
ALL_REALS = frozenset(("allreals", "allrealnumbers", "thesetofallrealnumbers", "anyrealnumber", "realnumbers"))

_CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?\s*\.?")
_LABELLED_CHOICE = re.compile(
    r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[.):])\s*([A-Za-z0-9\\$-].*)|"  # (C) 42
    r"([A-J])\s+(?:because|since|as)\b(.*)|([A-J])\s+-+\s+(?=[^=]*[A-Za-z]{2})([A-Za-z0-9].*)|"  # C because, C - a word
    r"([A-J])\s+\((?:[^(),]|\([^()]*\))*\)",  # C (42), but not the point C(4,2)
    re.DOTALL,
)
_INTRODUCTION = re.compile(
    r"(?:(?:the|correct|right|final|therefore|thus|so|hence|answer|option|choice|statement|is|选项?|故|答案|因此)[\s,:]*)+"
    r"(?=\(?\s*[A-J](?![A-Za-z]))",
    re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(
    r"(?<![A-Za-z\\])(?:[B-HJ](?![A-Za-z])|A(?![A-Za-z])(?!\s+[a-z]))|\([A-Ja-j]\)|\A\W*(?:or|and|but|not|nor)\b|"
    r"\A\W*(?:is|are|was)\b.*\b(?:not|wrong|incorrect|false)\b"
)
_CAPITAL = re.compile("[A-J]")
_SEVERAL = re.compile(r"\(?[A-J]\)?(?:(?:\s*(?:[,;]|and\b))+\s*\(?[A-J]\)?)+\.?")
_TOGETHER = re.compile(r"[A-J]{2,10}")
_FONT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)(?![A-Za-z])\s*")
_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9\s,.\-:'!?]*")
_LONG_WORD = re.compile(r"[A-Za-z]{3,}")


def choice(tidied: str) -> str | None:
    """The letter of a multiple-choice answer (``C``, ``(C)``, ``option C``, ``(C) 42``); None for other answers."""
    if _CAPITAL.search(tidied) is None:
        return None
    if len(tidied) > 1 and "\\" in tidied:
        tidied = _plain(tidied)
    introduction = _INTRODUCTION.match(tidied)
    if introduction:
        tidied = tidied[introduction.end() :]
    match = _CHOICE.fullmatch(tidied)
    if match:
        return match[1]
    match = _LABELLED_CHOICE.fullmatch(tidied)
    if match is None:
        return None
    letter = next(group for group in match.groups() if group)
    return None if _OTHER_CHOICE.search(tidied[tidied.index(letter) + 1 :].lstrip(").: ")) else letter


def choices(tidied: str) -> str | None:
    """The letters of an answer that is several choices (``A, C``, ``A and C``, ``AC``), sorted; None for others."""
    if len(tidied) < 2 or len(_CAPITAL.findall(tidied)) < 2:
        return None
    plain = _plain(tidied) if "\\" in tidied else tidied
    if _TOGETHER.fullmatch(plain):
        return plain if "".join(sorted(set(plain))) == plain else None
    if _SEVERAL.fullmatch(plain) is None:
        return None
    letters = re.findall("[A-J]", plain)
    return "".join(sorted(letters)) if len(set(letters)) == len(letters) else None


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
