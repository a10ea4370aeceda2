"""Where in a completion the expression stands that it gives as its answer."""

from __future__ import annotations

import re

TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)(?:</answer>|$)", re.DOTALL)
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
    """The expression in the last ``\\boxed{}``, else in the last ``<answer>``, else after the last "answer is", else
    the last one in the text, in plain operators; ``None`` if there is none.
    """
    tags = TAG.findall(completion)
    place = last_boxed(completion) or (tags[-1] if tags else None)
    if place is not None:
        return tidy(plain(place)) if re.search("[0-9]", place) else None
    text = plain(completion)
    for match in reversed(list(PHRASE.finditer(text))):
        run = RUN.match(text, match.end())
        if run and OPERATION.search(run[0]):
            return tidy(run[0])
    runs = [run for run in RUN.findall(text) if OPERATION.search(run)]
    return tidy(runs[-1]) if runs else None


def last_boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{...}`` (to the end of the text, if it is not closed)."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start, depth = start + len("\\boxed{"), 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return text[start:]


def plain(text: str) -> str:
    """LaTeX and typographic operators as ``* / -``."""
    for pattern, replacement in PLAIN:
        text = pattern.sub(replacement, text)
    return text


def tidy(run: str) -> str:
    """Without what the prose around it left: spaces, bold type, equals signs, halves of parentheses."""
    run = run.strip(" =*\n")
    surplus = run.count("(") - run.count(")")
    if surplus > 0:
        body = run.lstrip("( ")
        return "(" * (run[: len(run) - len(body)].count("(") - surplus) + body
    if surplus < 0:
        body = run.rstrip(") ")
        return body + ")" * (run[len(body) :].count(")") + surplus)
    return run
