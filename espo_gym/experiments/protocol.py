"""Protocols: comparisons on several tasks in several regimes, always all of them, under one name.

A protocol leaves a folder with the warm-started policies in warm_starts/, a comparison in TASK_REGIME/ for each task
and regime, and report.md over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from espo_gym.files import write_json, write_text
from espo_gym.terminal import say

from .compare import compare
from .comparison import COMPARISON, Comparison
from .comparison_report import (
    auc_pairs,
    finite,
    in_words,
    interval_method,
    mean_interval,
    profile,
    read_first,
    table,
    tuning_summary,
)
from .health import Health, headline, warnings
from .pairs import Pair, compare_pairs, pair_sentences, pair_table, pairs_as_json
from .processes import cores, in_processes
from .setting import Entry, seed_list
from .statistics import iqm
from .tuning import SEEDS, tune
from .warm_start import Demonstrator, add_columns, combine_numbers, make_policy, work_down_chain


@dataclass(frozen=True)
class ProtocolTask:
    """An environment, and how its initial policies are warm-started."""

    name: str
    env: str
    demonstrator: Demonstrator
    steps: int
    """Batches of demonstrations."""
    env_args: dict[str, Any] = field(default_factory=dict)
    bundled: str | None = None
    """The bundled policy that is this task's warm start with seed 0, if there is one."""


@dataclass(frozen=True)
class Regime:
    """How hard each rollout is trained on."""

    name: str
    rollouts: int
    """Budget of a run."""
    hyperparameters: dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """Tasks times regimes."""

    name: str
    tasks: tuple[ProtocolTask, ...]
    regimes: tuple[Regime, ...]
    warm_starts: int = 3
    """Policies for each task, made with seeds 0, 1, ...; seed s of a comparison takes number s modulo this."""
    eval_problems: int = 512
    eval_k: int = 8


ROLLOUT_SIZE = 256

TEACHING = Protocol(
    "teaching",
    (
        ProtocolTask("addition", "espo_gym/Addition-v0", add_columns, 900, bundled="espo_gym/teaching"),
        ProtocolTask("chain", "espo_gym/ChainArithmetic-v0", work_down_chain, 500, {"terms": 5, "operators": "+-"}),
        ProtocolTask("countdown", "espo_gym/Countdown-v0", combine_numbers, 300, {"n_numbers": 3}),
    ),
    (
        Regime("calm", 30, {"rollout_size": ROLLOUT_SIZE, "n_minibatches": 8, "n_epochs": 1, "learning_rate": 1e-4}),
        Regime("stress", 20, {"rollout_size": ROLLOUT_SIZE, "n_minibatches": 8, "n_epochs": 3, "learning_rate": 3e-4}),
    ),
)
"""Calm: 8 optimizer steps per rollout; stress: 24 at three times the learning rate, which is too high for some."""

PROTOCOLS = {protocol.name: protocol for protocol in (TEACHING,)}


