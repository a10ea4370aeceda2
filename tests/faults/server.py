"""A process that imports the library once, under the shim, and forks a process for each job.

Starting Python and importing torch takes five seconds of CPU time, and there are thousands of jobs. What a fork cannot
show, the start of a process and its end, is shown by processes.py with the real command line.

``python -m tests.faults.server`` reads requests and writes answers, a line of JSON each; :class:`Server` is their other
end.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import shim

SECONDS = 120.0
"""A job that takes longer hangs."""


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    code: int
    """Exit code; the negative number of the signal that killed it."""
    said: str
    """Standard output and standard error."""
    left: int = 0
    """Processes of its group that outlived it by two seconds, and were killed then."""

    @property
    def failed_in_words(self) -> bool:
        """It ended with exit code 1 and one line, as a mistake of the user or of the disk should."""
        return self.code == 1 and "Traceback" not in self.said and "Error: " in self.said

    @property
    def last_line(self) -> str:
        """The last line that it said."""
        return next(reversed(self.said.strip().splitlines()), "")


class Server:
    """Runs jobs, one after another, each in a process of its own; use it as a context."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=shim.ROOT,
            env=shim.environment(),
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(
        self, job: Sequence[Any], folder: Path, fault: shim.Fault = shim.NONE, *, plant: str | None = None
    ) -> Ended:
        """Run ``job``, the name of a function of jobs.py and its arguments, with ``fault``.

        ``folder`` gets its temporary files (``tmp``), what it says (``said``) and the control file (``control``); what
        it does to ``tmp`` and to ``out`` counts. ``plant`` names a function that spoils the library first.
        """
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        control = shim.control_file(folder / "control", fault, [folder / "out", folder / "tmp"])
        said = folder / "said"
        request = {"job": [str(part) if isinstance(part, Path) else part for part in job], "plant": plant}
        request |= {"control": str(control), "tmp": str(folder / "tmp"), "said": str(said)}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server has ended with {self.process.wait()}")
        return Ended(**json.loads(answer), said=said.read_text(errors="replace"))


# -- the other end -----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until there are no more."""
    # What a killed job leaves running becomes a child of this process, which can wait for it.
    shim.ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_what_jobs_import()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _import_what_jobs_import() -> None:
    """Run a job in a fork to see what it imports, and import that here, where no thread has been started."""
    for module in ("espo_gym.cli.main", "espo_gym.experiments.compare", "transformers.models.llama.modeling_llama"):
        importlib.import_module(module)  # most of it, so that it is not imported twice
    folder = Path(tempfile.mkdtemp(prefix="faults-"))  # not a TemporaryDirectory: the fork would remove it at its end
    request: dict[str, Any] = {"job": ["warm_up", str(folder / "out"), str(folder / "modules")], "plant": None}
    request |= {"control": None, "tmp": str(folder), "said": str(folder / "said")}
    if _answer(request)["code"] != 0:
        raise RuntimeError((folder / "said").read_text())
    for module in (folder / "modules").read_text().splitlines():
        with suppress(Exception):  # parts of packages that cannot be imported alone
            importlib.import_module(module)
    shutil.rmtree(folder)


def _answer(request: dict[str, Any]) -> dict[str, int]:
    pid = os.fork()
    if pid == 0:
        _child(request)
    ready, _, _ = select.select([os.pidfd_open(pid)], [], [], SECONDS)
    if not ready:
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status) if ready else -signal.SIGALRM
    return {"code": code, "left": _wait_for_group(pid)}


def _wait_for_group(group: int) -> int:
    """Wait for the processes of ``group``; kill those that are there after two seconds, and return how many."""
    deadline, left = time.monotonic() + 2, 0
    while True:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return left
        if pid:
            left += time.monotonic() > deadline
        else:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            time.sleep(0.005)


def _child(request: dict[str, Any]) -> None:
    """The forked process: does the job, and ends as an interpreter does."""
    code = 1
    try:
        os.setsid()
        said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for fd in (1, 2):
            os.dup2(said, fd)
        os.environ["TMPDIR"], tempfile.tempdir = request["tmp"], None
        from . import jobs

        if request["plant"] is not None:
            getattr(jobs, request["plant"])()
        name, *arguments = request["job"]
        if request["control"] is not None:
            shim.arm(Path(request["control"]))
        getattr(jobs, name)(*arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        getattr(threading, "_shutdown")()  # noqa: B009 - waits for threads, as the end of the interpreter does
        getattr(atexit, "_run_exitfuncs")()  # noqa: B009
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
