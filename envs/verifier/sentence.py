r"""Reads the value that a phrase or a sentence gives: ``81`` in "There are **81** lattice points within 5 units."

A phrase follows a marker such as "the answer is"; a sentence may stand anywhere. Both are read by the same principle:
what several values are named for without a choice is all of them ("5 or 6"), and a value that the sentence denies,
asks for or only restates is none. Takes time linear in the length of the text.
"""

# ruff: noqa: RUF001 (operators and punctuation as models write them)

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from .markup import CALCULATOR, FENCE, unwrapped
from .values import (
    ASSIGNMENT,
    HOLDS_VALUE,
    TEXT_ARGUMENT,
    WORDS,
    Value,
    find_values,
    formulas,
    is_prose,
    leads,
    right_side,
)

MAX_PHRASE = 2_000
"""Characters after a marker that are read."""
MAX_VALUES = 200
"""Values of one sentence that are considered, counted from its end."""
MAX_CHOICES = 4
"""Values of one sentence that are tried when the last one is not what it finds."""
MAX_CLOSING = 4_000
"""Characters at the end of a text in which the closing sentence is looked for."""

_SENTENCE_END = re.compile(r"(?:[.?]|(?<![0-9)}])!)(?=\s|$|\*\*|[\"”])|\n|[。！？；]|，(?=\s*[\u4e00-\u9fff])")
_VERB = re.compile(
    r"(?<![\\A-Za-z{])(?:is|are|was|were|be|has|have|had|there|it|she|he|they|we|you|would|will|can|could|must|needs?|"
    r"gets?|gives?|equals?|costs?|takes?|because|since|so|then|therefore|thus|hence|total|not)"
    r"(?![A-Za-z}])|[\u4e00-\u9fff]{2}",
    re.IGNORECASE,
)
_EITHER = re.compile(r"[\s,$(]*(?:[a-z]{1,12}\s+)?(?:or|或者?)\s*(?:about|approximately|maybe|perhaps|possibly|even)?")
_AND = re.compile(r"\s*(?:and|且|和|[-+*/×])?\s*")
_COMMA = re.compile(r"\s*(?:,\s*|;\s*|、)(?:(?:\.\.\.|…|\\[lc]?dots)\s*,?\s*)?(?:and|or)?")
_NOUN = re.compile(
    r"(?!(?:is|are|was|were|be|equals|has|have|times|plus|minus|than|of|"
    r"after|during|within|per|every|each|for|at|by|on)\b)(?:out )?[a-z]{2,12}(?:,?\s+and)?"
)
_MEASURE = re.compile(r"(?:hours?|minutes?|days?|weeks?|months?|years?|feet|foot|ft|pounds?|dollars?)(?:,|\s+and)?")
_HEDGE = re.compile(
    r"\b(?:(?:could|might|may)(?: also)? be|maybe|perhaps|possibly|alternatively|either)\W*(?:it(?: i|')s )?$|"
    r"可能是?\s*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"\W*(?:\w+\W+){0,2}?(?:is|are|was|were|do|does|did|can|could|would|will|has|have|should)\s*"
    r"(?:not\b|n['’]t\b)|\W*cannot\b|\s*不|\W*(?:is|are|was|were) too\b|"
    r"[^.]*\b(?:wrong|incorrect|not correct|not right|mistaken|fails?)\b",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n['’]t|\bnever|不[是等为]于?|\brather than|\binstead of)\s+(?:equal(?: to)? |be |exactly |just )?$|"
    r"(?:\bnot (?:true|correct|right|the case)|n['’]t (?:think|believe|say)|\bdoubt|\bfalse)\b[^.,;\n]{0,30}$|"
    r"\b(?:wrong|incorrect|false|tempting|naive)\s+$",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:\b(?:to|let us|let's|can|will|must|should|please|how)\W+(?:now )?|^\W*(?:(?:so|now|first|next|then)\W+)?)"
    r"(?:find|simplify|solve|evaluate|compute|calculate|determine|factor|expand|rewrite|express|write|prove|"
    r"consider|choose|select)\b[^,=:]*$",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"^\W*(?:(?:so|now|and|but|then)\W+)?(?:let|suppose|assume|given|if|when|substitute|plug|check|try|is|are|step|"
    r"question|problem|part|case)\b(?:(?!\bthen\b)[^,;:])*$|\bwhat (?:is|are)\b[^,;:]*$",
    re.IGNORECASE,
)
_OPERAND = re.compile(
    r"\bthe (?:\w+ ){1,3}of(?: the \w+)?\s+\W*$|\d\W+(?:\w+ )?(?:out )?of(?: the)? \W*$", re.IGNORECASE
)
_UNEVALUATED = re.compile(r"[\s$()0-9.,]*[0-9][\s()]*[-+*×][-+*×/\s$()0-9.,]*")
_UNFINISHED = re.compile(
    r"\s*(?:can|could|may|must|should|needs? to|ha(?:s|ve) to|"
    r"(?:is|are) (?:to be|equal|equivalent|written|given|defined))\b"
)
_NAME = re.compile(r"[\s$\\()]*[A-Za-z][\s$\\()]*")
_CLAUSE = re.compile(r"\b(?:when|if|where|since|because|for which|while|whenever|given|among|out of|within)\b")
_MAIN_CLAUSE = re.compile(r",|\b(?:so|then)\b")
_CIRCUMSTANCE = re.compile(
    r"\b(?:in|after|during|within|per|every|each|for|at|by|on|of|from|over|out of)"
    r"(?: (?:the|every|each|an?|her|his|their|its))?(?: (?:first|last|next|other))? $"
)


def first_sentence(text: str) -> str:
    """``text`` up to the end of its first sentence. A full stop in a formula or a number does not end it."""
    return next(_sentences(text))


def _sentences(text: str) -> Iterator[str]:
    spans, at, begin = formulas(text), 0, 0
    for end in _SENTENCE_END.finditer(text):
        while at < len(spans) and spans[at][1] <= end.start():
            at += 1
        if at == len(spans) or spans[at][0] > end.start():
            yield text[begin : end.start() + (end.group() in "?？")]
            begin = end.end()
    yield text[begin:]


def is_sentence(text: str) -> bool:
    """Whether ``text`` says something about an answer rather than being one."""
    return is_prose(text) or _VERB.search(TEXT_ARGUMENT.sub("", text)) is not None


class Statement(NamedTuple):
    """The value that a sentence gives, or None if it names values but gives none of them."""

    value: str | None


def statement(sentence: str) -> Statement | None:
    """What a sentence gives as a value; None if it names no value at all."""
    sentence = sentence.strip()
    if sentence.startswith("**") and sentence.endswith("**") and sentence.count("**") == 2:
        sentence = sentence[2:-2]
    if not WORDS.search(TEXT_ARGUMENT.sub("", sentence)):
        count = len(formulas(sentence))
        if count == 1 or (not count and HOLDS_VALUE.search(sentence)):  # nothing but one formula
            return Statement(right_side(unwrapped(sentence.lstrip("=>→⇒ "))) or None)
    values = find_values(sentence)
    if not values:
        return None
    values = [value for value in values[-MAX_VALUES:] if not _denied(sentence, value)]
    if not values:
        return Statement(None)
    if any(_HEDGE.search(sentence[max(0, value.start - 40) : value.start]) for value in values):
        return Statement(" or ".join(dict.fromkeys(_read(value) for value in values)))
    for _ in range(MAX_CHOICES):
        if not values:
            break
        first, last = _group(sentence, values, _chosen(sentence, values))
        if not _restated(sentence, values[first], values[last]):
            one = first == last
            return Statement(
                _read(values[first]) if one else unwrapped(sentence[values[first].start : values[last].end])
            )
        values = [value for value in values[:first] if leads(sentence, value.start)]
    return Statement(None)


def _denied(sentence: str, value: Value) -> bool:
    before, after = sentence[max(0, value.start - 40) : value.start], sentence[value.end : value.end + 200]
    return _DENIED_AFTER.match(after) is not None or denied_before(before)


def denied_before(before: str) -> bool:
    """Whether the words before a value or a marker deny it: "not", "I don't think it is", "a wrong"."""
    return _DENIED_BEFORE.search(before) is not None


def _restated(sentence: str, first: Value, last: Value) -> bool:
    """Whether values are what the sentence asks for or talks about, and not what it finds."""
    before = sentence[: first.start]
    if _SUPPOSED.search(before):
        return True
    if ASSIGNMENT.match(last.text) or leads(sentence, first.start):
        return False
    if _ASKED.search(before) or _OPERAND.search(before) or _UNEVALUATED.fullmatch(last.text):
        return True
    return last.kind == "formula" and _UNFINISHED.match(sentence, last.end) is not None


def _chosen(sentence: str, values: list[Value]) -> int:
    """The index of the value that a sentence is about; the last one if nothing speaks for another."""
    last = len(values) - 1
    for kind in ("bold", "choice"):
        if marked := [at for at, value in enumerate(values) if value.kind == kind]:
            return marked[-1]
    named = last
    while named and _CIRCUMSTANCE.search(sentence[max(0, values[named].start - 40) : values[named].start]):
        named -= 1  # "in 15 minutes" says when, not how many
    if named < last and (leads(sentence, values[named].start) or ASSIGNMENT.match(values[named].text)):
        return named
    for at, value in enumerate(values[:-1]):
        clause = _CLAUSE.search(sentence, value.end, values[at + 1].start)
        if clause and leads(sentence, value.start) and not _MAIN_CLAUSE.search(sentence, clause.start()):
            return at
    while last and _NAME.fullmatch(values[last].text) and not leads(sentence, values[last].start):
        last -= 1  # the name of a variable is not its value
    return last


def _group(sentence: str, values: list[Value], chosen: int) -> tuple[int, int]:
    """The first and last of the values that are named together with the chosen one: all of them are the answer."""
    gaps = [
        sentence[one.end : other.start].strip() or (" " if one.kind == other.kind == "plain" else "|")
        for one, other in pairwise(values)
    ]
    for links in (_LOOSE_LINKS, _LINKS):  # the loose ones need a verb before the list
        first = last = chosen
        while first and _linked(gaps[first - 1], links):
            first -= 1
        while last < len(gaps) and _linked(gaps[last], links):
            last += 1
        if leads(sentence, values[first].start):
            break
    return first, last


_LINKS = (_EITHER, _AND, _MEASURE)
_LOOSE_LINKS = (*_LINKS, _COMMA, _NOUN)


def _linked(gap: str, links: tuple[re.Pattern[str], ...]) -> bool:
    return len(gap) < 60 and any(link.fullmatch(gap) for link in links)


def _read(value: Value) -> str:
    return right_side(value.text) if value.kind == "plain" else unwrapped(value.text)


# ---- phrases and texts


def read_phrase(phrase: str) -> str | None:
    """The answer in the text after a marker such as "the answer is"; None if there is none."""
    phrase = _BEFORE_ANSWER.sub("", CALCULATOR.sub("", phrase[:MAX_PHRASE]), count=1)
    if phrase.startswith(("```", "\\[", "$$")):
        opened = FENCE.match(phrase) if phrase[0] == "`" else None
        spans = formulas(phrase)
        return unwrapped(phrase[: opened.end() if opened else spans[0][1] if spans else None]) or None
    sentence = first_sentence(phrase).strip()
    if not is_sentence(sentence):
        return unwrapped(sentence) or None
    head = _HEAD.split(sentence, maxsplit=1)[0]
    rest = sentence[len(head) :]
    if rest and not is_sentence(head) and not _OTHER.search(rest) and not _DENIED_AFTER.match(rest):
        return unwrapped(head) or None
    found = statement(sentence)
    return found.value if found else unwrapped(sentence) or None


_BEFORE_ANSWER = re.compile(
    r"^(?:[\s:：}]|(?:\*\*|__?)(?=\s))*(?:(?:therefore|thus|hence|then|so|simply|just)\b[\s,]*)?", re.IGNORECASE
)
_HEAD = re.compile(r"(?<=[\d$)\]}*])\s+(?=[a-z]{2,}\b)|,?\s+(?=(?:because|since|as)\b)")
_OTHER = re.compile(r"^\W*(?:or|and)\b|\b(?:or|maybe|perhaps|possibly|alternatively|could be|might be|may be)\b")


_REMARK = re.compile(r"\b(?:let me know|I hope|feel free|verif(?:y|ied)|sanity check|double-check)\b", re.IGNORECASE)


def closing_value(text: str) -> str | None:
    """The value in the last sentence of ``text`` that names one; None if there is none, or the sentence gives none."""
    for sentence in reversed(list(_sentences(text[-MAX_CLOSING:]))):
        if sentence.strip().endswith(("?", "？")) or _REMARK.search(sentence):  # neither states a result
            continue
        found = statement(sentence)
        if found:
            return found.value
    return None
