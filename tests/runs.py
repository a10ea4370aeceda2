"""Folders of runs made by hand, for the tests of what reads them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_run(
    path: Path, curves: Mapping[str, Sequence[float | None]], *, algo: str = "espo", seed: int = 0, **config: Any
) -> Path:
    """A run with ``curves``, metric -> a value for each rollout; ``time/timesteps`` is 10, 20, ... unless given.

    ``config`` are entries of config.json; ``hyperparameters`` among them gets the seed.
    """
    path.mkdir(parents=True)
    hyperparameters = {"preset": "teaching", **config.pop("hyperparameters", {}), "seed": seed}
    whole = {"algo": algo, "policy": "p", "env": "e", "timesteps": 100, **config, "hyperparameters": hyperparameters}
    (path / "config.json").write_text(json.dumps(whole | {"versions": {"python": str(path)}}))
    n = len(next(iter(curves.values())))
    rows = {"time/timesteps": range(10, 10 * n + 1, 10)} | dict(curves)
    with (path / "progress.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*(("" if v is None else v for v in column) for column in rows.values()), strict=True))
    return path


def sample(prompt: str, completion: str, *, when: str = "after", kind: str = "greedy", verdict: str = "correct") -> str:
    """A line of samples.jsonl."""
    row = {"when": when, "timesteps": 0, "prompt": prompt, "kind": kind, "completion": completion}
    return json.dumps(row | {"verdict": verdict, "reason": None}) + "\n"
