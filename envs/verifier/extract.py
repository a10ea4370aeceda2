r"""Finds the final answer in a completion. Takes time linear in the length of the text, for any text.

The rules, in order; the first that applies decides:

1. Only the assistant's last turn counts, and of it only what follows the last ``</think>``. Reasoning that was opened
   and never closed holds no answer. Of an over-long text only the end is read.
2. The last ``<answer>...</answer>``.
3. The last ``\boxed{...}`` or ``\fbox{...}``, closed or not. An empty box is no answer, even if an answer precedes it.
   Boxes joined by nothing but commas, "and" or "or" are one list.
4. The line after the last ``####``.
5. What follows the last "answer is", "Answer:", "correct option is", "A:" at the start of a line.
6. A refusal that nothing follows is no answer.
7. A completion of one short line is its own answer; in any other text it is the last formula or number.

``final_part`` is rule 1 and ``marked_answer`` rules 2 and 3, for readers with their own rules for unmarked text.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

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
_MARKER = re.compile(
    r"(?:\b(?:answers?|correct (?:option|choice))\b(?: (?!is\b|are\b)\w{1,14}){0,6}[*_\s]{0,4}?"
    r"(?:\s(?:is|are|equals)\b[ \t]*:?|[:\uff1a=])|^A:|答案(?:是|为|\uff1a|:))[*_]{0,2}",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\bI(?:['\u2019]m| am) (?:not able|unable|not sure how)\b|\bI (?:can(?:not|['\u2019]t)|could(?: not|n['\u2019]t)|"
    r"do(?: not|n['\u2019]t) know|need more)\b|\bnot enough information\b|\binsufficient information\b|"
    r"\bas an? (?:AI |large )?(?:language )?model\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"-?(?:\d[\d,]*\d|\d)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?(?:\s?/\s?\d+(?:\.\d+)?)?(?:\s?\\?%)?", re.ASCII
)
_PROSE = re.compile(r"(?<![A-Za-z])[A-Za-z]{3,}[ ,.]+[A-Za-z]{2,}[ ,.]+[A-Za-z]{2,}")
_TEXT_ARGUMENT = re.compile(r"\\(?:text|mathrm|mbox|textbf|textnormal)\s*\{[^{}]*\}")
_DISMISSED = re.compile(r"\b(?:wrong|incorrect|not correct|not right|mistaken)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.。!?](?=\s|$|\*\*)|\n|。")
_GAP_NOISE = re.compile(r"\\(?:quad|qquad|text|textrm|mbox|mathrm)(?![A-Za-z])|\\[,;:! \[\]()]|[\s${}~.*&]")
_GAP_WORDS = re.compile(r"(?:[,;]|and|or|forpart\(\w\))+", re.IGNORECASE)


def extract_answer(text: str) -> str | None:
    """The final answer as written in ``text``, or None. See the module's docstring for the rules and their order."""
    return extract(text).answer


def extract(text: str) -> Extraction:
    """``extract_answer`` with the rule that decided."""
    final = final_part(text)
    if final is None:
        return Extraction(None, "unfinished reasoning")
    return marked_answer(final) or _from_hashes(final) or _from_marker(final) or _from_end(final)


def marked_answer(text: str) -> Extraction | None:
    """Rules 2 and 3: the last answer tag, else the last box; None if the text has neither."""
    open_tag = text.rfind("<answer>")
    if open_tag >= 0:
        end = text.find("</answer>", open_tag)
        inside = text[open_tag + 8 : end if end >= 0 else None]
        if "\\boxed" not in inside and "\\fbox" not in inside:
            return _found(_strip_formula(inside), "answer tag")
        text = inside
    boxed = last_box(text)
    if boxed is None:
        return None
    return Extraction(boxed, "box") if boxed else Extraction(None, "empty box")


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
    if start is None:
        return None
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
    boxed, fbox = text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end)
    start = max(boxed, fbox)
    return start if start >= 0 else None


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
    line = text[at + 4 : end if end >= 0 else None][:MAX_LINE].strip().strip("#*").strip()
    if not line or line.endswith(":") or _PROSE.search(line):  # a heading, not an answer
        return None
    return Extraction(_strip_formula(line), "hashes")


def _from_marker(text: str) -> Extraction | None:
    last = None
    for match in reversed(deque(_MARKER.finditer(text), maxlen=MAX_MARKERS)):
        phrase = text[match.end() : match.end() + 2000]
        if phrase.strip(" \t\n*_$:.") and not _DISMISSED.search(_sentence(phrase)):
            last = match
            break
    if last is None:
        return None
    tail = text[last.end() :]
    if _REFUSAL.search(tail):
        return Extraction(None, "refusal")
    answer = _read_phrase(tail[:2000].lstrip(" \t\n:*_"))
    return Extraction(answer, "answer is") if answer else None


