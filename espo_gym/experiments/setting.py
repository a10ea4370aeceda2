"""What a comparison compares: its entries, and the setting that they share."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espo_gym.algorithms.registry import resolve
from espo_gym.files import read_object, write_json
from espo_gym.plugins import check_import, modules_in

from .comparison import COMPARISON
from .config import RunConfig

UNLIMITED = 10**9
"""Completions of a run whose budget is in seconds."""


@dataclass(frozen=True)
class Entry:
    """One contestant."""

    name: str
    """Label, and the name of a folder."""
    algo: str
    """A key of ``ALGORITHMS``, the name of an installed algorithm, or ``module:Class`` for your own."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """What differs from the preset and from the hyperparameters that all entries share."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", self.name):
            raise ValueError(
                f"invalid entry name {self.name!r}: start with a letter or digit, then letters, digits or _ . + -"
            )
        resolve(self.algo)  # a mistake shows here
        if "seed" in self.hyperparameters:
            raise ValueError(f"entry {self.name!r}: remove seed; every entry has the seeds of the comparison")


@dataclass(frozen=True)
class Setting:
    """What all entries share."""

    env: str = RunConfig.env
    env_args: dict[str, Any] = field(default_factory=dict)
    policies: tuple[str, ...] = (RunConfig.policy,)
    """Seed s starts from policy s modulo their number."""
    timesteps: int | None = 7_680
    """Budget of a run in completions; None if it is in seconds."""
    seconds: float | None = None
    """Budget of a run in seconds of training, see ``budget.py``."""
    dtype: str = RunConfig.dtype
    eval_problems: int = 256
    eval_k: int = 8
    eval_every: int = 0
    save_every: int = RunConfig.save_every
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Of all entries; an entry's own take precedence."""

    def __post_init__(self) -> None:
        if (self.timesteps is None) == (self.seconds is None):
            raise ValueError("set one budget, either timesteps or seconds")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, not {self.seconds}")
        if not self.policies:
            raise ValueError("at least one policy is needed")
        if "seed" in self.hyperparameters:
            raise ValueError("pass seeds to compare(), not as a hyperparameter")

    def config(self, entry: Entry, seed: int) -> RunConfig:
        """The config of one run. Raises ValueError like ``RunConfig.validate``."""
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


def entry_list(entries: Sequence[str | Entry]) -> list[Entry]:
    """``entries`` with the names of algorithms made into entries; of ``module:Class`` the class is the entry's name.

    Raises ValueError like :class:`Entry`.
    """
    return [Entry(e.rpartition(":")[2], e) if isinstance(e, str) else e for e in entries]


def seed_list(seeds: int | Sequence[int], first: int = 0) -> list[int]:
    """``seeds`` themselves or, of a number of them, ``first``, ``first + 1``, ..."""
    return list(range(first, first + seeds)) if isinstance(seeds, int) else list(seeds)


def merge(
    out: Path, setting: Setting, entries: list[Entry], seeds: list[int], allow_import: Collection[str] = ()
) -> tuple[list[Entry], list[int]]:
    """Add ``entries`` and ``seeds`` to those of the comparison in ``out``, if any, and write comparison.json.

    ``allow_import`` are modules that may be imported because comparison.json names them, besides those that
    ``entries`` and ``setting`` name. Returns all entries and all seeds.

    Raises ValueError: invalid entries, seeds or settings, ``out`` already holds a different comparison, or a module may
    not be imported.
    """
    _check_entries(entries)
    _check_seeds(seeds)
    path = out / COMPARISON
    if path.is_file():
        contents = read_object(path, "a comparison")
        _check_setting(out, contents["setting"], setting)
        allowed = (*allow_import, *modules_in([setting.env, *(entry.algo for entry in entries)]))
        for entry in contents["entries"]:
            check_import(entry["algo"], allowed, path)
        entries = _add_entries(out, [Entry(**entry) for entry in contents["entries"]], entries)
        seeds = sorted({*contents["seeds"], *seeds})
    for entry in entries:
        setting.config(entry, seeds[0])  # a mistake shows before anything is written
    write_json(path, {"entries": [asdict(e) for e in entries], "seeds": seeds, "setting": asdict(setting)})
    return entries, seeds


def _check_entries(entries: list[Entry]) -> None:
    if not entries:
        raise ValueError("a comparison needs at least one entry")
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"the names of entries must differ, not {', '.join(names)}")


def _check_seeds(seeds: list[int]) -> None:
    if not seeds:
        raise ValueError("a comparison needs at least one seed")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must differ, not {', '.join(map(str, seeds))}")
    if any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds must not be negative, not {min(seeds)}")


def _check_setting(out: Path, existing: dict[str, Any], setting: Setting) -> None:
    differ = [name for name, value in _plain(setting).items() if existing.get(name) != value]
    if differ:
        raise ValueError(
            f"{out} holds a different comparison (it differs in {', '.join(differ)}): choose another folder"
        )


def _add_entries(out: Path, existing: list[Entry], entries: list[Entry]) -> list[Entry]:
    known = {entry.name: entry for entry in existing}
    for entry in entries:
        if entry.name in known and _plain(entry) != _plain(known[entry.name]):
            raise ValueError(f"{out} holds a different entry {entry.name!r}: choose another name or folder")
    return existing + [entry for entry in entries if entry.name not in known]


def _plain(value: Entry | Setting) -> dict[str, Any]:
    """``value`` as it comes back from JSON."""
    return dict(json.loads(json.dumps(asdict(value))))
