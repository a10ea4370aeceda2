"""A verdict in plain words: what was found, how both sides were read, and why that was decided."""

from __future__ import annotations

from typing import Any

from .parse import TooLarge, Unreadable, parse
from .quantity import quantity
from .tidy import tidy
from .words import choice, label, words

MAX_SHOWN = 160
"""Characters of a text that are shown; of a longer one, its beginning."""

_WHY = {
    "string": "both are the same text in the verifier's spelling",
    "rational": "both are exact numbers, and {} (a unit that only one names is understood)",
    "choice": "the letters of the choices are {}",
    "words": "compared as words, they are {}",
    "numeric": "evaluated at fixed points or compared part by part, they are {}",
    "math-verify": "math-verify, in its own process, calls them {}",
    "screen": "the answer is nothing that could equal this reference",
}
_NO_VERDICT = {
    "timeout": "math-verify did not answer in time",
    "memory": "math-verify needed more memory than it may have",
    "crash": "the verifier failed",
    "unreadable_reference": "the reference could not be read",
    "too_long": "the answer, the reference or a number in them is larger than the verifier handles",
}


def explain(
    status: str,
    *,
    answer: str | None,
    reference: str | None,
    rule: str | None,
    tier: str | None,
    reason: str | None,
    detail: str | None,
) -> str:
    """The lines that ``Verdict.explain`` returns, from the fields of a verdict."""
    lines = [("verdict", status.replace("_", " "))]
    if answer is not None:
        lines.append(("answer", printable(answer) + (f"   (rule: {rule})" if rule else "")))
    if answer is not None and reference is not None:
        lines += [("read as", reading(answer)), ("reference", printable(reference)), ("read as", reading(reference))]
    lines.append(("because", _why(status, tier, reason or "", detail)))
    return "\n".join(f"{name:<11}{text}" for name, text in lines)


def _why(status: str, tier: str | None, reason: str, detail: str | None) -> str:
    if status == "no_answer":
        return "no answer was found" + (f": {printable(reason)}" if reason else "")
    if status == "no_verdict":
        said = _NO_VERDICT.get(reason) or printable(reason) or "no reason was given"
        return said + (f" ({printable(detail)})" if detail else "")
    kind, _, names = reason.partition(": ")
    if kind == "convention":
        return f"tier {tier}: equal under {names}, though not strictly"
    if kind == "form":
        return f"tier {tier}: the value is right, but it is not in the form asked for, {printable(names)}"
    equal = "equal" if status == "correct" else "different"
    text = _WHY.get(tier or "", "").format(equal)
    return (
        (f"tier {tier}" if tier else equal)
        + (f": {text}" if text else "")
        + (f" ({printable(reason)})" if reason else "")
    )


def reading(answer: str) -> str:
    """How the verifier reads an answer or a reference: as a number, a choice, words, or a tree in function notation."""
    try:
        given = tidy(answer)
        number = quantity(given)
        if number is not None:
            return printable(f"the number {number.value}" + (f" with the unit {number.unit}" if number.unit else ""))
        letter = choice(given)
        if letter is not None:
            return f"the choice {letter}"
        prose = words(given)
        if prose is not None:
            return f"the words {printable(prose)!r}"
        return f"the formula {printable(_in_functions(parse(given)))}"
    except Unreadable:
        text = label(given)
        return "no formula" + (f", but the text {printable(text)!r}" if text is not None else "")
    except (TooLarge, RecursionError):
        return "nothing: it is too large"


def _in_functions(node: Any) -> str:
    """``add(pow(x, 2), 1)``: a tree on one line. Numbers, names, brackets and relations stand for themselves."""
    if not isinstance(node, tuple):
        return str(node)
    if not node or not isinstance(node[0], str):
        return ", ".join(map(_in_functions, node))
    kind = node[0]
    if kind in ("num", "sym", "const", "text"):
        return str(node[1])
    if kind == "tuple":
        return f"{node[1]}{_in_functions(node[2])}{node[3]}"
    if kind == "rel":
        sides = list(map(_in_functions, node[1]))
        return sides[0] + "".join(f" {sign} {side}" for sign, side in zip(node[2], sides[1:], strict=True))
    if kind in ("list", "matrix"):  # a list's separators are left out
        return f"{kind}({_in_functions(node[1])})"
    head, rest = (node[1], node[2:]) if kind in ("fn", "app") else (kind, node[1:])
    return f"{head}({', '.join(map(_in_functions, rest))})"


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    """``text`` on one line, as far as ``limit`` characters go, with what a terminal could act on escaped."""
    cut = text[:limit] + ("..." if len(text) > limit else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)
