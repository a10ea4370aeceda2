"""Tier 3: math-verify in a process that can be killed.

One worker to a process, started when it is first needed. It is an interpreter of its own and is spoken to over pipes in
JSON: nothing is pickled, nothing is forked, no thread is needed, so it works under threads, in forked and spawned
children, in notebooks and event loops. A question that outlives its deadline costs the worker its life; the
replacement starts at once and the questions behind it are asked of that one.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import IO, Any

START_SECONDS = 60.0
"""What a worker may take to start; it takes one or two."""
MAX_STARTS = 3
"""Starts in a row that may fail before tier 3 is given up for the batch."""


class WorkerError(Exception):
    """``reason`` is that of the verdict: timeout, memory or crash."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Worker:
    """One process, asked one question at a time."""

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self.ready = False
        child = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_child.py")
        environment = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "HOME", "TMPDIR") if key in os.environ}
        environment |= {"PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", child],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # nothing buffered that a forked child could write a second time
            close_fds=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent, and the parent ends the worker
        )
        self._send({"path": [os.path.abspath(entry or os.getcwd()) for entry in sys.path], "memory_mb": memory_mb})

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, answer: str, reference: str, deadline: float) -> str:
        """What the child makes of the two; WorkerError if it says nothing within ``deadline`` seconds."""
        if not self.ready:
            if self._receive(time.monotonic() + START_SECONDS) != "ready":
                raise WorkerError("crash")
            self.ready = True
        self._send({"answer": answer, "reference": reference, "deadline": deadline})
        result = self._receive(time.monotonic() + deadline)
        if result in ("memory", "crash"):
            raise WorkerError(result)
        return str(result)

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        view = memoryview(len(data).to_bytes(4, "big") + data)
        try:
            while view:
                view = view[_pipe(self._process.stdin).write(view) or 0 :]
        except OSError:
            raise WorkerError("crash") from None

    def _receive(self, until: float) -> Any:
        head = self._read(4, until)
        return json.loads(self._read(int.from_bytes(head, "big"), until))

    def _read(self, count: int, until: float) -> bytes:
        pipe, data = _pipe(self._process.stdout), b""
        while len(data) < count:
            if not _readable(pipe.fileno(), until - time.monotonic()):
                raise WorkerError("timeout")
            chunk = os.read(pipe.fileno(), count - len(data))
            if not chunk:
                raise WorkerError("memory" if self._out_of_memory() else "crash")
            data += chunk
        return data

    def _out_of_memory(self) -> bool:
        try:
            status = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return False
        return status in (-signal.SIGSEGV, -getattr(signal, "SIGKILL", 9))  # what a failed allocation ends in

    def kill(self) -> None:
        """End the process, reap it, close the pipes."""
        self._process.kill()
        self._process.wait()
        self.abandon()

    def abandon(self) -> None:
        """Close this process's ends of the pipes. In a forked child: the worker is the parent's."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._process.returncode is None:
            self._process.returncode = 0  # not ours to wait for


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _readable(descriptor: int, seconds: float) -> bool:
    if seconds <= 0:
        seconds = 0.0
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], seconds)[0])
    poll = select.poll()  # unlike select(), it takes descriptors above 1024
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000) + 1))


class WorkerPool:
    """The worker of this process. Threads take turns; a forked child starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self.starts = 0
        if hasattr(os, "register_at_fork"):
            reference = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _forked(reference))

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while none runs."""
        return self._worker.pid if self._worker is not None else None

    def ask(
        self, pairs: Sequence[tuple[str, str]], *, deadline: float, batch_deadline: float, memory_mb: int
    ) -> list[tuple[str, float]]:
        """For each (answer, reference) what the worker makes of it, or why it does not, and the seconds it took.

        Takes at most ``batch_deadline + deadline`` seconds, starts of workers not counted.
        """
        results: list[tuple[str, float]] = []
        with self._lock:
            spent, failed_starts = 0.0, 0
            for answer, reference in pairs:
                if spent > batch_deadline or failed_starts >= MAX_STARTS:
                    results.append(("timeout" if failed_starts < MAX_STARTS else "crash", 0.0))
                    continue
                worker, begin = self._running(memory_mb), time.monotonic()
                started = worker.ready
                try:
                    outcome = worker.ask(answer, reference, deadline)
                    failed_starts = 0
                except WorkerError as error:
                    outcome = error.reason
                    failed_starts = 0 if worker.ready else failed_starts + 1
                    self._stop()
                    if failed_starts < MAX_STARTS:
                        self._running(memory_mb)  # starts while the caller goes on
                except BaseException:  # Ctrl-C in the middle of a question: its reply must not answer the next one
                    self._stop()
                    raise
                seconds = time.monotonic() - begin
                spent += seconds if started else min(seconds, deadline)
                results.append((outcome, seconds))
        return results

    def _running(self, memory_mb: int) -> Worker:
        if self._worker is not None and self._worker.memory_mb != memory_mb:
            self._stop()
        if self._worker is None:
            self._worker = Worker(memory_mb)
            self.starts += 1
        return self._worker

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """End the worker. The next question starts another."""
        with self._lock:
            self._stop()


def _forked(reference: weakref.ref[WorkerPool]) -> None:
    pool = reference()
    if pool is not None:
        pool._lock = threading.Lock()  # another thread may have held it when the process forked
        worker, pool._worker = pool._worker, None
        if worker is not None:
            worker.abandon()


POOL = WorkerPool()
atexit.register(POOL.close)
