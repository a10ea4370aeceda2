"""Tuning on equal terms: the same number of cells for every entry, on separate seeds, and then frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from espo_gym.algorithms.registry import resolve
from espo_gym.files import write_json
from espo_gym.policy import BUNDLED
from espo_gym.terminal import say

from .compare import compare
from .comparison import TUNING
from .config import RunConfig
from .setting import Entry, entry_list, seed_list

SEEDS = (100, 101, 102)
"""Of the tuning runs, unless others are given."""
LEARNING_RATES = (3e-5, 1e-4, 3e-4)
WIDTHS = (0.5, 1.0, 2.0)
"""Factors for the clip of the preset, or the entry's own."""

CLIPS = ("alpha", "alpha_high", "clip_low", "clip_high", "ratio_max", "tau_pos", "tau_neg")
"""Hyperparameters that set the width of a clip, under the names that the algorithms have for it."""


def tune(
    entries: Sequence[str | Entry],
    env: str = RunConfig.env,
    *,
    out: str | Path,
    seeds: int | Sequence[int] = SEEDS,
    learning_rates: Sequence[float] = LEARNING_RATES,
    widths: Sequence[float] = WIDTHS,
    policy: str | Path | Sequence[str | Path] = RunConfig.policy,
    preset: str | None = None,
    hyperparameters: dict[str, Any] | None = None,
    log: Callable[[str], Any] = say,
    **settings: Any,
) -> list[Entry]:
    """Choose learning rate and clip width of every entry by the mean AUC on the tuning seeds.

    Every cell of the grid is run with each seed in ``out``/tuning, kept like any other comparison. The cells and the
    choices are in ``out``/tuning.json, and :func:`compare` into ``out`` reports how much was tried.

    Args:
        seeds: how many (100, 101, ...), or which; they should not be those of the comparison.
        learning_rates, widths: the grid; a width is a factor for the clip of the preset, or the entry's own.
        preset, hyperparameters, settings: as for :func:`compare`.
        log: called with progress messages.

    Returns the entries with the chosen hyperparameters.

    Raises:
        ValueError: like :func:`compare`, or an algorithm has no clip to tune.
        RuntimeError: another process is working in ``out``/tuning.
    """
    contestants, tuning_seeds = entry_list(entries), seed_list(seeds, SEEDS[0])
    shared = dict(hyperparameters or {})
    policies = [policy] if isinstance(policy, str | Path) else list(policy)
    preset = (
        preset or shared.get("preset") or _recommended_preset(policies[0], settings.get("trust_remote_code", False))
    )
    grids = {e.name: cells(e, preset, shared, learning_rates, widths) for e in contestants}
    log(f"tuning: {sum(map(len, grids.values()))} configurations, {len(tuning_seeds)} seeds each")
    comparison = compare(
        [cell for grid in grids.values() for cell in grid],
        env,
        out=Path(out) / "tuning",
        seeds=tuning_seeds,
        policy=policy,
        preset=preset,
        hyperparameters=shared,
        log=log,
        **(settings | {"eval_problems": 1, "eval_k": 0}),  # the AUC decides
    )
    means = {name: float(np.mean(scores)) for name, scores in comparison.scores("auc").items()}
    frozen, records = [], []
    for entry in contestants:
        grid = grids[entry.name]
        best = max(grid, key=lambda cell: means[cell.name])  # the first of equals
        frozen.append(replace(entry, hyperparameters=best.hyperparameters))
        tried = [{"cell": cell.name, "hyperparameters": cell.hyperparameters, "auc": means[cell.name]} for cell in grid]
        records.append({"entry": asdict(entry), "chosen": best.name, "cells": tried})
        log(f"{entry.name}: {best.hyperparameters}, AUC {means[best.name]:.3f} on the tuning seeds")
    write_json(Path(out) / TUNING, {"seeds": tuning_seeds, "preset": preset, "entries": records})
    return frozen


def cells(
    entry: Entry,
    preset: str,
    shared: dict[str, Any],
    learning_rates: Sequence[float] = LEARNING_RATES,
    widths: Sequence[float] = WIDTHS,
) -> list[Entry]:
    """The grid of ``entry``: every learning rate with every clip width.

    Raises ValueError: the algorithm has none of ``CLIPS``, and so would have fewer cells than the others.
    """
    values = resolve(entry.algo).hyperparameters(preset) | shared | entry.hyperparameters
    clips = {name: values[name] for name in CLIPS if isinstance(values.get(name), int | float)}
    if not clips and len(widths) > 1:
        raise ValueError(f"{entry.name}: {entry.algo} has no clip to tune; pass widths=(1.0,), or leave it out")
    return [
        Entry(
            f"{entry.name}_lr{rate:g}_clip{width:g}",
            entry.algo,
            entry.hyperparameters | {"learning_rate": rate} | {name: value * width for name, value in clips.items()},
        )
        for rate, width in product(learning_rates, widths)
    ]


def _recommended_preset(policy: str | Path, trust_remote_code: bool) -> str:
    """The preset that a policy recommends, from its configuration alone, since the weights may be large."""
    return str(
        getattr(
            AutoConfig.from_pretrained(BUNDLED.get(str(policy), policy), trust_remote_code=trust_remote_code),
            "espo_gym_preset",
            "paper",
        )
    )
