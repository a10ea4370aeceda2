"""``python -m tests.faults``: every kind of fault for a bounded time, and a table of what came of it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import crash, damage, processes, shim
from .server import Server

PARTS = ("crash", "damage", "processes")


class Table:
    """Rows of the table, and what went wrong."""

    def __init__(self) -> None:
        self.rows: list[tuple[object, ...]] = []
        self.wrong: list[str] = []

    def add(self, *row: object) -> None:
        """Add a row: the fault, how many were tried, survived, left something, said it badly, lost something."""
        self.rows.append(row)

    def note(self, text: object) -> None:
        """Remember and print what went wrong."""
        self.wrong.append(str(text))
        print(text, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        head = ("fault", "tried", "survived", "something left", "unclear message", "lost")
        lines = [head, ("---",) * len(head), *self.rows]
        return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def crashes(server: Server, job: crash.Job, folder: Path, given: argparse.Namespace, table: Table) -> None:
    """The faults at the calls of ``job``, in turn, for as long as there is time."""
    seconds = given.minutes * 60 * given.jobs / given.parts_of_time
    bench = crash.Bench(server, job, folder)
    _, calls, _ = bench.whole
    chosen = [call for call in calls if call.number == given.at] if given.at else list(crash.spread(calls))
    todo = {fault: iter(chosen) for fault in shim.FAULTS if given.fault in str(fault)}
    results: dict[shim.Fault, list[str]] = {fault: [] for fault in todo}
    end = time.monotonic() + seconds
    while todo and time.monotonic() < end:
        for fault in list(todo):
            call = next(todo[fault], None)
            if call is None:
                del todo[fault]
                continue
            outcome = bench.attempt(fault, call)
            results[fault].append(outcome.result)
            if outcome.result != "survived":
                table.note(outcome)
    for fault, all_of_it in results.items():
        counts = [all_of_it.count(name) for name in ("survived", "left", "unclear", "lost")]
        table.add(f"{job.name} ({len(calls)} calls): {fault}", len(all_of_it), *counts)


def damaged(server: Server, folder: Path, flips: int, table: Table) -> None:
    """All damages of all files."""
    found: dict[str, Counter[str]] = {}
    for subject in damage.SUBJECTS:
        for verdict in damage.Bench(server, subject, folder / subject.name).verdicts(flips):
            found.setdefault(verdict.kind, Counter())[verdict.result] += 1
            if verdict.result not in ("refused", "same"):
                table.note(verdict)
    for kind, n in found.items():
        table.add(kind, n.total(), n["refused"] + n["same"], "", n["unnamed"] + n["traceback"], n["other"])


def real_processes(server: Server, folder: Path, table: Table) -> None:
    """Signals, readers that are gone, and two processes in one folder."""
    whole = processes.Whole(server, folder)
    for kind, found in _checks(whole):
        wrong = 0
        findings = [make() for make in found]
        for finding in findings:
            if finding.wrong:
                wrong += 1
                table.note(finding)
        table.add(kind, len(findings), len(findings) - wrong, "", "", wrong)


def _checks(whole: processes.Whole) -> Iterator[tuple[str, Sequence[Callable[[], processes.Finding]]]]:
    ends = (*processes.SAVE_FIRST, *processes.AT_ONCE)
    for number in (*ends, *processes.KEEP_GOING):
        moments = [partial(processes.signaled, whole, number, moment) for moment in processes.MOMENTS]
        yield f"{number.name} while training, saving, evaluating", moments
    training = processes.MOMENTS[0]
    yield "a signal twice", [partial(processes.signaled, whole, n, training, twice=True) for n in ends[:2]]
    early = [partial(processes.signaled_early, whole, n, seconds) for n in ends for seconds in (1.0, 5.0)]
    yield "a signal while loading", early
    yield "readers that are gone", [partial(processes.unread, whole, name) for name in processes.READERS]
    seconds_in = [
        partial(processes.contended, whole, f"{name}{' dies' * dies}", command, dies)
        for name, command in processes.SECONDS_IN_FOLDER.items()
        for dies in (False, True)
    ]
    yield "a second process in the folder", seconds_in
    shares = (None, 0.1, 0.4, 0.7, 0.95)
    yield "a comparison with spawned workers", [partial(processes.compared_by_workers, whole, s) for s in shares]


def main() -> int:
    """Run the parts that the command line names; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--minutes", type=float, default=30, help="for crash, over all jobs")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at a time")
    parser.add_argument("--flips", type=int, default=8, help="flipped bits of each file")
    parser.add_argument("--only", default="", help="jobs of crash whose name contains this")
    parser.add_argument("--fault", default="", help="faults of crash whose name contains this, such as kill or ENOSPC")
    parser.add_argument("--at", type=int, help="of crash, the number of the call to disturb, to do one again")
    parser.add_argument("--keep", type=Path, help="an empty folder for all files, kept afterwards")
    given = parser.parse_args()
    if reason := shim.missing():
        parser.error(reason)
    shim.library()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    table, began = Table(), time.monotonic()
    parts, jobs = given.parts or PARTS, [job for job in crash.JOBS if given.only in job.name]
    given.parts_of_time = max(1, len(jobs))

    def crash_job(job: crash.Job) -> None:
        with Server() as server:
            crashes(server, job, folder / job.name, given, table)

    if "crash" in parts:
        with ThreadPoolExecutor(given.jobs) as threads:
            list(threads.map(crash_job, jobs))
    with Server() as server:
        if "damage" in parts:
            damaged(server, folder / "damage", given.flips, table)
        if "processes" in parts:
            real_processes(server, folder / "processes", table)
    print(f"{table}\n\n{time.monotonic() - began:.0f} s")
    if given.keep is None:
        shutil.rmtree(folder)
    return int(bool(table.wrong))


if __name__ == "__main__":
    sys.exit(main())
