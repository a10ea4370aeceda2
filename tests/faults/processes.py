"""The real command line in processes of its own: signals, readers that are gone, and two processes in one folder.

What a process does at which moment is decided by the shim: it stops the process at a call, the harness sends it a
signal or starts another one, and lets it go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import shim
from .crash import RESUME, _train
from .jobs import RUN
from .server import Ended, Server
from .shim import Call, Fault
from .snapshot import Snapshot, differences, extra, snapshot

SECONDS = 180.0


def espo_gym(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "espo_gym.cli.main", *arguments]


def start(command: Sequence[str], folder: Path, fault: Fault = shim.NONE) -> subprocess.Popen[bytes]:
    """Start ``command`` in a group of its own; ``folder`` is used as by :meth:`.server.Server.run`."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    control = shim.control_file(folder / "control", fault, [folder / "out", folder / "tmp"])
    own = {"FAULTS_CONTROL": str(control), "TMPDIR": str(folder / "tmp")}
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            command, env=shim.environment() | own, stdout=said, stderr=said, start_new_session=True, cwd=shim.ROOT
        )


def wait(process: subprocess.Popen[bytes], folder: Path) -> Ended:
    """Wait for the end of ``process``; one that hangs is killed."""
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code = -signal.SIGALRM
    return Ended(code, (folder / "said").read_text(errors="replace"))


def wait_until_stopped(process: subprocess.Popen[bytes]) -> bool:
    """Wait until ``process`` has stopped at a call; False if it has ended."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "TZ":
            return state == "T"
        time.sleep(0.02)
    raise TimeoutError(f"process {process.pid} has not come to the call where it should stop")


@dataclass(frozen=True)
class Moment:
    """A moment of a run."""

    name: str
    call: Callable[[Sequence[Call]], int]
    """Which of the calls of a whole run."""
    delay: float = 0.0
    """Seconds after it."""


def _first(calls: Sequence[Call], name: str, ending: str, skip: int = 0) -> int:
    found = [call.number for call in calls if call.name == name and call.path.endswith(ending)]
    return found[skip]


def _last_before(calls: Sequence[Call], ending: str) -> int:
    last = max(i for i, call in enumerate(calls) if ending in call.path and call.name == "open")
    return calls[last - 1].number


MOMENTS = (
    Moment("training", lambda calls: _first(calls, "write", "progress.json")),
    Moment("saving", lambda calls: _first(calls, "rename", "checkpoint.zip", 1) - 2),
    Moment("last evaluation", lambda calls: _last_before(calls, "samples.jsonl"), 0.05),
)
KEEP_GOING = (signal.SIGPIPE, signal.SIGCONT)
"""Signals that do not end training."""
SAVE_FIRST = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)
"""Signals after which training saves at the next rollout."""
AT_ONCE = (signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True)
class Finding:
    """What a check has found: nothing, if all is well."""

    name: str
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(self.wrong) or 'survived'}"


@dataclass
class Whole:
    """The undisturbed run that the others are compared with."""

    server: Server
    folder: Path
    """For every experiment's folder."""

    def __post_init__(self) -> None:
        here = self.folder / "whole"
        ended = wait(start(espo_gym("train", *RUN, "--out", str(here / "out")), here), here)
        if ended.code != 0:
            raise RuntimeError(ended.said)
        self.snapshot: Snapshot = snapshot(here / "out")
        self.calls = shim.calls(here / "control")

    def compared(self, here: Path, *, without: str = "") -> list[str]:
        """What is wrong in ``here``, the file ``without`` aside."""
        now, whole = snapshot(here / "out"), {n: value for n, value in self.snapshot.items() if n != without}
        left = [f"{name} is left" for name in extra(now, self.snapshot)]
        # What an undisturbed run leaves there is torch's.
        theirs = {path.name for path in (self.folder / "whole" / "tmp").iterdir()}
        left += [f"TMPDIR/{path.name} is left" for path in (here / "tmp").iterdir() if path.name not in theirs]
        return differences(now, whole) + left

    def resumed(self, here: Path) -> list[str]:
        """What is wrong after the run in ``here`` has been resumed, or started again if there is nothing to resume.

        This takes the server, which draws no curves.
        """
        for command in (RESUME, _train(*RUN)):
            ended = self.server.run([here / "out" if part == "OUT" else part for part in command], here)
            if ended.code == 0:
                return self.compared(here, without="curves.png")
        return [f"again: exit {ended.code}, {ended.last_line}"]


def signaled(whole: Whole, number: signal.Signals, moment: Moment, *, twice: bool = False) -> Finding:
    """Send a signal at a moment of a run, look at how the run ends, and resume it."""
    name = f"{number.name}{' twice' if twice else ''}, {moment.name}"
    here = whole.folder / name.replace(" ", "_").replace(",", "")
    at = Fault("stop", at=moment.call(whole.calls))
    process = start(espo_gym("train", *RUN, "--out", str(here / "out")), here, at)
    wrong: list[str] = []
    if not wait_until_stopped(process):
        return Finding(name, ("it ended before the moment",))
    if moment.delay:
        process.send_signal(signal.SIGCONT)
        time.sleep(moment.delay)
    for _ in range(1 + twice):
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02 * twice)
    ended = wait(process, here)
    if number in KEEP_GOING:
        wrong += [f"exit {ended.code}"] * (ended.code != 0) + whole.compared(here)
        return Finding(name, tuple(wrong))
    expected = -number if twice or number == signal.SIGQUIT else 128 + number
    wrong += [f"exit {ended.code}, not {expected}"] * (ended.code != expected)
    wrong += ["it does not say how to resume"] * (expected > 0 and "resume" not in ended.said)
    wrong += ["a traceback"] * ("Traceback" in ended.said)
    return Finding(name, (*wrong, *whole.resumed(here)))


