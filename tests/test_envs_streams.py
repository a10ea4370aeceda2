"""Problems drawn by the thousand are those that numpy's generators give one by one."""

import re
from math import prod

import numpy as np
import pytest

from espo_gym.envs import (
    Addition,
    ChainArithmetic,
    LinearEquation,
    MathVectorEnv,
    ModularArithmetic,
    Problem,
    make_task,
)
from espo_gym.envs.rng_streams import integers, seeded
from espo_gym.envs.tasks.integer_draws import UniformIntegersTask

SEEDS = [0, 1, 2**32 - 1, 2**32, 2**63 - 1, *np.random.default_rng(0).integers(0, 2**63, 60).tolist(), *range(100, 160)]
FAMILIES = [0, 1, 2**32 - 1, 2**32, 2**64 - 1, 0x0123456789ABCDEF]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [3, len(SEEDS)])
def test_seeded_together_is_seeded_alone(family, n):
    for seed, bits in zip(SEEDS, seeded(family, SEEDS[:n]), strict=False):
        assert bits.state == np.random.PCG64(np.random.SeedSequence((family, seed))).state


@pytest.mark.parametrize("span", [2, 3, 9, 1000, 2**31, 2**31 + 1, 3 * 2**30 + 5, 2**32])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_integers_are_those_of_a_generator(span, k):
    low = np.arange(k) - 3
    drawn, known = integers(seeded(7, SEEDS), low, low + span)
    assert known.all() if span < 2000 or span in (2**31, 2**32) else known.sum() > 0
    assert known.all() or span > 2000  # where a quarter or a half of all words are drawn again, most rows are unknown
    for seed, row, right in zip(SEEDS, drawn.tolist(), known, strict=True):
        rng = np.random.default_rng(np.random.SeedSequence((7, seed)))
        assert (row == [int(rng.integers(a, a + span)) for a in low.tolist()]) or not right


TASKS = [
    Addition(),
    Addition(digits=12),  # wider than a word
    ChainArithmetic(),
    ChainArithmetic(terms=8, digits=3, operators="*+"),
    ChainArithmetic(operators="+"),  # one operator: numpy draws no word for it
    ModularArithmetic(max_modulus=2),
    LinearEquation(),
    LinearEquation(max_coefficient=1),  # most draws make no problem
    make_task("espo_gym/Countdown-v0"),
    make_task("espo_gym/Retry-v0"),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
@pytest.mark.parametrize("split", ["train", "test"])
def test_many_problems_are_those_made_one_by_one(task, split):
    if isinstance(task, LinearEquation) and task.max_coefficient == 1:
        split = "train"  # its few equations need not reach the other splits
    assert task.problems(split, SEEDS) == [task.problem(split, seed) for seed in SEEDS]


def test_a_chain_is_worth_its_terms():
    for problem in ChainArithmetic(terms=7, digits=2).problems("train", range(200)):
        parts = re.findall(r"([-+])([0-9*]+)", f"+{problem.prompt.removesuffix('=')}")
        factors = [(sign, sorted(map(int, term.split("*")))) for sign, term in parts]
        assert sum(prod(f) if sign == "+" else -prod(f) for sign, f in factors) == int(problem.answer)
        assert problem.key == "".join(sorted(sign + "*".join(map(str, f)) for sign, f in factors))


class Other(UniformIntegersTask):
    """Has its own way from a seed to a problem."""

    template = "{n}"
    ranges = ((0, 10),)

    def make(self, numbers):
        return Problem(str(numbers[0]), str(numbers[0]), str(numbers[0]))

    def problem(self, split, seed):
        return Problem(f"problem {seed}", "1", "1")


class Sampled(Other):
    problem = UniformIntegersTask.problem

    def sample(self, rng):
        return Problem(f"{rng.random()}", "1", f"{rng.random()}")


@pytest.mark.parametrize("task", [Other(), Sampled()])
def test_a_subclass_may_make_its_problems_in_another_way(task):
    env = MathVectorEnv(task, num_envs=20)
    assert env.reset(seed=list(range(20)))[0] == tuple(task.problem("train", s).prompt for s in range(20))
