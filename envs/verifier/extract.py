r"""Finds the final answer in a completion. Takes time linear in the length of the text, for any text.

The rules, in order; the first that applies decides:

1. Only the assistant's last turn counts, and of it only what follows the last ``</think>``. Reasoning that was opened
   and never closed holds no answer. Of an over-long text only the end is read.
2. The last ``<answer>...</answer>``; if only one of the tags is there, what it closes or opens.
3. The last of: a box ``\boxed{...}`` or ``\fbox{...}``, closed or not; the ``"answer"`` of JSON; a line "Answer: ..."
   after the box. An empty box is no answer, even if an answer precedes it. Boxes joined by nothing but commas, "and" or
   "or" are one list.
4. The line after the last ``####``.
5. What follows the last "answer is", "Answer:", "correct option is", "A:" at the start of a line, 答案是, 故选, ...
6. A refusal that nothing follows is no answer.
7. A completion of one short line is its own answer; of any other text it is the value in the closing sentence.

The value of a phrase or a sentence is found in ``sentence.py``. ``final_part`` is rule 1 and ``marked_answer``
rules 2 and 3, for readers with their own rules for unmarked text.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from .markup import CALCULATOR, json_answer, result, unquoted, unwrapped
from .sentence import MAX_PHRASE, closing_value, denied_before, first_sentence, is_sentence, read_phrase
from .values import is_prose

MAX_TEXT = 200_000
"""Characters of a completion that are read, counted from its end."""
MAX_MARKERS = 20
"""Occurrences of "answer is" that are considered, counted from the last."""
MAX_LINE = 20_000
"""Characters of the line after ``####`` that are read."""
MAX_JOINED_BOXES = 32
"""Boxes that are read as one list. No reference equals a longer list."""


class Extraction(NamedTuple):
    """An answer and how it was found."""

    answer: str | None
    rule: str
    """The rule that decided, or why there is no answer."""


