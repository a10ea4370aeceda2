"""One error for every check, with the same four parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any


class ConformanceError(AssertionError):
    """Something does not keep a promise. ``check`` names the check that failed."""

    def __init__(self, subject: str, check: str, found: str, expected: str, look: str) -> None:
        super().__init__(
            f"{subject} fails the check {check!r}.\n  found:    {found}\n  expected: {expected}\n  look at:  {look}"
        )
        self.subject, self.check, self.found, self.expected, self.look = subject, check, found, expected, look


class Fault(Exception):
    """Raised by a check: what it found, and where to look. What it expected is the first paragraph of its docstring."""

    def __init__(self, found: str, look: str) -> None:
        super().__init__(found)
        self.found, self.look = found, look


def run(subject: str, checks: Sequence[Callable[..., None]], *args: Any) -> None:
    """Run ``checks`` in turn on ``args``; the first fault becomes a :class:`ConformanceError`."""
    for check in checks:
        expected = " ".join((inspect.getdoc(check) or "").split("\n\n")[0].split())
        try:
            check(*args)
        except Fault as fault:
            raise ConformanceError(subject, check.__name__, fault.found, expected, fault.look) from fault.__cause__
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            raise ConformanceError(subject, check.__name__, found, expected, "the traceback above") from error
