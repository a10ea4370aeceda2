"""Bias and noise of every estimator, worked out exactly on tiny problems: ``python -m benchmarks.estimator_bias``.

Prints the table of docs/conformance.md in Markdown, in a minute on one core. Nothing is sampled, so the numbers
are the same everywhere.
"""

from __future__ import annotations

from statistics import mean
from typing import Any

import click
import torch

from espo_gym.algorithms import ALGORITHMS, DrGRPO, PolicyOptimizer, ReinforcePP
from espo_gym.testing.exact import Bias, World, estimator

NO_CLIP = {"clip_low": 1.0, "clip_high": 1e9}
ROWS: dict[str, tuple[type[PolicyOptimizer], dict[str, Any]]] = {
    **{cls.__name__: (cls, {}) for cls in ALGORITHMS.values()},
    "DrGRPO without clip": (DrGRPO, NO_CLIP),
    "ReinforcePP without clip": (ReinforcePP, NO_CLIP),
}
STEP = 0.3  # logits
COLUMNS: dict[str, dict[str, Any]] = {
    "equal lengths": {"equal_lengths": True},
    "any length": {"equal_lengths": False},
    "off policy": {"equal_lengths": False, "step": STEP},
}
SEEDS = range(5)  # of the policy's logits


def table(group_size: int) -> str:
    """The table in Markdown; a batch is one group of ``group_size`` completions."""
    head = "| | " + " | ".join(f"{name}: angle (greatest) | residual | noise" for name in COLUMNS) + " |"
    return "\n".join([head, "|---|" + "---:|---:|---:|" * len(COLUMNS), *(row(name, group_size) for name in ROWS)])


def row(name: str, group_size: int) -> str:
    """The line of the algorithm ``name``."""
    cls, hyperparameters = ROWS[name]
    algo = estimator(cls, **hyperparameters)
    found = [[World(**world, seed=s).bias(algo, group_size=group_size) for s in SEEDS] for world in COLUMNS.values()]
    return f"| {name} | " + " | ".join(map(cells, found)) + " |"


def cells(found: list[Bias]) -> str:
    """Means over the policies, and the greatest angle; what is rounding error is a bare 0."""
    angles = [bias.angle for bias in found]
    noise = f"{mean(bias.noise for bias in found):.2f}"
    if max(angles) < 1e-9:
        return f"0 | 0 | {noise}"
    return f"{mean(angles):.1f}° ({max(angles):.0f}°) | {mean(bias.residual for bias in found):.3f} | {noise}"


@click.command()
@click.option("--group-size", default=6, show_default=True, help="Responses in a group; a batch is one group.")
def main(group_size: int) -> None:
    """Print the bias of every estimator as a table in Markdown."""
    torch.set_num_threads(1)
    click.echo(table(group_size))


if __name__ == "__main__":
    main()