_TURN_END = re.compile(r"<\|(?:im_end|im_start|eot_id|endoftext|end_of_text|end|eom_id)\|>|</s>|<end_of_turn>")
_ASSISTANT = re.compile(r"<\|im_start\|>assistant|<\|assistant\|>|<\|start_header_id\|>assistant<\|end_header_id\|>")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_NO_BOX = re.compile(r"[ \t]*(?:[A-Za-z]{2}|[^\w\s{\\+(\[|<.-]|\n|$)")
_BARE_TAG = re.compile(r"(?:\A|[\n>])[ \t]*answer>")
_HEADING = r"^[ \t>#*_]*(?:the )?(?:final )?answer[*_]*[ \t]*\n(?=\s*\S[^\n]*\s*\Z)"
_ANSWER_LINE = re.compile(
    r"^[ \t>#*_-]*(?:(?:so|thus|hence|therefore|the|my|final|correct)\b[\s,]*){0,4}answer[*_]{0,2}\s*[:\uff1a]|"
    rf"{_HEADING}",
    re.IGNORECASE | re.MULTILINE,
)
_MARKER = re.compile(
    r"(?:\b(?:answers?|correct (?:option|choice))\b(?: (?!is\b|are\b)\w{1,14}){0,6}[*_\s]{0,4}?"
    rf"(?:\s(?:is|are|equals)\b[ \t]*:?|[:\uff1a=])|^A:|{_HEADING}|"
    r"答案\s*(?:[是为选]\s*[:\uff1a]?|[:\uff1a])|[故应此以]选(?!取|择)项?[是为]?\s*[:\uff1a]?|"
    r"选(?:项[是为])?\s*[:\uff1a]?(?=[\s$(\uff08]*[A-J](?![A-Za-z])))",
    re.IGNORECASE | re.MULTILINE,
)
_IS_ANSWER = re.compile(r"(\S.{0,99}?)\s+is (?:the|our|my) (?:\w{1,14} )?(?:answer|solution)\W*", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\bI(?:['\u2019]m| am) (?:not able|unable|not sure how)\b|\bI (?:can(?:not|['\u2019]t)|could(?: not|n['\u2019]t)|"
    r"do(?: not|n['\u2019]t) know|need more)\b|\bnot enough information\b|\binsufficient information\b|"
    r"\bas an? (?:AI |large )?(?:language )?model\b",
    re.IGNORECASE,
)
_DISMISSED = re.compile(
    r"\b(?:wrong|incorrect|not correct|not right|mistaken|(?:as|in|see)\b.{0,20}\b(?:above|below|box|shown))\b",
    re.IGNORECASE,
)
_GAP_NOISE = re.compile(r"\\(?:quad|qquad|text|textrm|mbox|mathrm)(?![A-Za-z])|\\[,;:! \[\]()]|[\s${}~.*&]")
_GAP_WORDS = re.compile(r"(?:[,;]|and|or|forpart\(\w\))+", re.IGNORECASE)


def extract_answer(text: str) -> str | None:
    """The final answer as written in ``text``, or None. See the module's docstring for the rules and their order."""
    return extract(text).answer


def extract(text: str, sentence: bool = False) -> Extraction:
    """``extract_answer`` with the rule that decided.

    What a tag or a JSON field holds is the answer as it stands, except that a marker in it is followed ("The answer is
    16."). With ``sentence``, the value that a sentence there gives is read too: ``42`` of "It is 42 inches long."
    """
    final = final_part(text)
    if final is None:
        return Extraction(None, "unfinished reasoning")
    found = marked_answer(final, sentence)
    if found is None:
        final = final[: final.find("</answer>")] if "</answer>" in final else final
        found = _from_hashes(final) or _from_marker(final) or _from_end(final)
    if found.answer is None or found.rule == "box":
        return found
    return Extraction(result(found.answer), found.rule)


def marked_answer(text: str, sentence: bool = False) -> Extraction | None:
    """Rules 2 and 3: the last answer tag, else the last box, JSON field or answer line; None if there is none."""
    if "answer>" in text:
        open_tag, close_tag = _open_tag(text), text.rfind("</answer>")
        if open_tag >= 0:
            end = text.find("</answer>", open_tag)
            inside = text[open_tag : end if end >= 0 else None]
            if "\\boxed" not in inside and "\\fbox" not in inside:
                return _inside(inside, "answer tag", sentence)
            text = inside
        elif close_tag >= 0:
            text = text[:close_tag]
    start = _last_box_start(text, len(text))
    field = json_answer(text) if 'nswer"' in text else None
    if field and (start is None or field[1] > start):
        boxed = last_box(field[0])
        return Extraction(boxed, "box") if boxed else _inside(field[0], "JSON", sentence)
    if start is None:
        return None
    boxed = _joined_boxes(text, start)
    if text.find("nswer", start) >= 0 and (line := _ANSWER_LINE.search(text, start)):
        after = _from_marker(text[line.start() :])
        if after and after.answer:
            return after
    return Extraction(unquoted(boxed), "box") if boxed else Extraction(None, "empty box")


def _open_tag(text: str) -> int:
    """The position after the last opening tag, or -1. One that lost its ``<`` counts if a closing tag follows."""
    at = text.rfind("<answer>")
    if at >= 0:
        return at + 8
    ends = [tag.end() for tag in _BARE_TAG.finditer(text, 0, max(text.rfind("</answer>"), 0))]
    return ends[-1] if ends else -1


def _inside(text: str, rule: str, sentence: bool) -> Extraction:
    """What a tag or a field holds."""
    marked = _from_marker(text)
    if marked and marked.answer:
        return Extraction(marked.answer, rule)
    answer = unwrapped(text)
    named = _IS_ANSWER.fullmatch(answer)
    if named and not is_sentence(named.group(1)):
        return _found(unwrapped(named.group(1)), rule)
    if sentence and is_sentence(answer):
        answer = closing_value(answer) or answer
    return _found(answer, rule)


def _found(answer: str, rule: str) -> Extraction:
    return Extraction(answer, rule) if answer else Extraction(None, "nothing found")


def final_part(text: str) -> str | None:
    """Rule 1: the assistant's last turn without its reasoning; None if the reasoning never ends."""
    text = text[-MAX_TEXT:]
    if "<" not in text:
        return text
    turn = 0
    for match in _ASSISTANT.finditer(text):
        turn = match.end()
    text = text[turn:].lstrip()
    end = _TURN_END.search(text, 1)
    if end:
        text = text[: end.start()]
    think = text.rfind("</think>")
    if think >= 0:
        return text[think + 8 :]
    return None if "<think>" in text else text


# ---- boxes


def last_box(text: str) -> str | None:
    """The content of the last box, "" if it is empty, None if there is no box. Joined boxes are one list."""
    start = _last_box_start(text, len(text))
    return None if start is None else _joined_boxes(text, start)


def _joined_boxes(text: str, start: int) -> str:
    """The content of the box at ``start`` and of those that are joined to it from the left."""
    content, _ = _box_content(text, start)
    boxes = [content]
    while content and len(boxes) < MAX_JOINED_BOXES:
        before = _last_box_start(text, start)
        if before is None:
            break
        content, end = _box_content(text, before)
        if not content or not _joins(text[end:start]):
            break
        boxes.append(content)
        start = before
    return ", ".join(reversed(boxes))


def _last_box_start(text: str, end: int) -> int | None:
    """Where the last box before ``end`` starts. A bare ``\\boxed`` in a sentence about boxes is none."""
    while (start := max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))) >= 0:
        if not _NO_BOX.match(text, start + (6 if text.startswith("\\boxed", start) else 5)):
            return start
        end = start
    return None


