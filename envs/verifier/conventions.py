r"""What counts as the same answer where the graders of the field differ. Everything is strict unless it is chosen.

``verify`` decides strictly first. Only an ``incorrect`` is looked at again, and only under the conventions that were
chosen, so that none can turn a right answer into a wrong one. Each is a rewriting of the two answers, after which tiers
1 and 2 compare them as ever; rounding, the last one, compares their numbers one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

from .decide import first_tier, second_tier
from .parse import Node, TooLarge, Unreadable, parse
from .quantity import quantity
from .rounding import equal_rounded
from .tidy import tidy
from .tree import numeric, symbols

MAX_LENGTH = 2_000
"""Longest answer and reference that conventions are applied to, in characters."""


@dataclass(frozen=True)
class Conventions:
    """What is accepted besides an equal answer. Each field stands alone; all of them off is strict.

    Raises ValueError for a ``tolerance`` that is not from 0 to 0.01, TypeError for a field of another type.
    """

    tolerance: float = 0.0
    """Largest relative difference between a decimal number and the number that it rounds: ``3.1416`` for pi with 1e-4.
    A reference that is an integer, and two numbers without a decimal point, are compared exactly all the same."""
    sentence_in_tag: bool = False
    """A sentence in ``<answer>`` stands for its value, if it states a single one: "The perimeter is 42 inches."."""
    base_missing: bool = False
    """``1201`` for ``1201_8``, and ``1201_b`` with a letter for the base as ``1201``."""
    parentheses: bool = False
    """``(1, 2, 3)`` for ``1, 2, 3`` in the same order, and ``1, 2, 3`` for ``(1, 2, 3)``; not ``1, 2`` for ``(1, 2)``,
    which may be an interval."""
    equation_value: bool = False
    """``a + b = 7`` for ``7``: the value of an expression in two or more letters without a constant term. An equation
    that could be solved (``x + 3 = 7``) and one in normal form (``2x - y = 0``) are none."""
    constant_renamed: bool = False
    """The arbitrary constant ``C`` written ``c``, and ``c`` written ``C``, beside another variable."""
    constant_missing: bool = False
    """``x^2`` for ``x^2 + C``. ``C`` must be a term of the reference."""
    percent_sign_missing: bool = False
    """``0.625`` for ``62.5``, and ``62.5`` for ``0.625``: either may be a percentage without its sign. In no preset,
    because nothing in the two answers tells whether one is: it also makes ``1`` equal to ``100``."""

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            if not isinstance(getattr(self, field.name), bool):
                raise TypeError(f"{field.name} must be True or False, not {getattr(self, field.name)!r}")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, (int, float)):
            raise TypeError(f"tolerance must be a number, not {self.tolerance!r}")
        if not 0 <= self.tolerance <= 0.01:
            raise ValueError(f"tolerance is a relative difference from 0 (none) to 0.01, not {self.tolerance!r}")

    @classmethod
    def preset(cls, name: str) -> Conventions:
        """The conventions with this name, see ``PRESETS``. Raises ValueError for an unknown one."""
        if name not in PRESETS:
            raise ValueError(f"unknown conventions {name!r}; known: {', '.join(PRESETS)}")
        return PRESETS[name]


STRICT = Conventions()
_SOUND = Conventions(tolerance=1e-4, sentence_in_tag=True, base_missing=True, parentheses=True, equation_value=True)
PRESETS = {
    "strict": STRICT,
    "lenient": _SOUND,
    "math-verify": Conventions(
        tolerance=1e-6,
        sentence_in_tag=True,
        base_missing=True,
        parentheses=True,
        equation_value=True,
        constant_renamed=True,
    ),
    "qwen": Conventions(tolerance=1e-4, parentheses=True),
    "verl": Conventions(tolerance=1e-4),
}
"""Conventions by name. Those of other graders hold what they accept, as far as it makes no wrong answer correct."""


def conventions_of(chosen: str | Conventions) -> Conventions:
    """``chosen``, or the preset that it names. Raises TypeError or ValueError for anything else."""
    if isinstance(chosen, Conventions):
        return chosen
    if not isinstance(chosen, str):
        raise TypeError(f"conventions must be a name ({', '.join(PRESETS)}) or a Conventions, not {chosen!r}")
    return Conventions.preset(chosen)


@lru_cache(maxsize=4096)
def accepted_by(answer: str, rule: str, reference: str, chosen: Conventions) -> tuple[str, str, str] | None:
    """What makes a strictly incorrect answer correct: the names of the conventions, the answer as they read it and the
    tier that decided. None if nothing does.

    ``rule`` is the one by which the answer was found.
    """
    if len(answer) > MAX_LENGTH or len(reference) > MAX_LENGTH:
        return None
    for names, given, wanted in _readings(answer, rule, reference, chosen):
        if names:
            decision = first_tier(given, wanted) or second_tier(given, wanted)
            if decision.status == "correct":
                return ", ".join(names), given, decision.tier or ""
        if chosen.tolerance and equal_rounded(given, wanted, chosen.tolerance):
            return ", ".join((*names, "tolerance")), given, "numeric"
    return None


def _readings(
    answer: str, rule: str, reference: str, chosen: Conventions
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """The tidied answer and reference, then what the conventions make of them, also several together."""
    readings: list[tuple[tuple[str, ...], str, str]] = [((), tidy(answer), tidy(reference))]
    value = only_value(answer) if chosen.sentence_in_tag and rule == "answer tag" else None
    if value is not None:
        readings.append((("sentence_in_tag",), tidy(value), readings[0][2]))
    for name, rewrite in _REWRITES.items():
        if getattr(chosen, name):
            for names, given, wanted in tuple(readings):
                changed = rewrite(given, wanted)
                if changed is not None:
                    readings.append(((*names, name), *changed))
    yield from readings


# ---- a sentence

_VALUE = re.compile(
    r"\$[^$]+\$|\\\(.+?\\\)|-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+|(?<=[0-9]))(?:\s?/\s?[0-9]+)?(?:\s?\\?%)?",
    re.DOTALL | re.ASCII,
)
_OPERATOR = re.compile(
    r"[=<>^_+*/|\\~!\u2264\u2265\u2260\u2248\u00b1\u00d7\u00f7\u221a\u221e]|(?<![A-Za-z])-|-(?![A-Za-z])"
)
_CHANGES_VALUE = re.compile(
    r"\b(?:not|cannot|no|none|never|nor|neither|or|if|unless|between|except|instead|rather|unknown|unclear|impossible|"
    r"and|least|most|more|less|fewer|greater|than|over|under|above|below|within|up to|minus|negative|plus|times|"
    r"twice|thrice|double|triple|half|halves|thirds?|quarters?|percent|squared?|cubed?|root|factorial|hundreds?|"
    r"thousands?|millions?|billions?|dozens?|base|wrong|incorrect)\b|n['\u2019]t\b",
    re.IGNORECASE,
)


def only_value(sentence: str) -> str | None:
    """The number or formula that a sentence states, as written; None unless there is exactly one and nothing around it
    changes it ("at least 42", "not 42", "x^42").
    """
    sentence = sentence.replace("\\$", "")  # a price
    values = [match for match in _VALUE.finditer(sentence) if match.group().strip("-")]
    if len(values) != 1:
        return None
    before, after = sentence[: values[0].start()], sentence[values[0].end() :]
    words = f"{before} {after}"
    if _CHANGES_VALUE.search(words) or _OPERATOR.search(words) or re.search(r"[\w.]$", before):
        return None
    if not words.isascii() and any(c.isalpha() and not c.isascii() for c in words):  # words of which we know nothing
        return None
    if re.match(r"[\w-]|\s?[B-Zb-z](?![A-Za-z])", after):  # 5th, 5-fold, 5 x
        return None
    return values[0].group().strip("$").removeprefix("\\(").removesuffix("\\)").strip()


# ---- rewriting the tidied answer and reference; None where the convention does not apply

Rewrite = Callable[[str, str], "tuple[str, str] | None"]
_BASED = re.compile(r"([0-9][0-9A-F]*)\s*_\s*(?:([0-9])|\{\s*([0-9]{1,2})\s*\}|\{?\s*[a-z]\s*\}?)")
_DIGITS = re.compile(r"[0-9][0-9A-F]*")
_CONSTANT = re.compile(r"(\\[A-Za-z]+)|([Cc])")


def _tree(tidied: str) -> Node | None:
    try:
        return parse(tidied)
    except (Unreadable, TooLarge):
        return None


def _base_missing(given: str, wanted: str) -> tuple[str, str] | None:
    based, digits = _BASED.fullmatch(wanted), _DIGITS.fullmatch(given)
    if based and digits:
        return given, based[1]
    based, digits = _BASED.fullmatch(given), _DIGITS.fullmatch(wanted)
    if based and digits and not (based[2] or based[3]):
        return based[1], wanted
    return None


def _parentheses(given: str, wanted: str) -> tuple[str, str] | None:
    a, b = _tree(given), _tree(wanted)
    if a is None or b is None:
        return None
    if _round(a) and _bare(b):
        return given, f"({wanted})"
    if _bare(a) and _round(b) and len(b[2]) > 2:
        return f"({given})", wanted
    return None


def _round(node: Node) -> bool:
    return node[0] == "tuple" and (node[1], node[3]) == ("(", ")")


def _bare(node: Node) -> bool:
    return node[0] == "list" and set(node[2]) == {","} and all(numeric(member) for member in node[1])


def _equation_value(given: str, wanted: str) -> tuple[str, str] | None:
    a, b = _tree(given), _tree(wanted)
    if a is None or b is None or a[0] != "rel" or a[2] != ("=",) or b[0] == "rel":
        return None
    left, right = a[1]
    terms = left[1] if left[0] == "add" else (left,)
    if (
        right == ("num", 0)
        or len(symbols(left)) < 2
        or symbols(right)
        or not all(symbols(term) for term in terms)
        or any(a[3])
    ):
        return None
    return given.rpartition("=")[2].strip(), wanted


def _constant_renamed(given: str, wanted: str) -> tuple[str, str] | None:
    a, b = _tree(given), _tree(wanted)
    if a is None or b is None or "\\text" in given or "\\operatorname" in given:
        return None
    own, other = (sorted({name for name in symbols(node) if name[0] in "Cc"}) for node in (a, b))
    if not own or len(symbols(b)) == len(other) or {name[0] for name in own} & {name[0] for name in other}:
        return None
    if [name[1:] for name in own] != [name[1:] for name in other]:
        return None
    return _CONSTANT.sub(lambda match: match[1] or match[2].swapcase(), given), wanted


def _constant_missing(given: str, wanted: str) -> tuple[str, str] | None:
    a, b = _tree(given), _tree(wanted)
    if a is None or b is None:
        return None
    value = b[1][-1] if b[0] == "rel" and b[2] == ("=",) else b
    constant = ("sym", "C")
    if value[0] != "add" or constant not in value[1] or {"A", "B"} & symbols(b) or "C" in symbols(a):
        return None
    return (f"{given}+C", wanted) if numeric(a) or a[0] == "rel" else None


def _percent_sign_missing(given: str, wanted: str) -> tuple[str, str] | None:
    a, b = quantity(given), quantity(wanted)
    if a is None or b is None or a.unit or b.unit:
        return None
    return (given, f"{wanted}%") if abs(a.value) < abs(b.value) else (f"{given}%", wanted)


_REWRITES: dict[str, Rewrite] = {
    "base_missing": _base_missing,
    "parentheses": _parentheses,
    "equation_value": _equation_value,
    "constant_renamed": _constant_renamed,
    "constant_missing": _constant_missing,
    "percent_sign_missing": _percent_sign_missing,
}
