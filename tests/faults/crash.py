"""Every fault at every call of a job: disturb it there, do it again as a user would, and compare with the whole job."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, zip_longest
from math import gcd
from pathlib import Path
from typing import Any

from . import jobs, shim
from .server import Ended, Server
from .shim import Call, Fault
from .snapshot import Snapshot, differences, extra, snapshot

Command = Sequence[Any]
"""The name of a function of jobs.py and its arguments; ``OUT`` stands for the folder it works in."""
OUT = "OUT"


@dataclass(frozen=True)
class Job:
    """What is disturbed, and what a user does afterwards."""

    name: str
    command: Command
    again: tuple[Command, ...]
    """Tried in turn until one is accepted."""
    before: Command | None = None
    """Done first and disturbed by ``cut``: the job is about what that leaves."""
    cut: Callable[[Call], bool] | None = None
    """The call before which ``before`` is killed. The job is then to leave what ``before`` leaves undisturbed."""
    speaks: bool = False
    """What it says is its result."""


def _train(*arguments: str) -> Command:
    return ("command_line", "train", *arguments, "--out", OUT)


RESUME = _train("--resume", "--no-progress")


def train_job(size: Sequence[str], name: str = "train") -> Job:
    """``espo-gym train``, resumed or, where there is nothing to resume, started again."""
    return Job(name, _train(*size), (RESUME, _train(*size)))


def resume_job(size: Sequence[str]) -> Job:
    """``espo-gym train --resume`` of a run that was killed while it wrote its second checkpoint."""
    saves: list[str] = []

    def second_save(call: Call) -> bool:
        saves.extend([call.path] * (call.name == "rename" and call.path.endswith("checkpoint.zip")))
        return len(saves) == 2

    return Job("train --resume", RESUME, (RESUME,), before=_train(*size), cut=second_save)


def _evaluation() -> Job:
    command = ("command_line", "eval", OUT, "--problems", "4", "--k", "1")
    return Job("eval", command, (command,), before=_train(*jobs.TINY), speaks=True)


def _comparison(n: int) -> Job:
    command = ("comparison", OUT, n)
    return Job(f"compare, jobs={n}", command, (command,))


JOBS = (
    train_job(jobs.RUN),
    resume_job(jobs.RUN),
    _evaluation(),
    _comparison(1),
    _comparison(2),
    Job("script", ("script", OUT), (("script", OUT),)),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one experiment."""

    job: str
    fault: Fault
    call: Call
    result: str
    """"survived", "left" (whole, with something lying about), "unclear" (whole, after more than one line) or "lost"."""
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.job}: {self.fault} at {self.call}: {self.result}: {'; '.join(self.details)}"


