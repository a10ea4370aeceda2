"""Finds the expression that a completion gives as its answer."""

from __future__ import annotations

import re

PHRASE = re.compile(r"answer(?:\s+is\b)?\s*:?[ *]*", re.IGNORECASE)
RUN = re.compile(r"[-+*/()=0-9 ]+")
OPERATION = re.compile(r"[0-9][) ]*[-+*/][-+( ]*[0-9]")
PLAIN = [
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])|[\u00d7\u00b7\u22c5\u2217]|(?<=[0-9)])\s*[xX]\s*(?=[0-9(])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])|\u00f7"), "/"),
    (re.compile(r"[\u2212\u2013]"), "-"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\left|\\right|\\[,;:! ]|\\[()\[\]]|\$"), ""),
]


def find_expression(completion: str) -> str | None:
    """The expression that a completion gives as its answer, in plain operators; ``None`` if there is none.

    Answer tags, boxes, turns and reasoning are read as the verifier reads them (rules 1 to 3 in
    ``verifier/extract.py``). Without a tag or a box it is the expression after the last "answer is", else the last
    expression in the text.
    """
    from ..verifier.extract import final_part, marked_answer  # loaded on first use, as the rest of the verifier

    text = final_part(completion)
    if text is None:
        return None
    marked = marked_answer(text)
    if marked is not None:
        answer = marked.answer or ""
        return trimmed(plain(answer)) if re.search("[0-9]", answer) else None
    text = plain(text)
    for match in reversed(list(PHRASE.finditer(text))):
        run = RUN.match(text, match.end())
        if run and OPERATION.search(run[0]):
            return trimmed(run[0])
    runs = [run for run in RUN.findall(text) if OPERATION.search(run)]
    return trimmed(runs[-1]) if runs else None


def plain(text: str) -> str:
    """``text`` with LaTeX and typographic operators replaced by ``* / -``."""
    for pattern, replacement in PLAIN:
        text = pattern.sub(replacement, text)
    return text


def trimmed(run: str) -> str:
    """``run`` without leftovers from the prose around it: spaces, bold markup, equals signs, unmatched parentheses."""
    run = run.strip(" =*\n")
    surplus = run.count("(") - run.count(")")
    if surplus > 0:
        body = run.lstrip("( ")
        return "(" * (run[: len(run) - len(body)].count("(") - surplus) + body
    if surplus < 0:
        body = run.rstrip(") ")
        return body + ")" * (run[len(body) :].count(")") + surplus)
    return run
