"""Output that outlives its reader: ``espo-gym train | head`` shows ten lines and trains to the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class Outlet:
    """A text stream like ``stream``, but once that cannot be written to, what is written is dropped.

    So a closed terminal, a reader that has ended, or a full disk behind a redirection stops nothing.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``, or drop it."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what has been written."""
        with self._dropping():
            self._stream.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream has been closed
            if isinstance(error, UnicodeError):
                raise
            with suppress(OSError, ValueError):
                # What is left in the stream's buffer has to go somewhere, or Python complains as it ends.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


def outlet(stream: TextIO) -> TextIO:
    """An :class:`Outlet` to ``stream``; where that is None, as in a process started without it, None."""
    return stream and cast(TextIO, Outlet(stream))


@contextmanager
def outlets() -> Iterator[None]:
    """Within it, standard output and standard error are :class:`Outlet`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = outlet(sys.stdout), outlet(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def say(text: str) -> None:
    """Print ``text``, if there is somebody to read it."""
    print(text, file=outlet(sys.stdout), flush=True)
