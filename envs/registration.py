"""Registered ids: from a task to an id of Gymnasium's registry, and from an id to the task."""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.error import UnregisteredEnv

from .checks import did_you_mean
from .task import Task


def register_task(id: str, task: str | type[Task], **kwargs: Any) -> None:
    """Register a task, so that ``gymnasium.make(id)`` and ``gymnasium.make_vec(id)`` make environments from it.

    Args:
        id: ``"namespace/Name-v0"``.
        task: a ``Task`` subclass, or ``"module:Class"``, which is imported when the first environment is made.
        kwargs: defaults for the task's keyword arguments.

    Registering the same task again has no effect: a package may do so in its code and by an entry point.

    Raises gymnasium.error.Error for a malformed id.
    """
    there = gymnasium.registry.get(id)
    if there is not None and there.kwargs == {"task": task, **kwargs}:
        return
    gymnasium.register(
        id=id,
        entry_point="espo_gym.envs.text_env:TextEnv",
        vector_entry_point="espo_gym.envs.vector_env:MathVectorEnv",
        kwargs={"task": task, **kwargs},
    )


def import_named(module: str, problem: str) -> ModuleType:
    """Import somebody else's ``module``. Raises ImportError, whatever went wrong there: ``problem`` and the reason."""
    try:
        return import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        hint = f". If it is in this folder, set PYTHONPATH: PYTHONPATH={os.curdir} espo-gym ..." if missing else ""
        raise ImportError(f"{problem}: {error}{hint}") from error


def make_task(task: str | type[Task] | Task, **kwargs: Any) -> Task:
    """The task for a ``Task``, a ``Task`` subclass, ``"module:Class"`` or a registered id (``"espo_gym/Addition-v0"``).

    ``kwargs`` are passed to the constructor. Raises UnregisteredEnv for an unknown id, ImportError for a class that
    cannot be imported, TypeError for keyword arguments that the task does not take, for keyword arguments given with a
    finished task, and for anything else than a task.
    """
    if isinstance(task, str):
        module, _, name = task.rpartition(":")
        if not module or not name.isidentifier():
            defaults = {key: value for key, value in task_spec(task).kwargs.items() if key != "split"}
            return make_task(**{**defaults, **kwargs})
        found = import_named(module, f"no task {task!r}")
        if not hasattr(found, name):
            there = [n for n, c in vars(found).items() if isinstance(c, type) and issubclass(c, Task)]
            raise ImportError(f"no task {task!r}: {module} has no attribute {name!r}.{did_you_mean(name, there)}")
        task = getattr(found, name)
    if isinstance(task, Task):
        if kwargs:
            raise TypeError(f"{', '.join(kwargs)}: keyword arguments go with a task's class, not with a finished task")
        return task
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise TypeError(f"expected a Task, a Task subclass, 'module:Class' or a registered id, got {task!r}")
    known = task_arguments(task)
    for name in [] if task.open_arguments else kwargs:
        if name not in known:
            raise TypeError(
                f"{task.__name__} has no argument {name!r}.{did_you_mean(name, known)} It takes {', '.join(known)}"
            )
    return task(**kwargs)


def task_spec(id: str) -> gymnasium.envs.registration.EnvSpec:
    """The spec of a registered task. Raises UnregisteredEnv for an unknown id, TypeError if it is not a text task.

    As in ``gymnasium.make``, an id may have a module to import first: ``"module:namespace/Name-v0"``.
    """
    module, _, name = id.rpartition(":")
    if module:
        import_named(module, f"no environment {id!r}")
    spec = gymnasium.registry.get(name)
    if spec is None:
        raise UnregisteredEnv(f"no environment is registered as {id!r}.{did_you_mean(name, gymnasium.registry)}")
    if "task" not in spec.kwargs:
        raise TypeError(f"{id!r} is not a text task: it was not registered by espo_gym.envs.register_task")
    return spec


def task_arguments(task: type[Task]) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a task's constructor by name, including those that it passes on to its parents."""
    arguments: dict[str, inspect.Parameter] = {}
    for cls in task.__mro__:
        if "__init__" not in cls.__dict__:
            continue
        parameters = list(inspect.signature(cls.__dict__["__init__"]).parameters.values())[1:]
        arguments.update({p.name: p for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in arguments})
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return arguments
