"""A head-to-head comparison: several entries, the same seeds, and one folder of plain files that it goes on from.

comparison.json             what is compared
runs/ENTRY/seed_0000/       a run's folder (see run.py), with pairing.json and outcome.json besides
report.md                   the report; results.csv and results.json have its numbers
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .budget import Ledger
from .comparison import Comparison, run_folder
from .processes import cores, in_processes, one_thread
from .run import RunConfig, algorithm_class, train, write_json

COMPARISON, LOCK = "comparison.json", "comparison.lock"
OWN = (LOCK, "comparison.part", "tuning", "tuning.json", "tuning.part")
"""What may be in a folder before there is a comparison in it."""

UNLIMITED = 10**9
"""Completions of a run that is held to seconds."""


@dataclass(frozen=True)
class Entry:
    """One contestant."""

    name: str
    """Label, and the name of a folder."""
    algo: str
    """A key of ``ALGORITHMS``, or ``module:Class`` for one of your own."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """What differs from the preset and from what all entries share."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", self.name):
            raise ValueError(f"{self.name!r} is no name of an entry: letters, digits and _ . + - after the first")
        algorithm_class(self.algo)  # a mistake shows here
        if "seed" in self.hyperparameters:
            raise ValueError(f"entry {self.name!r}: the seeds are those of the comparison, the same for every entry")


@dataclass(frozen=True)
class Setting:
    """What all entries share."""

    env: str = RunConfig.env
    env_args: dict[str, Any] = field(default_factory=dict)
    policies: tuple[str, ...] = (RunConfig.policy,)
    """Seed s starts from policy s modulo their number."""
    timesteps: int | None = 7_680
    """Budget of a run in completions, or none where it is in seconds."""
    seconds: float | None = None
    """Budget of a run in seconds of training, see :class:`Ledger`."""
    dtype: str = RunConfig.dtype
    eval_problems: int = 256
    eval_k: int = 8
    eval_every: int = 0
    save_every: int = RunConfig.save_every
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Of all entries; an entry's own win."""

    def __post_init__(self) -> None:
        if (self.timesteps is None) == (self.seconds is None):
            raise ValueError("a budget is needed, either in timesteps or in seconds")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, not {self.seconds}")
        if not self.policies:
            raise ValueError("at least one policy is needed")
        if "seed" in self.hyperparameters:
            raise ValueError("give the comparison its seeds, not the algorithms one of their own")

    def config(self, entry: Entry, seed: int) -> RunConfig:
        config = RunConfig(
            algo=entry.algo,
            policy=self.policies[seed % len(self.policies)],
            dtype=self.dtype,
            env=self.env,
            env_args=dict(self.env_args),
            timesteps=self.timesteps or UNLIMITED,
            eval_problems=self.eval_problems,
            eval_k=self.eval_k,
            eval_every=self.eval_every,
            save_every=self.save_every,
            hyperparameters=self.hyperparameters | entry.hyperparameters | {"seed": seed},
        )
        config.validate()
        return config


def compare(
    entries: Sequence[str | Entry],
    env: str = RunConfig.env,
    *,
    policy: str | Path | Sequence[str | Path] = RunConfig.policy,
    env_args: dict[str, Any] | None = None,
    seeds: int | Sequence[int] = 10,
    timesteps: int | None = None,
    seconds: float | None = None,
    preset: str | None = None,
    hyperparameters: dict[str, Any] | None = None,
    dtype: str = RunConfig.dtype,
    eval_problems: int = 256,
    eval_k: int = 8,
    eval_every: int = 0,
    save_every: int = RunConfig.save_every,
    out: str | Path,
    jobs: int | None = None,
    say: Callable[[str], Any] = print,
) -> Comparison:
    """Run every entry with every seed in the folder ``out``, and read what came of it.

    At a seed all entries have the same initial weights, problems and sampling streams. What the folder holds already is
    kept: a comparison that was killed goes on with what is missing, and one that is asked for with more seeds or more
    entries adds them.

    Args:
        entries: names of algorithms, or :class:`Entry`.
        policy: what they start from. With several of them seed s takes number s modulo how many there are.
        seeds: how many (0, 1, ...), or which.
        timesteps: completions of each run (default 7,680 unless there are ``seconds``).
        seconds: of training instead, of the CPU or, on a GPU, of the clock; see :class:`Ledger`.
        preset, hyperparameters: of all entries; what an entry has of its own wins.
        eval_problems, eval_k: held-out problems after training, and completions of each.
        eval_every: rollouts between greedy evaluations on the way (0: none).
        jobs: processes at a time, each on one thread (default: as many as there are cores). 1 runs in this process.
            More need a script that does its work under ``if __name__ == "__main__":``, since Python starts a new
            process by importing the script.

    Raises:
        ValueError: something in the comparison is not as it must be, or ``out`` holds another one.
        RuntimeError: another process is at work in ``out``.
    """
    names = [Entry(e, e) if isinstance(e, str) else e for e in entries]
    paths = [policy] if isinstance(policy, str | Path) else list(policy)
    setting = Setting(
        env=env,
        env_args=env_args or {},
        policies=tuple(map(str, paths)),
        timesteps=7_680 if timesteps is None and seconds is None else timesteps,
        seconds=seconds,
        dtype=dtype,
        eval_problems=eval_problems,
        eval_k=eval_k,
        eval_every=eval_every,
        save_every=save_every,
        hyperparameters=(hyperparameters or {}) | ({} if preset is None else {"preset": preset}),
    )
    wanted = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    out = Path(out)
    with locked(out):
        names, wanted = _merge(out, setting, names, wanted)
        runs = [(entry, seed, run_folder(out, entry.name, seed)) for seed in wanted for entry in names]
        missing = [run for run in runs if not (run[2] / "outcome.json").is_file()]
        if len(missing) < len(runs):
            say(f"{len(runs) - len(missing)} of {len(runs)} runs are there already")
        in_processes(
            [
                (f"{entry.name}, seed {seed}", partial(carry_out, setting.config(entry, seed), folder, seconds))
                for entry, seed, folder in missing
            ],
            _jobs(jobs, seconds),
            say,
        )
        comparison = Comparison.read(out)
        comparison.write()
    return comparison


