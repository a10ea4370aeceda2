"""Tiers 1 and 2 for one answer and one reference. Nothing here starts a process or loads sympy."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ..verdict import Status
from .agree import agree, computable
from .compare import equal
from .evaluate import allow, exhausted
from .extract import last_box
from .parse import TooLarge, Unreadable, parse
from .quantity import quantity, quantity_like, same_quantity
from .tidy import squeeze, tidy
from .tokens import Node
from .tree import contains, numeric
from .words import ALL_REALS, EMPTY_SETS, NO_SOLUTION, choice, choices, label, words

MAX_ANSWER = 20_000
"""Longest answer or reference that is compared, in characters."""


class Decision(NamedTuple):
    """``status`` is None if there is no verdict, for the given ``reason``; without a reason tier 3 is asked."""

    status: Status | None
    tier: str | None
    reason: str | None = None
    detail: str | None = None


_UNDECIDED = Decision(None, None)


def read_reference(reference: str) -> str:
    """The answer in a reference: the content of its box, the text after its ``####``, or the whole reference."""
    if "\\boxed" in reference or "\\fbox" in reference:
        boxed = last_box(reference)
        if boxed:
            return boxed
    if "####" in reference:
        return reference.rpartition("####")[2].strip()
    return reference


def decide(answer: str, reference: str) -> Decision:
    """The decision of tiers 1 and 2; ``reference`` is what ``read_reference`` returned."""
    if answer == reference:
        return Decision("correct", "string")
    if len(reference) > MAX_ANSWER:
        return Decision(None, None, "too_long")
    wanted = tidy(reference)
    if not wanted:
        return Decision(None, None, "unreadable_reference")
    too_long = len(answer) > MAX_ANSWER
    decision = Decision(None, None, "too_long") if too_long else _compare(tidy(answer), wanted)
    if decision.reason == "too_long" and readable(wanted):
        return Decision("incorrect", "screen")
    return decision


def _compare(given: str, wanted: str) -> Decision:
    """Tiers 1 and 2, without a modulus: one that only one of the two names is understood."""
    if "mod" in given or "mod" in wanted:
        (given, modulus), (wanted, other) = _split_modulus(given), _split_modulus(wanted)
        if modulus and other and modulus != other:
            return Decision("incorrect", "string")
    return first_tier(given, wanted) or second_tier(given, wanted)


@lru_cache(maxsize=4096)
def readable(wanted: str) -> bool:
    """Whether tiers 1 and 2 can read and evaluate a tidied reference: an answer that they cannot read is then wrong.

    No answer must be able to avoid a verdict, so only a reference that fails against itself is to blame for one.
    """
    if quantity(wanted) or choice(wanted) or words(wanted) is not None:
        return True
    try:
        tree = parse(wanted)
        allow()
        return _evaluates(tree) and not exhausted()
    except Unreadable:
        return label(wanted) is not None
    except (TooLarge, RecursionError):
        return False


def _evaluates(tree: Node) -> bool:
    """Whether each number and formula in a tree has values."""
    if all(isinstance(part, str) for part in tree):
        return True
    if isinstance(tree[0], str) and numeric(tree):
        return agree(tree, tree) is True
    if tree[0] in _ARITHMETIC:  # a number times a matrix
        return False
    return all(_evaluates(part) for part in tree if isinstance(part, tuple))


