"""G10: what the environment costs beside its verifier."""

from __future__ import annotations

import time

import gymnasium as gym
import numpy as np

from espo_gym.envs import MathVectorEnv

from . import workload
from .goals import Interval, Row
from .workload import SMALL

ROWS = 1024
FAMILIES = ("Addition", "ChainArithmetic", "ModularArithmetic", "LinearEquation")


def measure_g10(repeats: int) -> list[Row]:
    rows, worst = [], 0.0
    for family in FAMILIES:
        for group in (1, 8):
            costs = [_cost(family, group, round) for round in range(repeats + 1)][1:]
            cost = Interval(*(float(np.quantile(costs, q)) * 1e6 for q in (0.5, 0.025, 0.975)))
            worst = max(worst, cost.value)
            loop = float(np.median([_loop(family, group, round) for round in range(3)])) * 1e6
            rows.append(Row("G10", f"{family}, groups of {group}", cost, f"the loop: {loop:.3g} us"))
    algorithm = workload.grpo(SMALL)
    seconds = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        workload.step(algorithm)
        seconds.append((time.process_time() - begin) / workload.ROWS)
    step = float(np.median(seconds[1:])) * 1e6
    share = Interval.exactly(100 * worst / step)
    return [*rows, Row("G10 share", "the dearest of these", share, f"a step takes {step:.3g} us a completion")]


def _cost(family: str, group: int, round: int) -> float:
    """CPU seconds an episode of reset and step, less those of the verifier."""
    env = gym.make_vec(f"espo_gym/{family}-v0", num_envs=ROWS).unwrapped
    assert isinstance(env, MathVectorEnv)
    seeds = [ROWS * round + i // group for i in range(ROWS)]
    begin = time.process_time()
    _, infos = env.reset(seed=seeds)
    spent = time.process_time() - begin
    problems = list(infos["problem"])
    answers = tuple(problem.answer for problem in problems)
    begin = time.process_time()
    env.task.verify(answers, problems)
    verifier = time.process_time() - begin
    begin = time.process_time()
    env.step(answers)
    return (spent + time.process_time() - begin - verifier) / ROWS


def _loop(family: str, group: int, round: int) -> float:
    """The same for a loop over single environments, with its verifier."""
    env = gym.make(f"espo_gym/{family}-v0").unwrapped
    begin = time.process_time()
    for i in range(ROWS):
        _, info = env.reset(seed=ROWS * round + i // group)
        env.step(info["problem"].answer)
    return (time.process_time() - begin) / ROWS
