"""Lesson 2: the algorithm is one word. Everything else is equal, so the curves can be laid side by side.

With the same seed every algorithm meets the same problems in the same order and draws its samples from the same random
streams: their first rollouts are identical, and what differs afterwards is the loss.

Expect no winner. At this learning rate they differ by less than two seeds of one of them do.

    python examples/compare_losses.py       # about a minute on one core
    python examples/compare_losses.py --algo grpo --algo dapo --seeds 3
"""

import click
from stable_baselines3.common.callbacks import BaseCallback

from espo_gym import ALGORITHMS

BARS = " ▁▂▃▄▅▆▇█"


class Curve(BaseCallback):
    """Keeps one metric of each rollout. Any callback of Stable-Baselines3 works like this."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric, self.values = metric, []

    def _on_step(self) -> bool:
        self.values.append(self.logger.name_to_value[self.metric])
        return True


@click.command()
@click.option("--algo", "names", multiple=True, default=("espo", "gspo", "grpo", "ppo"), help="Which algorithms.")
@click.option("--timesteps", default=3840, show_default=True, help="Completions to train on.")
@click.option("--seeds", default=1, show_default=True, help="Runs of each algorithm.")
def main(names: tuple[str, ...], timesteps: int, seeds: int) -> None:
    for seed in range(seeds):
        for name in names:
            accuracy = Curve("rollout/accuracy")
            ALGORITHMS[name]("espo_gym/teaching", "espo_gym/Addition-v0", seed=seed).learn(timesteps, accuracy)
            bars = "".join(BARS[round(value * (len(BARS) - 1))] for value in accuracy.values)
            print(f"seed {seed}  {name:12}  {accuracy.values[0]:.3f} |{bars}| {accuracy.values[-1]:.3f}")


if __name__ == "__main__":
    main()