def _box_content(text: str, start: int) -> tuple[str, int]:
    """The content of the box that starts at ``start``, and the position after it."""
    begin = start + (6 if text.startswith("\\boxed", start) else 5)
    while begin < len(text) and text[begin] in " \t":
        begin += 1
    if not text.startswith("{", begin):  # \boxed 7
        end = begin
        while end < len(text) and text[end] not in " \t\n$":
            end += 1
        return text[begin:end].strip(), end
    depth = 0
    for match in _BRACE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[begin + 1 : match.start()].strip(), match.end()
    end = text.find("\n", begin)  # never closed: the rest of the line
    end = len(text) if end < 0 else end
    return text[begin + 1 : end].rstrip(" \t$.").strip(), end


def _joins(gap: str) -> bool:
    if len(gap) > 80:
        return False
    return _GAP_WORDS.fullmatch(_GAP_NOISE.sub("", gap)) is not None


# ---- no box


def _from_hashes(text: str) -> Extraction | None:
    at = text.rfind("####")
    if at < 0:
        return None
    end = text.find("\n", at)
    line = text[at + 4 : end if end >= 0 else None][:MAX_LINE].strip(" \t#*").lstrip(": ")
    if not line or line.endswith(":") or _MARKER.search(line) or is_prose(line):  # a heading, not an answer
        return None
    return Extraction(unwrapped(line), "hashes")


def _from_marker(text: str) -> Extraction | None:
    for match in reversed(deque(_MARKER.finditer(text), maxlen=MAX_MARKERS)):
        phrase = text[match.end() : match.end() + MAX_PHRASE]
        before = text[max(0, match.start() - 60) : match.start()]
        empty = not phrase.strip(" \t\n*_$:.")
        dismissed = _DISMISSED.search(phrase) and _DISMISSED.search(
            first_sentence(phrase)
        )  # most phrases have no such word
        if not (empty or dismissed or denied_before(before)):
            break
    else:
        return None
    if _REFUSAL.search(text, match.end()):
        return Extraction(None, "refusal")
    answer = read_phrase(phrase)
    return Extraction(answer, "answer is") if answer else None


def _from_end(text: str) -> Extraction:
    stripped = CALCULATOR.sub("", text).strip()
    refusals = list(_REFUSAL.finditer(stripped, max(0, len(stripped) - 1000)))
    rest = stripped[refusals[-1].end() :] if refusals else stripped
    if refusals and not re.search(r"\d|\$", rest):
        return Extraction(None, "refusal")
    if not stripped:
        return Extraction(None, "nothing found")
    if _JSON.match(stripped):
        return Extraction(None, "nothing found")  # an object without an answer, or cut off before it
    if stripped[0] == "$" == stripped[-1] and "$" not in stripped.strip("$"):
        return _found(unwrapped(stripped), "whole text")
    short = len(stripped) <= 200 and "\n" not in stripped and len(_LONG_WORDS.findall(stripped)) <= 3
    if short and not is_sentence(stripped):
        return _found(unwrapped(stripped), "whole text")
    return _found(closing_value(stripped) or "", "closing sentence")


_JSON = re.compile(r"(?:```(?:json)?\s*)?\{\s*\"")
_LONG_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