def _sentence(text: str) -> str:
    """``text`` up to the end of its first sentence. A full stop inside a formula or a number does not end it."""
    at = 0
    while True:
        end = _SENTENCE_END.search(text, at)
        if end is None:
            return text
        opened = text.count("$", 0, end.start()) % 2 == 1
        close = text.find("$", end.end()) if opened else -1
        if close < 0 or "\n" in text[end.start() : close]:
            return text[: end.start()]
        at = close + 1


def _read_phrase(phrase: str) -> str | None:
    """The answer in the text after "the answer is"."""
    if phrase.startswith(("\\[", "$$")):
        closing = "\\]" if phrase[0] == "\\" else "$$"
        end = phrase.find(closing, 2)
        return _strip_formula(phrase[: end if end > 0 else None]) or None
    sentence = _sentence(phrase).strip().strip("*").strip()
    words = _TEXT_ARGUMENT.sub("", sentence)
    if not _PROSE.search(words):
        return _strip_formula(sentence) or None
    head = re.split(r"(?<=[\d$)\]}*])\s+(?=[a-z]{2,}\b(?! or\b))", sentence, maxsplit=1)[0]
    if (
        head != sentence
        and not _PROSE.search(head)
        and not re.search(r"^\W*(?:or|and)\b", sentence[len(head) :].lstrip())
    ):
        return _strip_formula(head) or None
    return _last_formula_or_number(sentence) or _strip_formula(sentence) or None


def _from_end(text: str) -> Extraction:
    stripped = text.strip()
    refusals = list(_REFUSAL.finditer(stripped, max(0, len(stripped) - 1000)))
    rest = stripped[refusals[-1].end() :] if refusals else stripped
    if refusals and not re.search(r"\d|\$", rest):
        return Extraction(None, "refusal")
    if not stripped:
        return Extraction(None, "nothing found")
    if stripped[0] == "$" == stripped[-1] and "$" not in stripped.strip("$"):
        return _found(_strip_formula(stripped), "whole text")
    if len(stripped) <= 200 and "\n" not in stripped and len(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", stripped)) <= 3:
        return _found(_strip_formula(stripped), "whole text")
    return _found(_last_formula_or_number(stripped[-4000:]) or "", "last formula or number")


def _last_formula_or_number(text: str) -> str | None:
    span = _last_formula(text)
    after = text[span[1] :] if span else text
    number = None
    for match in _NUMBER.finditer(after):
        if match.group().strip("-"):
            number = match
    if number is not None:
        return _strip_formula(number.group())
    return _strip_formula(text[span[0] : span[1]]) if span else None


def _last_formula(text: str) -> tuple[int, int] | None:
    """The span of the last formula with its delimiters. A pair of dollar signs around prose is two prices."""
    best: tuple[int, int] | None = None
    for opening, closing in (("\\[", "\\]"), ("\\(", "\\)"), ("\\begin{align", "\\end{align")):
        end = text.rfind(closing)
        start = text.rfind(opening, 0, end) if end > 0 else -1
        if start >= 0 and (best is None or end + 2 > best[1]):
            best = (start, end + 2)
    end = text.rfind("$")
    for _ in range(8):
        if end <= 0 or (best is not None and end < best[1]):
            break
        stop = end
        while stop > 0 and text[stop - 1] == "$":
            stop -= 1
        start = text.rfind("$", 0, stop)
        if start < 0:
            break
        inside = _TEXT_ARGUMENT.sub("", text[start + 1 : stop])
        if inside.strip() and text[start - 1 : start] != "\\" and not _PROSE.search(inside) and "\n\n" not in inside:
            return start, end + 1
        end = start
    return best


def _strip_formula(text: str) -> str:
    """A formula without its delimiters; only the last line of an alignment."""
    text = text.strip().strip("*").strip()
    for opening, closing in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$")):
        if text.startswith(opening) and len(text) > len(opening):
            text = text[len(opening) :]
            at = text.rfind(closing)
            if at >= 0 and (opening != "$" or not text[at + 1 :].strip(" .,;:*")) and "$" not in text[:at]:
                text = text[:at]
            elif at >= 0:
                text = opening + text
            text = text.strip()
            break
    if text.startswith("\\begin{align"):
        lines = [line for line in text.split("\\\\") if line.strip() and not line.strip().startswith("\\end")]
        text = lines[-1].rpartition("=")[2].replace("&", " ") if lines else ""
        text = text.partition("\\end{align")[0]
    return text.strip().rstrip(".。").strip()
