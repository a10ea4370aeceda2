"""From what a user calls an environment to a Gymnasium vector environment whose observations and actions are text."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import gymnasium as gym
from gymnasium.spaces import Text
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from .envs import MathVectorEnv, Task, TextEnv
from .envs.registration import import_named
from .plugins import check_env_arguments, check_import

SAME_STEP = AutoresetMode.SAME_STEP

Environment = str | gym.Env | VectorEnv
"""An id (with the module that registers it, ``module:id``), an environment or a vector environment."""

_REGISTERED_BY: dict[str, str] = {}
"""Id -> the module that was named with it. Gymnasium's registry forgets it, and a checkpoint needs it."""

_ASYNC: WeakKeyDictionary[AsyncVectorEnv, gym.Env[Any, Any]] = WeakKeyDictionary()
"""The environment of the first row of each, made once."""


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """``gymnasium.make``, which also remembers the module of ``module:id`` for checkpoints.

    Raises:
        ImportError: the module cannot be imported.
        gymnasium.error.Error: no such id is registered (the message names the closest one).
    """
    name = _import_module(env_id)
    with _hint(name):
        return gym.make(name, **kwargs)


def _import_module(env_id: str) -> str:
    """Import the module of ``module:id``, and return the id. Raises ImportError."""
    module, _, name = env_id.rpartition(":")
    if module:
        import_named(module, f"no environment {env_id!r}")
        _REGISTERED_BY[name] = module
    return name


@contextmanager
def _hint(name: str) -> Iterator[None]:
    """Add to Gymnasium's message of an unknown id what it leaves out: the namespace, and ids of other packages."""
    try:
        yield
    except gym.error.UnregisteredEnv as error:
        full = [known for known in gym.registry if known.endswith(f"/{name}")]
        meant = f" Did you mean {full[0]!r}?" if full else ""
        raise type(error)(
            f"{error}{meant} espo-gym list shows the ids; name another package's as module:id, where importing module "
            "registers the id"
        ) from None


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
    name = _import_module(env_id)
    # A native vector environment has one autoreset mode; Gymnasium's own class takes it as an argument.
    with _hint(name):
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


def task_of(env: VectorEnv) -> Task | None:
    """The :class:`espo_gym.envs.Task` behind ``env`` (its first row), or None for an environment from elsewhere."""
    inner: Any = env.unwrapped
    if isinstance(inner, AsyncVectorEnv):
        if inner not in _ASYNC:  # its rows live in other processes, so one is made here as well
            _ASYNC[inner] = inner.env_fns[0]().unwrapped
        inner = _ASYNC[inner]
    elif isinstance(inner, SyncVectorEnv):
        inner = inner.envs[0].unwrapped
    task = getattr(inner, "task", None)
    return task if isinstance(task, Task) else None


def describe(env: VectorEnv) -> str:
    """The id of ``env`` or, without one, its class."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def environment_spec(env: VectorEnv) -> dict[str, Any] | None:
    """What a checkpoint keeps of ``env``: ``{"id", "module", "kwargs"}``, where importing ``module`` registers the id;
    None for an environment that was not made from an id.
    """
    if env.spec is None:
        return None
    kwargs = {k: v for k, v in env.spec.kwargs.items() if k not in ("num_envs", "vectorization_mode", "vector_kwargs")}
    registered = gym.spec(env.spec.id)
    if kwargs.get("task") == registered.kwargs.get("task"):
        kwargs.pop("task", None)  # the id stands for it
    try:
        json.dumps(kwargs)
    except TypeError:
        return None
    return {"id": env.spec.id, "module": _registering_module(registered), "kwargs": kwargs}


def _registering_module(spec: gym.envs.registration.EnvSpec) -> str | None:
    """The module that was named with the id or, where none was, the one that defines the task or environment: often it
    or its package registers the id.
    """
    if spec.id in _REGISTERED_BY:
        return _REGISTERED_BY[spec.id]
    defined = spec.kwargs.get("task", spec.entry_point)
    return defined.partition(":")[0] if isinstance(defined, str) else getattr(defined, "__module__", None)


def make_from_spec(
    spec: dict[str, Any], num_envs: int, *, allow_import: Collection[str] = (), source: str | Path = "the checkpoint"
) -> VectorEnv:
    """The environment that :func:`environment_spec` described.

    ``spec`` comes from the file ``source``: where its id is not registered yet, its module is imported only as
    :func:`espo_gym.plugins.check_import` allows.

    Raises ValueError: the module may not be imported, or does not register the id.
    """
    check_env_arguments(spec["kwargs"], allow_import, source)
    name = f"{spec['module']}:{spec['id']}"
    if ":" in spec["id"]:
        raise ValueError(f"{source} is not a checkpoint of espo_gym: {spec['id']!r} is no id of an environment")
    if spec["id"] not in gym.registry and spec["module"] is not None:
        check_import(name, allow_import, source)
        _import_module(name)
    if spec["id"] not in gym.registry:
        raise ValueError(
            f"{source} was trained in {spec['id']}, which importing {spec['module']} does not register: "
            "import what registers it, or give another environment"
        )
    return as_vector_env(gym.make(spec["id"], **spec["kwargs"]), num_envs)
