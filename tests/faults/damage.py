"""Files that are cut, emptied, zeroed or have a flipped bit, and every command that reads them.

A command may refuse, in one line that names the file, or do as if nothing were. It must not end in a traceback, nor
give other figures in silence. Only a checkpoint has checksums: a flipped digit in a text file is another digit.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from . import jobs, shim
from .crash import OUT, RESUME, Command, _train
from .server import Ended, Server
from .snapshot import Snapshot, differences, snapshot

PAGE = "PAGE"
"""Stands for the file that a report goes to, beside the folder that is read."""
LOOK = ["--steps", "1", "--completions", "16", "--show", "1"]
READERS: dict[str, Command] = {
    "train --resume": RESUME,
    "eval": ("command_line", "eval", OUT, "--problems", "4", "--k", "1"),
    "eval policy": ("command_line", "eval", "OUT/policy", "--env", "espo_gym/Addition-v0", "--problems", "4"),
    "report": ("command_line", "report", OUT, "--no-inspector", "--out", PAGE),
    "report with tokens": ("command_line", "report", OUT, *LOOK, "--out", PAGE),
    "inspect": ("command_line", "inspect", OUT, *LOOK, "--out", PAGE),
    "plot": ("command_line", "plot", OUT, "--metric", "rollout/accuracy", "--out", PAGE + ".png"),
    "compare": ("tuned_comparison", OUT),
}
SEED = "runs/espo/seed_0000/"
RUN = [*jobs.RUN[2:], "--timesteps", "48"]
"""Three rollouts, and a checkpoint of the second and of the third."""


@dataclass(frozen=True)
class Subject:
    """A folder whose files are damaged."""

    name: str
    command: Command
    cut: tuple[str, str] | None
    """The job is killed before the last call of this name on such a file; None: it is whole."""
    readers: Mapping[str, tuple[str, ...]]
    """File -> who reads it."""


RUN_FILES: dict[str, tuple[str, ...]] = {
    "checkpoint.zip": ("train --resume", "eval", "report with tokens", "inspect"),
    "config.json": ("train --resume", "report", "plot"),
    "evaluation.json": ("train --resume", "report"),
    "progress.json": ("train --resume", "report", "plot"),
    "progress.csv": ("train --resume", "report", "plot"),
    "samples.jsonl": ("train --resume", "report"),
}
POLICY_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
COMPARISON_FILES = ("comparison.json", "tuning.json", "results.json", "report.md")
SEED_FILES = ("config.json", "evaluation.json", "outcome.json", "pairing.json", "progress.json", "samples.jsonl")

SUBJECTS = (
    Subject("run", _train(*RUN), None, RUN_FILES | {f"policy/{name}": ("eval policy",) for name in POLICY_FILES}),
    Subject("unfinished run", _train(*RUN), ("rename", "checkpoint.zip"), RUN_FILES),
    Subject(
        "comparison",
        ("tuned_comparison", OUT),
        None,
        dict.fromkeys(COMPARISON_FILES, ("compare",)) | {SEED + name: ("compare", "report") for name in SEED_FILES},
    ),
    Subject(
        "unfinished comparison",
        ("tuned_comparison", OUT),
        ("rename", "outcome.json"),
        {"comparison.json": ("compare",), "tuning.json": ("compare",)}
        | {SEED.replace("0000", "0001") + name: ("compare",) for name in SEED_FILES if name != "outcome.json"},
    ),
)


def damages(data: bytes, flips: int) -> Iterator[tuple[str, bytes]]:
    """``data`` damaged in different ways, each with its name."""
    yield "empty", b""
    yield "zeros", bytes(len(data))
    for at in sorted({1, len(data) // 2, max(0, len(data) - 2)}):
        yield f"cut at {at} of {len(data)}", data[:at]
    chance = random.Random(len(data))
    for _ in range(flips if data else 0):
        at, bit = chance.randrange(len(data)), chance.randrange(8)
        yield f"bit {bit} of byte {at} flipped", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@dataclass(frozen=True)
class Verdict:
    """What a command did with a damaged file."""

    subject: str
    file: str
    damage: str
    reader: str
    result: str
    """refused, or done without with a warning; same; other (figures); unnamed (refused without the file's name); or
    traceback"""
    said: str

    @property
    def kind(self) -> str:
        """What of it can be detected: all in files with checksums, in texts not that a character is another one."""
        if self.file.endswith(".zip"):
            return "checkpoint"
        return "bit of a file without checksums" if "flipped" in self.damage else "file cut, emptied or zeroed"

    @property
    def detectable(self) -> bool:
        """Whether a reader can know."""
        return "without" not in self.kind

    def __str__(self) -> str:
        return f"{self.reader} of {self.subject}, {self.file} {self.damage}: {self.result}: {self.said}"


@dataclass
class Bench:
    """Damages the files of one subject."""

    server: Server
    subject: Subject
    folder: Path
    number: int = field(default=0, init=False)

    @cached_property
    def prepared(self) -> Path:
        """The undamaged folder."""
        here = self.folder / "prepared"
        ended = self._run(self.subject.command, here)
        if self.subject.cut is not None:
            name, ending = self.subject.cut
            at = [c.number for c in shim.calls(here / "control") if c.name == name and c.path.endswith(ending)][-1]
            shutil.rmtree(here)
            ended = self._run(self.subject.command, here, shim.Fault("kill", at=at))
        if ended.code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{self.subject.name} cannot be prepared: {ended.said}")
        return here / "out"

    def read(self, reader: str, file: str | None = None, data: bytes = b"") -> tuple[Ended, Snapshot]:
        """Let ``reader`` read a copy in which ``file`` holds ``data``: how it ends, and what the folder then holds."""
        self.number += 1
        here = self.folder / str(self.number)
        shutil.copytree(self.prepared, here / "out")
        if file is not None:
            (here / "out" / file).write_bytes(data)
        ended = self._run(READERS[reader], here)
        found = dict(snapshot(here))
        for name in ("control", "control.log", "said", *([f"out/{file}"] if file else [])):
            found.pop(name, None)
        shutil.rmtree(here)
        return Ended(ended.code, ended.said.replace(str(here), ""), ended.left), {
            name: value.replace(str(here).encode(), b"") if isinstance(value, bytes) else value
            for name, value in found.items()
        }

    def verdicts(self, flips: int) -> Iterator[Verdict]:
        """Every damage of every file, as each of its readers takes it."""
        whole = {reader: self.read(reader) for reader in {r for names in self.subject.readers.values() for r in names}}
        for reader, (ended, _) in whole.items():
            if ended.code != 0:
                raise RuntimeError(f"{reader} of an undamaged {self.subject.name}: {ended.said}")
        for file, readers in self.subject.readers.items():
            for damage, data in damages((self.prepared / file).read_bytes(), flips):
                for reader in readers:
                    ended, after = self.read(reader, file, data)
                    judged = _judge(file, ended, after, *whole[reader])
                    yield Verdict(self.subject.name, file, damage, reader, *judged)

    def _run(self, command: Command, here: Path, fault: shim.Fault = shim.NONE) -> Ended:
        return self.server.run([_fill(part, here) for part in command], here, fault)


def _fill(part: Any, here: Path) -> Any:
    if not isinstance(part, str):
        return part
    return part.replace(OUT, str(here / "out")).replace(PAGE, str(here / "page.html"))


def _judge(file: str, ended: Ended, after: Snapshot, sound: Ended, whole: Snapshot) -> tuple[str, str]:
    """The result, and what is to be said of it."""
    if ended.code != 0:
        if not ended.failed_in_words:
            return "traceback", ended.last_line
        return "refused" if _named(file, ended.said) else "unnamed", ended.last_line
    other = differences(after, {name: value for name, value in whole.items() if name != f"out/{file}"})
    other += ["it says something else"] * (ended.said != sound.said)
    if other and "Warning: " in ended.said and _named(file, ended.said):
        return "refused", ended.last_line
    return ("other", "; ".join(other)) if other else ("same", "")


def _named(file: str, said: str) -> bool:
    """Whether the message leads to ``file``; for a part of a policy, the folder does."""
    return Path(file).name in said or (file.startswith("policy/") and "/policy" in said)
