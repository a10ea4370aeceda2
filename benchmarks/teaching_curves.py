"""Every algorithm on the teaching task: ``python -m benchmarks.teaching_curves`` (about five minutes on one core).

Same policy, problems and sampling streams per seed; 30 rollouts of 256 completions, teaching preset (DAPO, which
throws groups away, takes fewer steps on as many completions). Prints the mean over seeds of the sampled accuracy of
training and of the greedy accuracy on held-out problems. At this learning rate all of them learn; the table is not
a ranking.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback

from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer

ROLLOUTS = 30
SHOWN = (1, 6, 11, 16, 21, 30)


class Accuracies(BaseCallback):
    """Collects the sampled accuracy, one value for every 256 completions."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def _on_step(self) -> bool:
        algorithm: Any = self.model
        drawn = algorithm.num_timesteps // algorithm.rollout_size
        self.values += [self.logger.name_to_value["rollout/accuracy"]] * (drawn - len(self.values))
        return True


def run(cls: type[PolicyOptimizer], seed: int) -> dict[str, Any]:
    """One run: sampled accuracy of each rollout, greedy accuracy before and after."""
    algorithm = cls("espo_gym/teaching", "espo_gym/Addition-v0", preset="teaching", seed=seed)
    before = algorithm.evaluate(k=0)["greedy"]
    curve = Accuracies()
    algorithm.learn(ROLLOUTS * algorithm.rollout_size, curve)
    return {"sampled": curve.values[:ROLLOUTS], "before": before, "after": algorithm.evaluate(k=0)["greedy"]}


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Runs of each algorithm.")
@click.option("--algo", multiple=True, type=click.Choice(list(ALGORITHMS)), help="Only these.")
def main(seeds: int, algo: tuple[str, ...]) -> None:
    """Train every algorithm on the teaching task and print its curve."""
    torch.set_num_threads(1)
    table = Table(
        "",
        "greedy before",
        *[f"sampled, rollout {n}" for n in SHOWN],
        "greedy after",
        "worst seed, best rollout",
        box=box.MARKDOWN,
    )
    for name in algo or ALGORITHMS:
        runs = [run(ALGORITHMS[name], seed) for seed in range(seeds)]
        sampled = np.array([r["sampled"] for r in runs])  # (seeds, rollouts)
        means = [f"{sampled[:, n - 1].mean():.3f}" for n in SHOWN]
        greedy = [f"{np.mean([r[when] for r in runs]):.3f}" for when in ("before", "after")]
        table.add_row(name, greedy[0], *means, greedy[1], f"{sampled.max(1).min():.3f}")
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
