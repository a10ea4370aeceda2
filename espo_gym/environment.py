"""From what a user calls an environment to a Gymnasium vector environment whose observations and actions are text."""

from __future__ import annotations

import copy
import importlib
import json
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Text
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from .envs import MathVectorEnv, TextEnv

SAME_STEP = AutoresetMode.SAME_STEP

Environment = str | gym.Env | VectorEnv
"""An id, an environment or a vector environment."""


def as_vector_env(env: Environment, num_envs: int) -> VectorEnv:
    """``env`` as a vector environment of ``num_envs`` rows; a vector environment stays as it is.

    A ``TextEnv`` becomes its native vector form. Another one, a subclass of it included, is copied ``num_envs`` times
    and must be a pure function of ``reset(seed)``, since the members of a group start from equal seeds.

    Raises:
        TypeError: ``env`` is nothing of the kind, or its observations or actions are not text.
        gymnasium.error.Error: no such id is registered (the message names the closest one).
    """
    if isinstance(env, str):
        vector = _make(env, num_envs)
    elif isinstance(env, gym.Env):
        vector = _vectorize(env, num_envs)
    elif isinstance(env, VectorEnv):
        vector = env
    else:
        raise TypeError(
            f"env must be an environment id, a gymnasium.Env or a gymnasium.vector.VectorEnv, not {type(env).__name__}"
        )
    for name, space in (
        ("observations", vector.single_observation_space),
        ("actions", vector.single_action_space),
    ):
        if not isinstance(space, Text):
            raise TypeError(
                f"the {name} of {describe(vector)} are {space}; a language model reads and writes text, "
                "so both spaces must be gymnasium.spaces.Text (espo_gym.envs.UnicodeText admits any string)"
            )
    return vector


def _make(env_id: str, num_envs: int) -> VectorEnv:
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    # A native vector environment decides on its own autoreset; Gymnasium's own class has to be told.
    native = gym.spec(name).vector_entry_point is not None
    return gym.make_vec(name, num_envs=num_envs, vector_kwargs={} if native else {"autoreset_mode": SAME_STEP})


def _vectorize(env: gym.Env, num_envs: int) -> VectorEnv:
    inner: Any = env
    while isinstance(inner, OrderEnforcing | PassiveEnvChecker):  # what gym.make wraps around everything
        inner = inner.env
    if type(inner) is TextEnv:  # of a subclass the native form would not know what it overrides
        vector = MathVectorEnv(inner.task, num_envs=num_envs, split=inner.split)
        vector.spec = env.spec
        return vector
    return SyncVectorEnv([lambda: copy.deepcopy(env)] * num_envs, autoreset_mode=SAME_STEP)


def task_of(env: VectorEnv) -> Any | None:
    """The :class:`espo_gym.envs.Task` behind ``env``, or None for an environment from elsewhere."""
    inner: Any = env.unwrapped
    if isinstance(inner, SyncVectorEnv):
        inner = inner.envs[0].unwrapped
    return getattr(inner, "task", None)


def describe(env: VectorEnv) -> str:
    """The id of ``env`` or, without one, its class."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def environment_spec(env: VectorEnv) -> dict[str, Any] | None:
    """What a checkpoint keeps of ``env``: ``{"id", "kwargs"}``, or None where it was not made from an id."""
    if env.spec is None:
        return None
    kwargs = {k: v for k, v in env.spec.kwargs.items() if k not in ("num_envs", "vectorization_mode", "vector_kwargs")}
    if kwargs.get("task") == gym.spec(env.spec.id).kwargs.get("task"):
        kwargs.pop("task", None)  # the id stands for it
    try:
        json.dumps(kwargs)
    except TypeError:
        return None
    return {"id": env.spec.id, "kwargs": kwargs}


def make_from_spec(spec: dict[str, Any], num_envs: int) -> VectorEnv:
    """The environment that :func:`environment_spec` described."""
    return as_vector_env(gym.make(spec["id"], **spec["kwargs"]), num_envs)