def first_tier(given: str, wanted: str) -> Decision | None:
    """Compare tidied answers as strings, exact rationals, choices and words; None if that cannot tell."""
    a, b = quantity(given), quantity(wanted)
    if a is None and b is not None:
        a = quantity_like(given, b)
    elif b is None and a is not None:
        b = quantity_like(wanted, a)
    if a is not None and b is not None:
        return Decision("correct" if same_quantity(a, b) else "incorrect", "rational")
    if given == wanted or squeeze(given) == squeeze(wanted):
        return Decision("correct", "string") if given else None
    letter_a, letter_b = choice(given), choice(wanted)
    if letter_a and letter_b and (len(given) < 4 or len(wanted) < 4):
        return Decision("correct" if letter_a == letter_b else "incorrect", "choice")
    if choices(given) and choices(given) == choices(wanted):
        return Decision("correct", "choice")
    words_a, words_b = _joined(words(given)), _joined(words(wanted))
    if words_a is not None and words_b is not None and (words_a == words_b or len(words_a) > 3 or len(words_b) > 3):
        return Decision("correct" if words_a == words_b else "incorrect", "words")
    if (words_a in NO_SOLUTION and wanted in EMPTY_SETS) or (words_b in NO_SOLUTION and given in EMPTY_SETS):
        return Decision("correct", "words")
    if words_a in ALL_REALS or words_b in ALL_REALS:
        if words_a in ALL_REALS and words_b in ALL_REALS:
            return Decision("correct", "words")
        return second_tier(
            *(_REALS if found in ALL_REALS else text for found, text in ((words_a, given), (words_b, wanted)))
        )
    if (words_a is not None and b is not None) or (words_b is not None and a is not None):
        return Decision("incorrect", "words")
    if (letter_b and len(wanted) < 4 and (a or words_a)) or (letter_a and len(given) < 4 and (b or words_b)):
        return Decision("incorrect", "choice")
    return None


def _joined(found: str | None) -> str | None:
    """Words without spaces: data sets write ``nosolution`` too."""
    return None if found is None else found.replace(" ", "")


def second_tier(given: str, wanted: str) -> Decision:
    """Compare tidied answers as trees, evaluated at fixed points."""
    try:
        gold = parse(wanted)
    except Unreadable:
        return _wanted_words(given, wanted)
    except TooLarge:
        return Decision(None, None, "too_long")
    try:
        tree = parse(given)
    except Unreadable:
        return _given_words(given, wanted, gold)
    except TooLarge:
        return Decision(None, None, "too_long")
    allow()
    try:
        verdict = equal(tree, gold)
        if verdict is False and _AMBIGUOUS.search(given + ";" + wanted):  # 100,200 may be a number or two
            verdict = equal(parse(given, False), parse(wanted, False)) or False
    except (TooLarge, RecursionError):
        return Decision(None, None, "too_long")
    except Unreadable:
        verdict = False
    if verdict is False and exhausted():
        verdict = None
    if verdict is None:  # a number that cannot be evaluated here is not given to sympy either
        series = contains(tree, _SERIES) or contains(gold, _SERIES)
        numbers = numeric(tree) and numeric(gold)
        spent = exhausted()
        allow()
        if numbers and computable(gold) and not computable(tree) and not contains(tree, _SERIES):
            return Decision("incorrect", "numeric")  # what is too large to be computed is no answer to what is not
        beyond = spent or (numbers and not series)
        return Decision(None, "numeric", "too_long") if beyond else _UNDECIDED
    return Decision("correct" if verdict else "incorrect", "numeric")


def _wanted_words(given: str, wanted: str) -> Decision:
    """The reference is not a formula: if it is words, only the same words are right."""
    words_wanted = label(wanted)
    if words_wanted is None:
        return _UNDECIDED if "\\" in wanted else Decision("incorrect", "screen")  # as in an answer
    return Decision("correct" if label(given) == words_wanted else "incorrect", "words")


def _given_words(given: str, wanted: str, gold: Node) -> Decision:
    """The reference is a formula (or a time, which reads as one), the answer is not: only equal words are right."""
    words_given = label(given)
    if words_given is not None:
        return Decision("correct" if words_given == label(wanted) else "incorrect", "words")
    sentence = _LONG_WORD.search(given) and "\\operatorname" not in given
    if sentence and (quantity(wanted) or _PROSE.match(given)):  # a sentence that contains a number is not the number
        return Decision("incorrect", "words")
    if gold[0] in ("list", "set") and "\\pm" not in given and len(_SEPARATOR.findall(given)) < len(gold[1]) - 1:
        return Decision("incorrect", "screen")  # too few members, whatever they are
    return _UNDECIDED if "\\" in given else Decision("incorrect", "screen")  # plain arithmetic would have been parsed


