"""A Stable-Baselines3 vector environment of text, for its callbacks that play episodes of their own.

``DummyVecEnv`` keeps observations in a numeric array and cannot be made for a text space; everything else it does is
right for text, so one buffer is all that changes::

    evaluation = EvalCallback(TextVecEnv([lambda: gymnasium.make("espo_gym/Addition-v0", split="validation")] * 32))
    algo.learn(20_000, callback=evaluation)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv


class TextVecEnv(DummyVecEnv):
    """Text environments in a row: observations are an object array (N,) of ``str``, actions any N of them.

    ``EvalCallback`` warns that it is of another type than the environment of training; here that does not matter.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        self.envs = [make() for make in env_fns]
        if len({id(env.unwrapped) for env in self.envs}) < len(self.envs):
            raise ValueError("two functions returned the same instance; each must make a new environment")
        VecEnv.__init__(self, len(self.envs), self.envs[0].observation_space, self.envs[0].action_space)
        self.metadata = self.envs[0].metadata
        self.keys: list[Any] = [None]
        self.buf_obs: dict[Any, NDArray[Any]] = {None: np.full(self.num_envs, "", dtype=object)}  # type: ignore[assignment]
        self.buf_dones = np.zeros(self.num_envs, dtype=bool)
        self.buf_rews = np.zeros(self.num_envs, dtype=np.float32)
        self.buf_infos: list[dict[str, Any]] = [{} for _ in self.envs]
