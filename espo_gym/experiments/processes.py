"""Independent jobs in worker processes, which end when their parent ends, even if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from .stopping import Stopped, StopSignals


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(work: Sequence[tuple[str, Callable[[], object]]], jobs: int, log: Callable[[str], Any]) -> None:
    """Call every function in ``work`` in up to ``jobs`` processes; with one job, in this process.

    Args:
        work: ``(label, function)`` pairs; the functions must be picklable.
        log: called with the label and the returned value of each function that has finished.

    Raises:
        ValueError: ``jobs`` is below 1.
        Exception: the first error of a function, after the other processes have been ended.
        Stopped: a signal asked for an end (:mod:`.stopping`), and the functions under way have ended too.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    jobs = min(jobs, len(work))
    if jobs <= 1:
        for done, (label, function) in enumerate(work, 1):
            log(f"[{done}/{len(work)}] {label}: {function()}")
        return
    others = set(multiprocessing.active_children())
    # Spawned: a fork of a process that has used torch's threads may hang.
    executor = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_initialize_worker)
    try:
        futures = {executor.submit(function): label for label, function in work}
        for done, future in enumerate(as_completed(futures), 1):
            if future.exception() is not None:
                log(f"[{done}/{len(work)}] {futures[future]}: stopped")
            log(f"[{done}/{len(work)}] {futures[future]}: {future.result()}")
    except BaseException as error:
        children = set(multiprocessing.active_children()) - others
        stopped = isinstance(error, Stopped)
        executor.shutdown(wait=False, cancel_futures=True)
        for child in children:
            if stopped:
                child.terminate()  # which lets it save what it has
            else:
                child.kill()
        executor.shutdown(wait=stopped)
        raise
    executor.shutdown()


def _initialize_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which then ends its children
    # An idle worker outlives a signal: the pool would take its end for a crash, and end the others before they save.
    StopSignals(worker=True).__enter__()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)  # the parent was killed: whoever resumes its work must find nobody working on it

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, so that results do not depend on how many threads share a sum."""
    import torch  # here: processes that do other work start faster without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
