"""Argument checks. Each raises an error of one sentence that names the value and what is allowed."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from string import Formatter
from typing import Any


def check_int(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as an ``int`` from ``low`` to ``high``, both included.

    Raises TypeError if it is not an integer, ValueError if it is out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer from {low} to {high}, not {value!r}") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}")
    return number


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """``value`` if it is one of ``choices``. Raises ValueError otherwise."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}.{did_you_mean(value, choices)} Known: {', '.join(choices)}")
    return value


def check_template(name: str, template: str, fields: Iterable[str], required: bool = True) -> str:
    """``template`` if ``str.format`` can fill it from ``fields``, all of which must occur if ``required``.

    Raises TypeError if it is not a string, ValueError if it is malformed or a field is unknown or missing.
    """
    fields = list(fields)
    allowed = ", ".join(f"{{{field}}}" for field in fields)
    if not isinstance(template, str):
        raise TypeError(f"{name} must be a string with the fields {allowed}, not {template!r}")
    try:
        used = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"{name} {template!r} is malformed: {error}. Write a literal brace twice: {{{{ }}}}") from None
    for field in used:
        if field not in fields:
            raise ValueError(
                f"{name} {template!r} has the unknown field {{{field}}}. Known: {allowed}."
                " Write a literal brace twice: {{ }}"
            )
    for field in fields if required else []:
        if field not in used:
            raise ValueError(f"{name} {template!r} lacks the field {{{field}}}; it needs {allowed}")
    return template


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` (with a leading space) for the closest known word, or an empty string."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
