"""Protocols: comparisons on several tasks and in several regimes, always all of them, under one name.

A protocol leaves a folder with the warm-started policies in warm_starts/, a comparison in TASK_REGIME/ for each pair of
the two, and report.md over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from .compare import Entry, compare
from .comparison import Comparison
from .comparison_report import (
    Pair,
    compare_pairs,
    finite,
    mean_interval,
    pair_table,
    pairs_as_json,
    profile,
    table,
    tried,
)
from .processes import cores, in_processes
from .run import write_json
from .statistics import iqm
from .tuning import SEEDS, tune
from .warm_start import Demonstrator, add_columns, combine_numbers, make_policy, work_down_chain


@dataclass(frozen=True)
class Task:
    """An environment, and how the policies are warmed up that it is learnt from."""

    name: str
    env: str
    demonstrator: Demonstrator
    steps: int
    """Batches of demonstrations."""
    env_args: dict[str, Any] = field(default_factory=dict)
    bundled: str | None = None
    """The bundled policy that is this task's warm start of seed 0, if there is one."""


@dataclass(frozen=True)
class Regime:
    """How hard a rollout is trained on."""

    name: str
    rollouts: int
    hyperparameters: dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """Tasks times regimes."""

    name: str
    tasks: tuple[Task, ...]
    regimes: tuple[Regime, ...]
    warm_starts: int = 3
    """Policies for each task, made from seeds 0, 1, ...; seed s of a comparison takes number s modulo this."""
    eval_problems: int = 512
    eval_k: int = 8


ROLLOUT_SIZE = 256