def signaled_early(whole: Whole, number: signal.Signals, seconds: float) -> Finding:
    """Send a signal while the run imports and loads, before it has written anything."""
    name = f"{number.name} after {seconds} s"
    here = whole.folder / name.replace(" ", "_")
    process = start(espo_gym("train", *RUN, "--out", str(here / "out")), here)
    time.sleep(seconds)
    process.send_signal(number)
    ended = wait(process, here)
    wrong = ["exit 0"] * (ended.code == 0 and number not in KEEP_GOING) + ["a traceback"] * ("Traceback" in ended.said)
    return Finding(name, (*wrong, *whole.resumed(here)))


READERS = {
    "stdout | head -1": "{} | head -1",
    "all | head -1": "{} 2>&1 | head -1",
    "stderr | head -1": "{} 2>&1 >/dev/null | head -1",
    "stdout closed": "{} >&-",
    "stderr closed": "{} 2>&-",
    "both closed": "{} >&- 2>&-",
    "stdout full": "{} >/dev/full",
    "stderr full": "{} 2>/dev/full",
    "stdin closed": "{} <&-",
}
"""Shell commands whose reader goes away, or never was."""


def unread(whole: Whole, name: str) -> Finding:
    """Train, with lines of progress, where nobody reads them."""
    here = whole.folder / name.replace(" ", "_").replace("|", "")
    arguments = [part for part in RUN if part != "--no-progress"]
    line = READERS[name].format(" ".join(espo_gym("train", *arguments, "--out", str(here / "out"))))
    ended = wait(start(["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], here), here)
    wrong = [f"exit {ended.code}, {ended.last_line}"] * (ended.code != 0)
    return Finding(name, (*wrong, *whole.compared(here)))


def contended(whole: Whole, name: str, second: Sequence[str], holder_dies: bool) -> Finding:
    """Start ``second`` in the folder of a run that is at work, which then goes on or is killed."""
    here = whole.folder / name.replace(" ", "_").replace(",", "")
    at = Fault("stop", at=MOMENTS[0].call(whole.calls))
    process = start(espo_gym("train", *RUN, "--out", str(here / "out")), here, at)
    if not wait_until_stopped(process):
        return Finding(name, ("it ended before the moment",))
    refused = whole.server.run(["command_line", *second, "--out", here / "out"], whole.folder / "second")
    wrong = [] if refused.failed_in_words else [f"the second: exit {refused.code}, {refused.last_line}"]
    wrong += ["who holds the folder is not said"] * (str(process.pid) not in refused.said)
    if holder_dies:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Finding(name, (*wrong, *whole.resumed(here)))
    process.send_signal(signal.SIGCONT)
    ended = wait(process, here)
    wrong += [f"the first: exit {ended.code}, {ended.last_line}"] * (ended.code != 0)
    return Finding(name, (*wrong, *whole.compared(here)))


def compared_by_workers(whole: Whole, share: float | None) -> Finding:
    """Kill a comparison with two workers, which are spawned, at this share of its calls, and call it again.

    None: instead of the kill, a second one is called while the first is at work.
    """
    name = "compare and compare" if share is None else f"compare --jobs 2 killed at {share:.0%} of its calls"
    here, reference = whole.folder / name.replace(" ", "_"), whole.folder / "comparison"
    command = ("comparison", reference / "out", 1)
    if not reference.exists():
        whole.server.run(command, reference)
    at = int((share or 0.3) * shim.count(reference / "control"))
    code = f"from tests.faults import jobs; jobs.comparison({str(here / 'out')!r}, 2, 'spawn')"
    process = start([sys.executable, "-c", code], here, Fault("stop" if share is None else "kill", at=at))
    wrong: list[str] = []
    if share is None:
        if not wait_until_stopped(process):
            return Finding(name, ("it ended before the moment",))
        refused = whole.server.run(("comparison", here / "out", 1), whole.folder / "second")
        wrong += [f"the second: exit {refused.code}, {refused.last_line}"] * (not refused.failed_in_words)
        wrong += ["who holds the folder is not said"] * (str(process.pid) not in refused.said)
        os.killpg(process.pid, signal.SIGCONT)
        ended = wait(process, here)
    else:
        wait(process, here)
        ended = wait(start([sys.executable, "-c", code], here), here)
    wrong += [f"exit {ended.code}, {ended.last_line}"] * (ended.code != 0)
    now, sound = snapshot(here / "out"), snapshot(reference / "out")
    return Finding(name, (*wrong, *differences(now, sound), *(f"{left} is left" for left in extra(now, sound))))


SECONDS_IN_FOLDER = {
    "train and train": ["train", *RUN],
    "train and resume": ["train", "--resume"],
    "train and overwrite": ["train", *RUN, "--overwrite", "--seed", "9"],
}
"""What is started in the folder of a run that is at work."""
