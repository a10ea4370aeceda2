"""Tier 3: math-verify in a process that can be killed.

Each process has one worker, started when it is first needed. The worker is a separate interpreter that communicates
over pipes in JSON: nothing is pickled, this process is never forked and no thread is needed, so it works with threads,
in forked and spawned children, in notebooks and event loops. A question that exceeds its deadline is killed, and the
next one is answered by a fresh fork of the worker (see ``_child.py``).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Sequence
from typing import IO, Any

START_SECONDS = 60.0
"""Limit for the start of a worker, which usually takes one or two seconds."""
RESTART_SECONDS = 2.0
"""Limit for replacing a fork, which usually takes milliseconds; then the whole worker is replaced."""
MAX_STARTS = 3
"""Failed starts in a row after which tier 3 is abandoned for the batch."""


class WorkerError(Exception):
    """The worker failed; ``reason`` becomes that of the verdict: timeout, memory or crash. ``detail`` says why it did
    not start.
    """

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Worker:
    """One worker process, which answers one question at a time."""

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self.ready = False
        child = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_child.py")
        environment = {
            key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if key in os.environ
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", child],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # until it is ready
            bufsize=0,  # no buffer that a forked child could write a second time
            close_fds=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent, and the parent ends the worker
        )
        try:
            self._send({"path": [os.path.abspath(entry or os.getcwd()) for entry in sys.path], "memory_mb": memory_mb})
        except WorkerError:
            self.kill()
            raise WorkerError("crash", "it ends without a word") from None
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The id of the worker process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def start(self) -> None:
        """Wait until the worker has imported what it needs. Raises ``WorkerError`` if it does not start."""
        if self.ready:
            return
        until = time.monotonic() + START_SECONDS
        written = self._errors_until_output(until)
        try:
            if self._receive(until) != "ready":
                raise WorkerError("crash")
        except WorkerError as error:
            silent = f"not ready after {START_SECONDS:.0f} s" if error.reason == "timeout" else "it ends without a word"
            raise WorkerError(error.reason, written.rpartition("\n")[2][:300] or silent) from None
        _pipe(self._process.stderr).close()
        self.ready = True

    def _errors_until_output(self, until: float) -> str:
        """What the worker writes to stderr until it writes to stdout or ends; of a flood, the end."""
        output, errors = _pipe(self._process.stdout).fileno(), _pipe(self._process.stderr).fileno()
        written = b""
        while (left := until - time.monotonic()) > 0 and errors in _readable([output, errors], left):
            if not (chunk := os.read(errors, 65_536)):
                break
            written = (written + chunk)[-65_536:]
        return written.decode("utf-8", "replace").strip()

    def ask(self, answer: str, reference: str, deadline: float) -> str:
        """The worker's outcome for a pair. Raises ``WorkerError`` if it fails or exceeds ``deadline`` seconds."""
        self._send({"answer": answer, "reference": reference, "deadline": deadline})
        try:
            result = str(self._receive(time.monotonic() + deadline))
        except WorkerError as error:
            if error.reason == "timeout":
                self.drop_question()
            raise
        if result.startswith("ended "):
            self._until_ready(time.monotonic() + RESTART_SECONDS)
            raise WorkerError(result.removeprefix("ended "))
        if result in ("memory", "crash"):
            raise WorkerError(result)
        return result

    def drop_question(self) -> None:
        """Kill the fork that is working on a question; the next question goes to a new one."""
        self.ready = False
        self._process.send_signal(signal.SIGUSR1)
        self._until_ready(time.monotonic() + RESTART_SECONDS)

    def _until_ready(self, until: float) -> None:
        self.ready = False
        while self._receive(until) != "ready":  # a late reply may still be in the pipe
            pass
        self.ready = True

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
            if not _readable([pipe.fileno()], until - time.monotonic()):
                raise WorkerError("timeout")
            chunk = os.read(pipe.fileno(), count - len(data))
            if not chunk:
                raise WorkerError("crash")
            data += chunk
        return data

    def kill(self) -> None:
        """End the process and its fork, reap it, close the pipes."""
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()  # the fork reads the end of its input and ends, and the worker follows
        try:
            if self._process.poll() is None and self.ready:
                self._process.send_signal(signal.SIGUSR1)
                self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            pass
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait()
        self.abandon()

    def abandon(self) -> None:
        """Close this process's ends of the pipes, for a forked child: the worker belongs to the parent."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._process.returncode is None:
            self._process.returncode = 0  # not ours to wait for


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _readable(descriptors: Sequence[int], seconds: float) -> list[int]:
    poll = select.poll()  # unlike select(), it takes descriptors above 1024
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(max(0, int(seconds * 1000) + 1))]


class WorkerPool:
    """The worker of this process. Threads take turns; a forked child starts its own worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self.starts = 0
        self.problem: str | None = None
        """Why the worker does not start; None once it has."""
        reference = weakref.ref(self)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _forked(reference))

    @property
    def pid(self) -> int | None:
        """The worker's process id, None if no worker is running."""
        return self._worker.pid if self._worker is not None else None

    def ask(
        self, pairs: Sequence[tuple[str, str]], *, deadline: float, batch_deadline: float, memory_mb: int
    ) -> list[tuple[str, float]]:
        """The worker's outcome (or the reason for its failure) and the seconds taken, for each (answer, reference).

        Takes at most ``batch_deadline + deadline`` seconds, not counting the time to start workers.
        """
        results: list[tuple[str, float]] = []
        with self._lock:
            spent, failures = 0.0, 0
            for answer, reference in pairs:
                if failures >= MAX_STARTS or spent > batch_deadline:
                    results.append(("crash" if failures >= MAX_STARTS else "timeout", 0.0))
                    continue
                begin = time.monotonic()
                try:
                    worker = self._running(memory_mb)
                    begin = time.monotonic()
                    outcome, failures = worker.ask(answer, reference, deadline), 0
                except WorkerError as error:
                    outcome = error.reason
                    self._cannot_start(error.detail)
                    if self._worker is None or not self._worker.ready:
                        failures += 1
                        self._stop()
                except Exception as error:  # the boundary: no process could be started, or its reply was invalid
                    outcome, failures = "crash", failures + 1
                    self._cannot_start(f"{type(error).__name__}: {error}")
                    self._stop()
                except BaseException:  # Ctrl-C in the middle of a question: its reply must not answer the next one
                    self._stop()
                    raise
                seconds = time.monotonic() - begin
                spent += seconds
                results.append((outcome, seconds))
        return results

    def _running(self, memory_mb: int) -> Worker:
        if not hasattr(os, "fork"):
            raise WorkerError("crash", "this system has no fork()")  # Windows
        if self._worker is not None and (self._worker.memory_mb != memory_mb or not self._worker.alive):
            self._stop()
        if self._worker is None:
            self._worker = Worker(memory_mb)
            self.starts += 1
        self._worker.start()
        self.problem = None
        return self._worker

    def _cannot_start(self, detail: str | None) -> None:
        """Keep the reason, and warn if it is a new one."""
        problem = f"the process of the verifier that runs math-verify ({sys.executable}) does not start: {detail}"
        if detail is not None and problem != self.problem:
            self.problem = problem
            warnings.warn(f"{problem}. What only math-verify can decide gets no verdict", RuntimeWarning, stacklevel=2)

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """End the worker. The next question starts another one."""
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
