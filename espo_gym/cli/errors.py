"""Errors as the user of the command line meets them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import gymnasium as gym

from espo_gym.experiments.stopping import Stopped, StopSignals
from espo_gym.extras import advice
from espo_gym.terminal import outlets

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
    if said := advice(error):
        return said
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


@contextmanager
def stoppable(advice: Callable[[], str]) -> Iterator[None]:
    """For a long command: Ctrl-C or a signal ends it with the conventional exit code, and ``advice`` says how to go on.

    Whoever reads its output may leave before its end.
    """
    with outlets(), StopSignals():
        try:
            yield
        except (KeyboardInterrupt, Stopped) as end:
            stopped = end if isinstance(end, Stopped) else Stopped(signal.SIGINT)
            click.echo(f"\n{stopped}. {advice()}", err=True)
            raise stopped from end
