"""Lesson 3: your own environment is a class with two methods.

``sample`` draws a problem; seeds, groups and held-out splits come with the base class. ``verify`` judges completions,
and is needed only if comparing with a reference answer is not enough. Here, any number greater than the one in the
prompt is correct.

The bundled policy has only ever added two numbers, so it makes up a second number and adds it. Watch which number it
settles on. ``--same-length`` makes the task harder: the answer must not have more digits than the given number.

    python examples/own_environment.py      # about 20 seconds on one core
"""

from collections.abc import Sequence
from typing import Any

import click
import gymnasium as gym
import numpy as np

from espo_gym import GRPO
from espo_gym.envs import Problem, ProceduralTask, Verdict, register_task


class Greater(ProceduralTask):
    """Write a number greater than the one given."""

    name = "greater"
    template = "{n}>"

    def __init__(self, *, same_length: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.same_length = same_length

    def sample(self, rng: np.random.Generator) -> Problem:
        n = str(rng.integers(100, 999))
        return Problem(prompt=self.template.format(n=n), answer=n, key=n)

    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        return [self.judge(text, problem.answer) for text, problem in zip(completions, problems, strict=True)]

    def judge(self, text: str, n: str) -> Verdict:
        answer = text.rpartition(",")[2]
        if not (answer.isascii() and answer.isdigit()):  # a model may write anything
            return Verdict("no_answer")
        right = int(answer) > int(n) and (len(answer) == len(n) or not self.same_length)
        return Verdict("correct" if right else "incorrect", answer=answer)


@click.command()
@click.option("--timesteps", default=5120, show_default=True, help="Completions to train on.")
@click.option("--same-length", is_flag=True, help="The answer must have as many digits as the number given.")
def main(timesteps: int, same_length: bool) -> None:
    register_task("my/Greater-v0", Greater)
    env = gym.make("my/Greater-v0", same_length=same_length)
    algo = GRPO("espo_gym/teaching", env, max_completion_tokens=32)
    show(algo, "before")
    algo.learn(timesteps)
    show(algo, "after")


def show(algo: GRPO, when: str) -> None:
    result = algo.evaluate(n_problems=64, details=True)
    print(f"{when}: {result}")
    for problem in result.problems[:4]:
        print(f"  {problem.prompt}{problem.greedy}  {problem.greedy_verdict.status}")


if __name__ == "__main__":
    main()