def run_protocol(
    protocol: Protocol,
    entries: Sequence[str | Entry],
    *,
    out: str | Path,
    seeds: int | Sequence[int] = 10,
    timesteps: int | None = None,
    seconds: float | None = None,
    tune_seeds: int | Sequence[int] | None = None,
    jobs: int | None = None,
    log: Callable[[str], Any] = say,
    **settings: Any,
) -> dict[str, Comparison]:
    """Compare ``entries`` on every task in every regime; it can be resumed like :func:`compare`.

    Args:
        out: the folder of the protocol.
        seeds: of every comparison: how many (0, 1, ...), or which.
        timesteps, seconds: budget of every run in place of the regime's rollouts.
        tune_seeds: first tune learning rate and clip of every entry, separately in each cell, on these seeds or on this
            many; the chosen learning rate replaces the regime's.
        jobs: processes at a time (default: as many as there are cores).
        log: called with progress messages.
        settings: further arguments of :func:`compare`, in place of the protocol's.

    Returns the comparisons by ``TASK_REGIME``.

    Raises:
        ValueError: an invalid setting, or ``out`` holds something else.
        RuntimeError: another process is working in ``out``.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()) and not (out / "warm_starts").is_dir():
        raise ValueError(f"{out} is not empty and is not the folder of a protocol: choose another folder")
    (out / "warm_starts").mkdir(parents=True, exist_ok=True)
    wanted = seed_list(seeds)
    tuning_seeds = [] if tune_seeds is None else seed_list(tune_seeds, SEEDS[0])
    starts = {s % protocol.warm_starts for s in [*wanted, *tuning_seeds]}
    policies = {task.name: _policies(protocol, task, out / "warm_starts") for task in protocol.tasks}
    work: list[tuple[str, Callable[[], str]]] = [
        (
            f"warm start {path.name}",
            partial(make_policy, path, seed, task.steps, task.env, task.demonstrator, task.env_args),
        )
        for task in protocol.tasks
        for seed, path in enumerate(policies[task.name])
        if isinstance(path, Path) and seed in starts and not path.is_dir()
    ]
    in_processes(work, cores() if jobs is None else jobs, log)

    comparisons: dict[str, Comparison] = {}
    for task in protocol.tasks:
        for regime in protocol.regimes:
            cell = f"{task.name}_{regime.name}"
            log(f"-- {cell}")
            shared: dict[str, Any] = {"eval_problems": protocol.eval_problems, "eval_k": protocol.eval_k} | settings
            shared["hyperparameters"] = regime.hyperparameters | settings.get("hyperparameters", {})
            shared |= {"policy": policies[task.name], "env_args": task.env_args, "jobs": jobs, "log": log}
            shared |= {"timesteps": timesteps, "seconds": seconds}
            if timesteps is None and seconds is None:
                shared["timesteps"] = regime.rollouts * int(shared["hyperparameters"]["rollout_size"])
            contestants: Sequence[str | Entry] = entries
            if tune_seeds is not None:
                contestants = tune(entries, task.env, out=out / cell, seeds=tune_seeds, **shared)
            comparisons[cell] = compare(contestants, task.env, out=out / cell, seeds=wanted, **shared)
    write_text(out / "report.md", protocol_report(protocol, comparisons))
    write_json(out / "results.json", protocol_results(protocol, comparisons))
    return comparisons


def read_protocol(protocol: Protocol, out: str | Path) -> dict[str, Comparison]:
    """The comparisons in ``out`` by ``TASK_REGIME``, without those that have not begun."""
    cells = [f"{task.name}_{regime.name}" for task in protocol.tasks for regime in protocol.regimes]
    return {c: Comparison.read(Path(out) / c) for c in cells if (Path(out) / c / COMPARISON).is_file()}


def _policies(protocol: Protocol, task: ProtocolTask, folder: Path) -> list[str | Path]:
    """The warm starts of ``task``: names of bundled policies, and paths that may not exist yet."""
    named = [folder / f"{task.name}_steps{task.steps}_seed{seed}" for seed in range(protocol.warm_starts)]
    return [task.bundled if seed == 0 and task.bundled else path for seed, path in enumerate(named)]


# -- over all tasks ----------------------------------------------------------------------------------------------------


def regime_scores(
    protocol: Protocol, comparisons: dict[str, Comparison], regime: str, metric: str
) -> dict[str, NDArray[np.float64]]:
    """Entry -> (seeds, tasks), a metric of all tasks in ``regime``."""
    cells = [comparisons[f"{task.name}_{regime}"].scores(metric) for task in protocol.tasks]
    return {entry: np.stack([scores[entry] for scores in cells], axis=1) for entry in cells[0]}


@dataclass(frozen=True)
class RegimeResults:
    """The AUC over all tasks in one regime."""

    auc: dict[str, NDArray[np.float64]]
    """Entry -> (seeds, tasks)."""
    share: bool
    """Whether it is a share on every task."""
    health: dict[str, list[Health]]
    """Entry -> what became of its runs, on all tasks."""

    @classmethod
    def of(cls, protocol: Protocol, comparisons: dict[str, Comparison], regime: str) -> RegimeResults:
        """Gather the results of ``regime``."""
        cells = [comparisons[f"{task.name}_{regime}"] for task in protocol.tasks]
        runs = [cell.health() for cell in cells]
        return cls(
            regime_scores(protocol, comparisons, regime, "auc"),
            all(cell.is_share("auc") for cell in cells),
            {entry: [run for cell in runs for run in cell[entry]] for entry in runs[0]},
        )

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every pair of entries."""
        return compare_pairs(self.auc, share=self.share, runs=self.health)


def protocol_results(protocol: Protocol, comparisons: dict[str, Comparison]) -> dict[str, Any]:
    """The numbers over all tasks, for results.json; null where a number is not finite."""
    regimes = {}
    for regime in protocol.regimes:
        results = RegimeResults.of(protocol, comparisons, regime.name)
        regimes[regime.name] = {
            "headline": headline(results.health),
            "warnings": warnings(results.health),
            "auc": {entry: scores.tolist() for entry, scores in results.auc.items()},
            "pairs": pairs_as_json(results.pairs),
        }
    names = [task.name for task in protocol.tasks]
    return cast(dict[str, Any], finite({"protocol": protocol.name, "tasks": names, "regimes": regimes}))


def protocol_report(protocol: Protocol, comparisons: dict[str, Comparison]) -> str:
    """The report over all tasks, as Markdown; each comparison also has its own."""
    first = next(iter(comparisons.values()))
    parts = [
        f"# Protocol {protocol.name}: {', '.join(first.entries)}",
        f"Tasks {', '.join(task.name for task in protocol.tasks)}; {len(first.seeds)} seeds over "
        f"{min(protocol.warm_starts, len(first.seeds))} warm starts each. AUC is the mean reward over training.",
    ]
    for regime in protocol.regimes:
        results = RegimeResults.of(protocol, comparisons, regime.name)
        rows = [[e, mean_interval(s.mean(1), results.share), str(iqm(s))] for e, s in results.auc.items()]
        parts += [
            f"## {regime.name.capitalize()}",
            *read_first(results.health, f"### Read this first, {regime.name}"),
            in_words(results.pairs, "On the AUC, seed against seed, averaged over the tasks", results.share),
            pair_sentences(results.pairs),
            table(["", "AUC", "IQM of AUC"], rows),
            interval_method(results.share),
            table(*pair_table(results.pairs)),
            profile(results.auc),
        ]
        for task in protocol.tasks:
            cell = f"{task.name}_{regime.name}"
            parts += [
                f"### {task.name}, {regime.name}",
                f"{tuning_summary(comparisons[cell])} Scores and audit: [{cell}/report.md]({cell}/report.md).",
                *read_first(comparisons[cell].health(), f"#### Read this first, {task.name}, {regime.name}"),
                pair_sentences(auc_pairs(comparisons[cell])),
            ]
    return "\n\n".join(parts) + "\n"
