"""Bias and noise of every estimator, worked out exactly on tiny problems: ``python -m benchmarks.estimator_bias``.

Prints the table of docs/conformance.md in Markdown, in half a minute on one core. Nothing is sampled, so the numbers
are the same everywhere.
"""

from __future__ import annotations

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


def worlds() -> dict[str, World]:
    """What the columns are about."""
    return {
        "equal lengths": World(equal_lengths=True),
        "any length": World(equal_lengths=False),
        "off policy": World(equal_lengths=False, step=STEP),
    }


def table(group_size: int) -> str:
    """The table in Markdown; a batch is one group of ``group_size`` responses."""
    columns = worlds()
    head = "| | " + " | ".join(f"{name}: angle | residual | noise" for name in columns) + " |"
    return "\n".join([head, "|---|" + "---:|---:|---:|" * len(columns), *(row(name, group_size) for name in ROWS)])


def row(name: str, group_size: int) -> str:
    """The line of the algorithm ``name``."""
    cls, hyperparameters = ROWS[name]
    algo = estimator(cls, **hyperparameters)
    found = [world.bias(algo, group_size=group_size) for world in worlds().values()]
    return f"| {name} | " + " | ".join(map(cells, found)) + " |"


def cells(bias: Bias) -> str:
    """Angle, residual and noise; an angle that is rounding error is a bare 0."""
    exact = bias.angle < 1e-9
    return f"{'0' if exact else f'{bias.angle:.2f}°'} | {'0' if exact else f'{bias.residual:.3f}'} | {bias.noise:.2f}"


@click.command()
@click.option("--group-size", default=8, show_default=True, help="Responses in a group; a batch is one group.")
def main(group_size: int) -> None:
    """Print the bias of every estimator as a table in Markdown."""
    torch.set_num_threads(1)
    click.echo(table(group_size))


if __name__ == "__main__":
    main()