@dataclass
class Bench:
    """Runs the experiments of one job.

    Args:
        plant: a function of jobs.py that spoils the library in the disturbed process and in the one after it.
    """

    server: Server
    job: Job
    folder: Path
    plant: str | None = None
    number: int = field(default=0, init=False)

    @cached_property
    def prepared(self) -> tuple[Path, Snapshot] | None:
        """The folder that the job begins with, and what ``before`` leaves undisturbed."""
        if self.job.before is None:
            return None
        here = self.folder / "prepared"
        self._undisturbed(self.job.before, here)
        whole = snapshot(here / "out")
        if self.job.cut is not None:
            at = next(call.number for call in shim.calls(here / "control") if self.job.cut(call))
            shutil.rmtree(here)
            self._run(self.job.before, here, Fault("kill", at=at))
        return here / "out", whole

    @cached_property
    def whole(self) -> tuple[Snapshot, list[Call], str]:
        """What the undisturbed job leaves, the calls it makes, and what it says."""
        here = self._fresh("whole")
        ended = self._undisturbed(self.job.command, here)
        calls = shim.calls(here / "control")
        if len(calls) != shim.count(here / "control") or not calls:
            raise RuntimeError(f"the shim has counted {shim.count(here / 'control')} calls and noted {len(calls)}")
        left = snapshot(here / "out") if self.job.cut is None or self.prepared is None else self.prepared[1]
        return left, calls, ended.said

    def attempt(self, fault: Fault, call: Call) -> Outcome:
        """The experiment with ``fault`` at ``call``, one of those of the whole job."""
        whole, _, said = self.whole
        self.number += 1
        here = self._fresh(f"{self.number}")
        ended = self._run(self.job.command, here, fault.number(call.number))
        # Threads may have taken turns in another order this time.
        call = next((seen for seen in shim.calls(here / "control") if seen.number == call.number), call)
        details, unclear = [], []
        if ended.code == 0:
            details += [f"exit 0, but {what}" for what in differences(snapshot(here / "out"), whole)]
        elif ended.code != -signal.SIGKILL and not ended.failed_in_words:
            unclear.append(f"exit {ended.code}, {ended.last_line}")
        if ended.left:
            unclear.append(f"{ended.left} processes outlived it")
        if ended.code != 0:
            ended = self._again(here)
            if ended.code != 0:
                details.append(f"again: exit {ended.code}, {ended.last_line}")
        if self.job.speaks and ended.said != said:
            details.append("it says something else")
        after = snapshot(here / "out")
        details += [] if details else differences(after, whole)
        left = [f"{name} is left" for name in extra(after, whole)]
        left += [f"TMPDIR/{path.name} is left" for path in (here / "tmp").iterdir() if not _probe(path)]
        if fault.kind.startswith("fail") and call.name in ("unlink", "rmdir"):
            left = []  # what cannot be removed stays
        result = "lost" if details else "unclear" if unclear else "left" if left else "survived"
        if result != "lost":
            shutil.rmtree(here)
        return Outcome(self.job.name, fault, call, result, (*details, *unclear, *left))

    def _undisturbed(self, command: Command, here: Path) -> Ended:
        ended = self._run(command, here)
        if ended.code != 0 or ended.left or any((here / "tmp").iterdir()):
            raise RuntimeError(
                f"{self.job.name}, without a fault, ends with {ended.code} and leaves {ended.left} processes and "
                f"{[path.name for path in (here / 'tmp').iterdir()]}: {ended.said}"
            )
        return ended

    def _again(self, here: Path) -> Ended:
        for command in self.job.again:
            ended = self._run(command, here)
            if ended.code == 0:
                break
        return ended

    def _fresh(self, name: str) -> Path:
        here = self.folder / name
        here.mkdir(parents=True)
        if self.prepared is not None:
            shutil.copytree(self.prepared[0], here / "out")
        return here

    def _run(self, command: Command, here: Path, fault: Fault = shim.NONE) -> Ended:
        filled = [here / "out" if part == OUT else part for part in command]
        return self.server.run(filled, here, fault, plant=self.plant)


def _probe(path: Path) -> bool:
    """Whether Python made ``path`` to see whether it can write there; a kill leaves it, and nothing can be done."""
    return path.is_file() and path.stat().st_size <= 4 and len(path.name) == 8


def spread(calls: Iterable[Call]) -> Iterator[Call]:
    """The calls in an order whose beginning has one of each kind, then a second one of each, and so on.

    Calls of a kind have the same name and work on a file of the same name. Of a row of calls on one file, such as the
    parts of an archive or the records of TensorBoard, only the first two, the last two and every tenth are among them.
    """
    kinds: dict[tuple[str, str], list[Call]] = {}
    for _, group in groupby(calls, key=lambda call: call.path):
        row = list(group)
        for i, call in enumerate(row):
            if i < 2 or i >= len(row) - 2 or i % 10 == 0:
                name = re.sub(r"[-.]\w{6,}$|\d+", "", Path(call.path).name)
                kinds.setdefault((call.name, name), []).append(call)
    orders = [_apart(found, first=i) for i, found in enumerate(kinds.values())]
    for turn in zip_longest(*orders):
        yield from (call for call in turn if call is not None)


def _apart(calls: Sequence[Call], first: int) -> list[Call]:
    """``calls`` in an order in which neighbors are far apart, which begins with number ``first``."""
    step = max(1, round(len(calls) * 0.618))
    while gcd(step, len(calls)) > 1:
        step += 1
    return [calls[(first + i * step) % len(calls)] for i in range(len(calls))]
