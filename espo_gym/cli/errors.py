"""Errors as the user of the command line meets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import gymnasium as gym

HINT = "espo-gym --traceback ... shows where it came from"
USER_ERRORS = (
    ValueError,
    TypeError,
    OSError,
    FloatingPointError,
    RuntimeError,
    ImportError,
    MemoryError,
    gym.error.Error,
)
"""Errors the user can fix."""


def in_words(error: BaseException) -> str:
    """The message of ``error``, without the environment's arguments, which Gymnasium appends to it."""
    if isinstance(error, MemoryError):
        return "out of memory: make the batch or the model smaller, or take a machine with more"
    return str(error).partition(" was raised from the environment creator")[0] or type(error).__name__


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors the user can fix become one line instead of a traceback."""

    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except USER_ERRORS as error:
            if click.get_current_context().obj["traceback"]:
                raise
            raise click.ClickException(f"{in_words(error)} ({HINT})") from error

    wrapped.__doc__ = command.__doc__
    return wrapped
