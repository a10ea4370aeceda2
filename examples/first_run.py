"""Lesson 1: train a policy in three lines, and look at what changed.

The bundled policy adds numbers on a scratchpad, but it was trained on careless demonstrations and drops most carries.
It never sees a correct demonstration: it learns only from whether its answers are right.

    python examples/first_run.py            # about 20 seconds on one core
"""

import click

from espo_gym import ESPO


@click.command()
@click.option("--timesteps", default=5120, show_default=True, help="Completions to train on.")
@click.option("--problems", default=128, show_default=True, help="Held-out problems.")
def main(timesteps: int, problems: int) -> None:
    algo = ESPO("espo_gym/teaching", "espo_gym/Addition-v0")
    before = algo.evaluate(n_problems=problems, details=True)
    algo.learn(timesteps)  # one timestep is one completion
    after = algo.evaluate(n_problems=problems, details=True)  # the same problems; none of them is used in training

    # Greedy decoding is right as soon as each carry is more likely than not; avg@8 shows how certain the policy is.
    print(f"before  {before}")
    print(f"after   {after}")
    wrong = next(i for i, problem in enumerate(before.problems) if not problem.greedy_verdict.correct)
    for evaluation in (before, after):
        problem = evaluation.problems[wrong]
        print(f"{problem.prompt}{problem.greedy}  {problem.greedy_verdict.status}")


if __name__ == "__main__":
    main()
