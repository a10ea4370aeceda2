"""Whether a comparison was fair: that all entries had the same start, the same budget and the same software."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .comparison import ComparedRun, Comparison
from .health import warnings


class Check(NamedTuple):
    """The result of one check."""

    ok: bool | None
    """Whether it passed; None if that is for the reader to judge."""
    finding: str


def fairness_checks(comparison: Comparison) -> list[Check]:
    """Everything that is checked of ``comparison``, in the order of the report."""
    return [check for checks in CHECKS for check in checks(comparison)]


def _finished(comparison: Comparison) -> list[Check]:
    total, missing = len(comparison.entries) * len(comparison.seeds), len(comparison.missing)
    gap = f"; {missing} missing" if missing else ""
    return [Check(not missing, f"{total - missing} of {total} runs finished{gap}")]


def _failures(comparison: Comparison) -> list[Check]:
    return [
        Check(None, f"{run.entry}, seed {run.seed}, failed after {run.timesteps:,} completions: {run.failure}")
        for run in comparison.runs.values()
        if run.failure
    ]


def _health(comparison: Comparison) -> list[Check]:
    runs = [run.health for run in comparison.runs.values()]
    well = sum(run.trouble is None for run in runs)
    found = warnings(comparison.health())
    text = " ".join([f"training: {well} of {len(runs)} runs trained as they should.", *found])
    return [Check(not found, text.removesuffix("."))]


FINGERPRINTS = {
    "initial_weights": "initial weights",
    "problems": "problems of the first rollout",
    "completions": "completions of the first rollout, sampled from equal weights with equal streams",
}
"""Key in pairing.json -> what it is a fingerprint of."""


def _pairing(comparison: Comparison) -> list[Check]:
    checks = []
    for key, what in FINGERPRINTS.items():
        fingerprints: dict[int, set[str | None]] = {seed: set() for seed in comparison.seeds}
        for (_, seed), run in comparison.runs.items():
            fingerprints[seed].add(run.pairing.get(key))
        different = [str(seed) for seed, values in fingerprints.items() if len(values) > 1 or None in values]
        finding = f"different at seed {', '.join(different)}" if different else "equal at every seed"
        checks.append(Check(not different, f"{what}: {finding}"))
    return checks


def _budget(comparison: Comparison) -> list[Check]:
    budget, clock = comparison.budget
    runs = [run for run in comparison.runs.values() if not run.failure]
    usage = f"used on average: {', '.join(_usage(comparison))}"
    if clock == "time/timesteps":
        return [
            Check(all(run.timesteps == budget for run in runs), f"budget: {budget:,.0f} completions; {usage}"),
            *_optimizer_steps(comparison),
        ]
    unit = "CPU seconds" if clock == "time/cpu_seconds" else "wall-clock seconds"
    longest = max((float(np.diff(run.rows[clock], prepend=0.0).max()) for run in runs), default=0.0)
    fair = all(budget <= run.last(clock) <= budget + longest for run in runs)
    return [Check(fair, f"budget: {budget:g} {unit} of training and the rollout then begun; {usage}")]


def _usage(comparison: Comparison) -> list[str]:
    usage = []
    for entry, runs in _successes(comparison).items():
        completions, seconds = sorted({run.timesteps for run in runs}), np.mean([run.cpu_seconds for run in runs])
        usage.append(f"{entry} {_range(completions)} in {seconds:.1f} CPU seconds")
    return usage


def _optimizer_steps(comparison: Comparison) -> list[Check]:
    steps = {entry: sorted({run.updates for run in runs}) for entry, runs in _successes(comparison).items()}
    if len({n for values in steps.values() for n in values}) <= 1:
        return []
    ranges = ", ".join(f"{entry} {_range(values)}" for entry, values in steps.items())
    return [
        Check(
            None,
            f"optimizer steps differ ({ranges}): dynamic sampling spends completions on groups that it discards,"
            " and a divergence limit ends a rollout's steps early; only the number of completions is equal",
        )
    ]


def _versions(comparison: Comparison) -> list[Check]:
    versions = {json.dumps(run.config.get("versions"), sort_keys=True) for run in comparison.runs.values()}
    return [Check(len(versions) <= 1, f"versions of Python and packages: {len(versions)} over all runs")]


def _successes(comparison: Comparison) -> dict[str, list[ComparedRun]]:
    """Entry -> its runs that did not fail, for entries that have any."""
    runs = {entry: [run for run in comparison.of(entry) if not run.failure] for entry in comparison.entries}
    return {entry: members for entry, members in runs.items() if members}


def _range(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,} to {values[-1]:,}"


CHECKS: tuple[Callable[[Comparison], list[Check]], ...] = (_finished, _failures, _health, _pairing, _budget, _versions)