TEACHING = Protocol(
    "teaching",
    (
        Task("addition", "espo_gym/Addition-v0", add_columns, 900, bundled="espo_gym/teaching"),
        Task("chain", "espo_gym/ChainArithmetic-v0", work_down_chain, 500, {"terms": 5, "operators": "+-"}),
        Task("countdown", "espo_gym/Countdown-v0", combine_numbers, 300, {"n_numbers": 3}),
    ),
    (
        Regime("calm", 30, {"rollout_size": ROLLOUT_SIZE, "n_minibatches": 8, "n_epochs": 1, "learning_rate": 1e-4}),
        Regime("stress", 20, {"rollout_size": ROLLOUT_SIZE, "n_minibatches": 8, "n_epochs": 3, "learning_rate": 3e-4}),
    ),
)
"""Calm: 8 optimizer steps a rollout; stress: 24 at three times the learning rate, which is too much for some."""

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
    say: Callable[[str], Any] = print,
    **settings: Any,
) -> dict[str, Comparison]:
    """Compare ``entries`` on every task in every regime; resumable as :func:`compare` is.

    Args:
        timesteps, seconds: budget of every run instead of the regime's rollouts.
        tune_seeds: tune learning rate and clip of every entry first, in each cell anew, on these seeds or on so many;
            the learning rate chosen then stands in place of the regime's.
        settings: more for :func:`compare`, in place of the protocol's.

    Returns the comparisons by ``TASK_REGIME``.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()) and not (out / "warm_starts").is_dir():
        raise ValueError(f"{out} is not empty and not the folder of a protocol: choose another")
    (out / "warm_starts").mkdir(parents=True, exist_ok=True)
    wanted = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    starts = {s % protocol.warm_starts for s in [*wanted, *_tuning_seeds(tune_seeds)]}
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
    in_processes(work, cores() if jobs is None else jobs, say)

    made: dict[str, Comparison] = {}
    for task in protocol.tasks:
        for regime in protocol.regimes:
            cell = f"{task.name}_{regime.name}"
            say(f"-- {cell}")
            shared: dict[str, Any] = {"eval_problems": protocol.eval_problems, "eval_k": protocol.eval_k} | settings
            shared["hyperparameters"] = regime.hyperparameters | settings.get("hyperparameters", {})
            shared |= {"policy": policies[task.name], "env_args": task.env_args, "jobs": jobs, "say": say}
            shared |= {"timesteps": timesteps, "seconds": seconds}
            if timesteps is None and seconds is None:
                shared["timesteps"] = regime.rollouts * int(shared["hyperparameters"]["rollout_size"])
            contestants: Sequence[str | Entry] = entries
            if tune_seeds is not None:
                contestants = tune(entries, task.env, out=out / cell, seeds=tune_seeds, **shared)
            made[cell] = compare(contestants, task.env, out=out / cell, seeds=wanted, **shared)
    (out / "report.md").write_text(protocol_report(protocol, made))
    write_json(out / "results.json", protocol_results(protocol, made))
    return made


def read_protocol(protocol: Protocol, out: str | Path) -> dict[str, Comparison]:
    """The comparisons of a protocol by ``TASK_REGIME``, those that have not begun left out."""
    cells = [f"{task.name}_{regime.name}" for task in protocol.tasks for regime in protocol.regimes]
    return {c: Comparison.read(Path(out) / c) for c in cells if (Path(out) / c / "comparison.json").is_file()}


def _policies(protocol: Protocol, task: Task, folder: Path) -> list[str | Path]:
    """Where the warm starts of a task are or will be."""
    named = [folder / f"{task.name}_steps{task.steps}_seed{seed}" for seed in range(protocol.warm_starts)]
    return [task.bundled if seed == 0 and task.bundled else path for seed, path in enumerate(named)]


def _tuning_seeds(seeds: int | Sequence[int] | None) -> list[int]:
    if seeds is None:
        return []
    return list(range(SEEDS[0], SEEDS[0] + seeds)) if isinstance(seeds, int) else list(seeds)


# -- over all tasks ----------------------------------------------------------------------------------------------------


def regime_scores(protocol: Protocol, made: dict[str, Comparison], regime: str, metric: str) -> dict[str, np.ndarray]:
    """Entry -> (seeds, tasks)."""
    cells = [made[f"{task.name}_{regime}"].scores(metric) for task in protocol.tasks]
    return {entry: np.stack([scores[entry] for scores in cells], axis=1) for entry in cells[0]}


def protocol_results(protocol: Protocol, made: dict[str, Comparison]) -> dict[str, Any]:
    """The numbers over all tasks, for a program to read."""
    regimes = {}
    for regime in protocol.regimes:
        auc = regime_scores(protocol, made, regime.name, "auc")
        regimes[regime.name] = {
            "auc": {entry: scores.tolist() for entry, scores in auc.items()},
            "pairs": pairs_as_json(compare_pairs(auc)),
        }
    names = [task.name for task in protocol.tasks]
    return cast(dict[str, Any], finite({"protocol": protocol.name, "tasks": names, "regimes": regimes}))


def protocol_report(protocol: Protocol, made: dict[str, Comparison]) -> str:
    """The report over all tasks, as Markdown; each comparison has its own besides."""
    first = next(iter(made.values()))
    parts = [
        f"# Protocol {protocol.name}: {', '.join(first.entries)}",
        f"Tasks {', '.join(task.name for task in protocol.tasks)}; {len(first.seeds)} seeds over "
        f"{min(protocol.warm_starts, len(first.seeds))} warm starts each. AUC is the mean reward over training. "
        "Differences are seed against seed, averaged over the tasks, with Student's 95 % interval; p after Holm over "
        "the pairs of a regime. No difference detected does not mean none.",
    ]
    for regime in protocol.regimes:
        auc = regime_scores(protocol, made, regime.name, "auc")
        pairs = compare_pairs(auc)
        rows = [[entry, mean_interval(scores.mean(1)), str(iqm(scores))] for entry, scores in auc.items()]
        parts += [
            f"## {regime.name.capitalize()}",
            _sentences(pairs),
            table(["", "AUC", "IQM of AUC"], rows),
            table(*pair_table(pairs)),
            profile(auc),
        ]
        for task in protocol.tasks:
            cell = f"{task.name}_{regime.name}"
            parts += [
                f"### {task.name}, {regime.name}",
                f"{tried(made[cell])} Scores and audit: [{cell}/report.md]({cell}/report.md).",
                _sentences(compare_pairs(made[cell].scores("auc"))),
            ]
    return "\n\n".join(parts) + "\n"


def _sentences(pairs: list[Pair]) -> str:
    return "\n".join(f"- {pair}." for pair in pairs)