def _merge(out: Path, setting: Setting, entries: list[Entry], seeds: list[int]) -> tuple[list[Entry], list[int]]:
    """Entries and seeds of the folder with the new ones added; leaves comparison.json as the sum."""
    if not entries or not seeds:
        raise ValueError("a comparison needs at least one entry and one seed")
    if len({entry.name for entry in entries}) < len(entries) or len(set(seeds)) < len(seeds):
        raise ValueError("names of entries, and seeds, must differ from each other")
    if any(seed < 0 for seed in seeds):
        raise ValueError("seeds must not be negative")
    path = out / COMPARISON
    plain = json.loads(json.dumps(asdict(setting)))
    if path.is_file():
        there = json.loads(path.read_text())
        differ = [name for name, value in plain.items() if there["setting"].get(name) != value]
        if differ:
            raise ValueError(
                f"{out} holds another comparison (it differs in {', '.join(differ)}): choose another folder"
            )
        old = [Entry(**entry) for entry in there["entries"]]
        for entry in entries:
            same = [e for e in old if e.name == entry.name]
            if same and json.loads(json.dumps(asdict(entry))) != asdict(same[0]):
                raise ValueError(f"{out} holds another entry {entry.name!r}: choose another name or folder")
        entries = old + [entry for entry in entries if entry.name not in {e.name for e in old}]
        seeds = sorted({*there["seeds"], *seeds})
    for entry in entries:
        setting.config(entry, seeds[0])  # a mistake shows before anything is written
    write_json(path, {"entries": [asdict(e) for e in entries], "seeds": seeds, "setting": plain})
    return entries, seeds


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """``out`` for this process alone; the lock goes with the process, however that ends.

    Raises ValueError where ``out`` holds something else, RuntimeError where another process has it.
    """
    import fcntl  # not on Windows

    others = [] if not out.is_dir() else [p.name for p in out.iterdir() if p.name not in OWN]
    if (out.exists() and not out.is_dir()) or (others and not (out / COMPARISON).is_file()):
        raise ValueError(f"{out} is not empty and not the folder of a comparison: choose another")
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another process is at work in {out}") from None
        yield


def _jobs(jobs: int | None, seconds: float | None) -> int:
    if seconds is not None and torch.cuda.is_available():
        if jobs not in (None, 1):
            raise ValueError("on a GPU a budget in seconds needs jobs=1: runs beside each other take each other's time")
        return 1
    return cores() if jobs is None else jobs


@one_thread()
def carry_out(config: RunConfig, folder: Path, seconds: float | None) -> str:
    """One run from start or checkpoint to the end; returns what to say of it.

    A loss or gradient that is not finite is a result, and is kept as one. Every other error is raised.
    """
    outcome: dict[str, Any] = {"status": "finished", "reason": None}
    try:
        if not _is_evaluated(folder):
            # What is held to seconds begins anew, so that no second is counted on another day's machine.
            resume = seconds is None and (folder / "checkpoint.zip").is_file()
            if not resume and folder.exists():
                shutil.rmtree(folder)
            for torn in folder.glob(".checkpoint.zip-*"):  # the process was killed while it wrote there
                shutil.rmtree(torn)
            train(
                config,
                folder,
                resume=resume,
                progress_bar=False,
                say=lambda _: None,
                callbacks=[Ledger(folder, config.timesteps, seconds)],
                lean=True,
            )
    except FloatingPointError as error:
        outcome = {"status": "failed", "reason": str(error)}
        (folder / "checkpoint.zip").unlink(missing_ok=True)
    write_json(folder / "outcome.json", outcome)
    return outcome["status"] + (f" ({outcome['reason']})" if outcome["reason"] else "")


def _is_evaluated(folder: Path) -> bool:
    path = folder / "evaluation.json"
    return path.is_file() and "after" in json.loads(path.read_text())
