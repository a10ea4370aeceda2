"""Lesson 2: changing the algorithm changes one word. Everything else stays equal, so the curves are comparable.

With the same seed, every algorithm gets the same problems in the same order and samples from the same random streams.
Their first rollouts are therefore identical, and later differences come from the loss.

Do not expect a winner. At this learning rate, the algorithms differ by less than two seeds of the same algorithm do.

    python examples/compare_losses.py       # about a minute on one core
    python examples/compare_losses.py --algo grpo --algo dapo --seeds 3
"""

import click
from stable_baselines3.common.callbacks import BaseCallback

from espo_gym import ALGORITHMS

BARS = " ▁▂▃▄▅▆▇█"


class Curve(BaseCallback):
    """Keep one metric from each rollout. Any Stable-Baselines3 callback works like this."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric = metric
        self.values: list[float] = []

    def _on_step(self) -> bool:
        self.values.append(self.logger.name_to_value[self.metric])
        return True


@click.command()
@click.option(
    "--algo",
    "names",
    multiple=True,
    default=("espo", "gspo", "grpo", "ppo"),
    help="Algorithm to train; can be repeated.",
)
@click.option("--timesteps", default=3840, show_default=True, help="Completions to train on.")
@click.option("--seeds", default=1, show_default=True, help="Runs per algorithm.")
def main(names: tuple[str, ...], timesteps: int, seeds: int) -> None:
    for seed in range(seeds):
        for name in names:
            accuracy = Curve("rollout/accuracy")
            ALGORITHMS[name]("espo_gym/teaching", "espo_gym/Addition-v0", seed=seed).learn(timesteps, accuracy)
            bars = "".join(BARS[round(value * (len(BARS) - 1))] for value in accuracy.values)
            print(f"seed {seed}  {name:12}  {accuracy.values[0]:.3f} |{bars}| {accuracy.values[-1]:.3f}")


if __name__ == "__main__":
    main()
