"""From ids to tasks and back."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import gymnasium
from gymnasium.error import UnregisteredEnv

from .checks import did_you_mean
from .task import Task


def register_task(id: str, task: str | type[Task], **kwargs: Any) -> None:
    """Make ``gymnasium.make(id)`` and ``gymnasium.make_vec(id)`` give environments of this task.

    ``task`` is a class or, so that nothing is imported before it is needed, ``"module:Class"``; ``kwargs`` become the
    defaults of its keyword arguments.
    """
    gymnasium.register(
        id=id,
        entry_point="espo_gym.envs.text_env:TextEnv",
        vector_entry_point="espo_gym.envs.vector_env:MathVectorEnv",
        kwargs={"task": task, **kwargs},
    )


def make_task(task: str | type[Task] | Task, **kwargs: Any) -> Task:
    """The task that is meant by a task, its class, ``"module:Class"`` or a registered id such as
    ``"espo_gym/Addition-v0"``; ``kwargs`` go to the constructor.

    Raises UnregisteredEnv for an unknown id, TypeError for keyword arguments that the task does not take or for what is
    no task at all.
    """
    if isinstance(task, str):
        module, _, name = task.rpartition(":")
        if not module or not name.isidentifier():
            defaults = {key: value for key, value in task_spec(task).kwargs.items() if key != "split"}
            return make_task(**{**defaults, **kwargs})
        task = getattr(importlib.import_module(module), name)
    if isinstance(task, Task):
        if kwargs:
            raise TypeError(f"{', '.join(kwargs)}: keyword arguments go with a task's class, not with a finished task")
        return task
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise TypeError(f"a task, its class, 'module:Class' or a registered id is needed, not {task!r}")
    known = task_arguments(task)
    for name in [] if task.open_arguments else kwargs:
        if name not in known:
            raise TypeError(
                f"{task.__name__} has no argument {name!r}.{did_you_mean(name, known)} It takes {', '.join(known)}"
            )
    return task(**kwargs)


def task_spec(id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered spec of a text task. Raises UnregisteredEnv for an unknown id, TypeError if it is another kind."""
    module, _, name = id.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gymnasium.registry.get(name)
    if spec is None:
        raise UnregisteredEnv(f"no environment is registered as {id!r}.{did_you_mean(name, gymnasium.registry)}")
    if "task" not in spec.kwargs:
        raise TypeError(f"{id!r} is not a text task: it was not registered by espo_gym.envs.register_task")
    return spec


def task_arguments(task: type[Task]) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a task's constructor, those which it passes on to its parents included."""
    arguments: dict[str, inspect.Parameter] = {}
    for cls in task.__mro__:
        if "__init__" not in cls.__dict__:
            continue
        parameters = list(inspect.signature(cls.__dict__["__init__"]).parameters.values())[1:]
        arguments.update({p.name: p for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in arguments})
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return arguments