_REALS = r"\mathbb{R}"
_MODULUS = re.compile(
    r"(.*[^\s(])\s*(?:\\pmod|\(\s*(?:\\bmod|\\mod|mod)(?![A-Za-z])|\\mod(?![A-Za-z]))\s*(?:\{([^{}]{0,60})\}|([0-9A-Za-z]{1,20}))\s*\)?",
    re.DOTALL,
)


def _split_modulus(tidied: str) -> tuple[str, str | None]:
    """``x = 7`` and ``11`` of the congruence of x and 7 modulo 11. None if there is no modulus at the end."""
    match = _MODULUS.fullmatch(tidied)
    if match is None:
        return tidied, None
    return match[1].replace("\\equiv", "="), (match[2] or match[3]).replace(" ", "")


_SERIES = frozenset(("sum",))
_ARITHMETIC = frozenset(("add", "mul", "div", "pow", "neg", "root", "fn", "app", "pm", "mp", "sum"))
_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_PROSE = re.compile(r"\W*[A-Za-z]+,? [A-Za-z]{2,},? [A-Za-z]{2,}(?![A-Za-z])")
_SEPARATOR = re.compile(r"[,;&]|\\\\|(?<![A-Za-z])(?:and|or)(?![A-Za-z])")
_AMBIGUOUS = re.compile(r"[1-9][0-9]{0,2},[0-9]{3}(?![0-9])")

# ---- what may go to tier 3

MAX_WORKER_LENGTH = 600
MAX_WORKER_DEPTH = 20
_PLAIN = re.compile(r"[A-Za-z0-9\s\\{}()\[\].,;:+\-*/^_=<>|!&'%]*")
_LONG_NUMBER = re.compile(r"[0-9]{25,}")
_PYTHON = re.compile(
    r"__|import|lambda|exec|eval|open|system|sympify|parse|class|globals|builtins|write|input|immediate"
)
_POWERFUL = re.compile(r"\^|!|\\binom|\\prod|\\sum|\\Gamma|\*\*")
_LARGE = re.compile(r"[0-9]{4,}|\^\s*\{?\s*[0-9]+\s*\^|!!")
_ESCAPE = re.compile(r"\\(?![A-Za-z{}|\\,;:! ])")


@lru_cache(maxsize=4096)
def screened(tidied: str) -> bool:
    """Whether the worker may see an answer: short, shallow, in plain characters, without huge numbers for sympy."""
    if len(tidied) > MAX_WORKER_LENGTH or _PLAIN.fullmatch(tidied) is None:
        return False
    if _LONG_NUMBER.search(tidied) or _PYTHON.search(tidied) or _ESCAPE.search(tidied):
        return False
    if tidied.count("^") > 40 or (_POWERFUL.search(tidied) and _LARGE.search(tidied)):
        return False
    return _depth(tidied) <= MAX_WORKER_DEPTH and _tower(tidied) <= 2


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def _tower(text: str) -> int:
    """The height of nested exponents: 2 for ``2^{3^{4}}``."""
    height, open_exponents = 0, []
    for at, character in enumerate(text):
        if character == "{":
            open_exponents.append(text[max(0, at - 1)] == "^")
            height = max(height, sum(open_exponents))
        elif character == "}" and open_exponents:
            open_exponents.pop()
    return height


# ---- one spelling of an answer, for majority votes


def normalized(answer: str) -> str:
    """A normal form: equal strings are equal answers, but equal answers may have different strings."""
    given = tidy(answer[:MAX_ANSWER])
    number = quantity(given)
    if number is not None:
        return f"{number.value}{number.unit}" if number.unit in ("%", "°") else str(number.value)
    letter = choice(given)
    if letter is not None and len(given) < 12:
        return letter
    prose = words(given)
    return prose if prose is not None else squeeze(given)
