"""The Python side of shim.c: compiles it, tells it what to do, and reads what it has seen."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from errno import EIO, ENOSPC
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SOURCE = Path(__file__).with_name("shim.c")
ROOT = Path(__file__).parents[2]
LAYOUT = struct.Struct("=QQII1024s1024s1024s1024s")
"""``struct control`` of shim.c."""
KINDS = ("none", "kill", "fail", "fail on", "full", "lie", "torn", "stop")
"""``enum fault`` of shim.c, in its order."""


@dataclass(frozen=True)
class Fault:
    """What happens at the k-th call."""

    kind: str
    """One of KINDS: kill before the call, fail once or from then on (``full``: only what needs room), do the call and
    report that it failed, kill in the middle of it, with half of the bytes written, or stop the process (SIGSTOP)."""
    error: int = 0
    at: int = 0

    def __str__(self) -> str:
        names = {ENOSPC: "ENOSPC", EIO: "EIO", 0: ""}
        return f"{self.kind} {names[self.error]}".strip()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the kind of a fault is one of {', '.join(KINDS)}, not {self.kind!r}")

    def number(self, k: int) -> Fault:
        """The same fault at the ``k``-th call."""
        return replace(self, at=k)


NONE = Fault("none")
FAULTS = (
    Fault("kill"),
    Fault("torn"),
    Fault("fail", ENOSPC),
    Fault("full", ENOSPC),
    Fault("fail", EIO),
    Fault("fail on", EIO),
    Fault("lie", EIO),
)


@dataclass(frozen=True)
class Call:
    """A call that the shim has seen."""

    number: int
    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.number} {self.name} {Path(self.path).name}"


def missing() -> str | None:
    """Why the shim cannot be used here; None if it can."""
    if sys.platform != "linux":
        return "the shim is for Linux"
    return None if shutil.which("cc") else "the shim needs a C compiler, cc"


@cache
def library() -> Path:
    """The shim, compiled once for this process."""
    made = Path(mkdtemp(prefix="faults-")) / "shim.so"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", made, SOURCE], check=True)
    return made


def environment() -> dict[str, str]:
    """That of a process under the shim, which does nothing until it is armed."""
    own = {"LD_PRELOAD": str(library()), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return os.environ | own | {"TOKENIZERS_PARALLELISM": "false"}


def control_file(path: Path, fault: Fault, folders: list[Path]) -> Path:
    """Write the control file ``path`` and return it: ``fault`` strikes calls on files below ``folders``."""
    path.with_name(f"{path.name}.log").unlink(missing_ok=True)
    names = [str(folder).encode() for folder in folders] + [b""] * (4 - len(folders))
    path.write_bytes(LAYOUT.pack(0, fault.at, KINDS.index(fault.kind), fault.error, *names))
    return path


def count(path: Path) -> int:
    """Calls seen so far by the processes that follow the control file ``path``."""
    return int(LAYOUT.unpack(path.read_bytes()[: LAYOUT.size])[0])


def calls(path: Path) -> list[Call]:
    """The calls themselves, in order."""
    log = path.with_name(f"{path.name}.log")
    lines = log.read_text().splitlines() if log.is_file() else []
    seen = [Call(int(number), name, where) for number, name, where in (line.split(" ", 2) for line in lines)]
    return sorted(seen, key=lambda call: call.number)


def arm(path: Path | None) -> None:
    """Follow the control file ``path`` in this process, which runs under the shim, and in those that it starts."""
    if path is not None:
        os.environ["FAULTS_CONTROL"] = str(path)
    ctypes.CDLL(None).faults_arm(None if path is None else str(path).encode())
