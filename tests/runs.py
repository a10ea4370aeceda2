"""Folders of runs made by hand, for the tests of what reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espo_gym.experiments.run_folder import Run, read_progress


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
    with (path / "progress.json").open("w") as file:
        for values in zip(*rows.values(), strict=True):
            row = {name: value for name, value in zip(rows, values, strict=True) if value is not None}
            file.write(json.dumps(row) + "\n")
    return path


def read_points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Metric -> (timesteps, value) of each row in which it is finite."""
    run = Run(folder, {}, read_progress(folder), {})
    return {name: [(int(x), y) for x, y in zip(*run.points(name), strict=True)] for name in run.metrics()}


def sample(prompt: str, completion: str, *, when: str = "after", kind: str = "greedy", verdict: str = "correct") -> str:
    """A line of samples.jsonl."""
    row = {"when": when, "timesteps": 0, "prompt": prompt, "kind": kind, "completion": completion}
    return json.dumps(row | {"verdict": verdict, "reason": None}) + "\n"
