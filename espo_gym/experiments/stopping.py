"""Signals that ask for an end: training saves at the next rollout boundary and ends with the conventional exit code.

Batch systems and preempted machines send them some time before they kill. A second signal ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name))
"""A handler of one's own, or an ignored signal (``nohup``), stays as it is."""


class Stopped(SystemExit):
    """A signal ended the work. The exit code is 128 and the signal's number, as a shell reports it."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __reduce__(self) -> tuple[type[Stopped], tuple[int]]:
        return Stopped, (self.signum,)

    def __str__(self) -> str:
        return f"Stopped by {signal.Signals(self.signum).name}"


class StopSignals:
    """Within its context, one of :data:`SIGNALS` raises :class:`Stopped` or, in :meth:`deferred`, is kept until then.

    Only in the main thread, which alone gets signals in Python; elsewhere it does nothing.

    Args:
        worker: in a process whose parent sees to its end: signals are only noted, and a second one is the first once
            more, sent to all processes and by the parent.
    """

    def __init__(self, *, worker: bool = False) -> None:
        self.received: int | None = None
        self._deferred = self._worker = worker

    def __enter__(self) -> StopSignals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                handler = signal.getsignal(signum)
                outer = getattr(handler, "__self__", None)
                if handler is signal.SIG_DFL or isinstance(outer, StopSignals):
                    self._before[signum] = signal.signal(signum, self._receive)
                    self._worker |= isinstance(outer, StopSignals) and outer._worker
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal is only noted, in ``received``; :class:`Stopped` is raised at the end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.received is not None:
            raise Stopped(self.received)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None and not self._worker:  # the second one
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.received = signum
        if not self._deferred:
            raise Stopped(signum)
