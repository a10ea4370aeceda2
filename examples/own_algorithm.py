"""Lesson 4: your own algorithm is a subclass that overrides what differs.

ESPO differs from GSPO in three choices: ratio, clip range and token weights. The last is easy to overlook: even where
no ratio has moved, the mean over entropy groups gives the uncertain fifth of the tokens half of the weight. This alone
may explain a gain of ESPO over GSPO. The control is GSPO with ESPO's weights: one choice swapped, in three lines.

    python examples/own_algorithm.py        # about a minute on one core
"""

from dataclasses import dataclass

import click
from torch import Tensor

from espo_gym import ESPO, GSPO, LossBatch, PolicyOptimizer


@dataclass(kw_only=True, eq=False)
class WeightedGSPO(GSPO):
    """GSPO with ESPO's token weights."""

    quantiles: tuple[float, ...] = (0.8,)
    """Quantiles of a completion's entropies that separate its groups."""

    def token_weights(self, batch: LossBatch) -> Tensor:
        return ESPO.formula(quantiles=self.quantiles).token_weights(batch)  # (B, T)


@click.command()
@click.option("--timesteps", default=3840, show_default=True, help="Completions to train on.")
@click.option("--problems", default=128, show_default=True, help="Held-out problems.")
def main(timesteps: int, problems: int) -> None:
    algorithms: list[type[PolicyOptimizer]] = [GSPO, WeightedGSPO, ESPO]
    for cls in algorithms:
        algo = cls("espo_gym/teaching", "espo_gym/Addition-v0").learn(timesteps)
        print(f"{cls.__name__:12}  {algo.evaluate(k=8, n_problems=problems)}")


if __name__ == "__main__":
    main()
