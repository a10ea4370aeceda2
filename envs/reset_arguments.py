"""Checks of what ``reset`` is given, the same for ``TextEnv`` and ``MathVectorEnv``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
from typing_extensions import Self

from .checks import check_choice, check_int
from .task import Task

MAX_SEED = 2**63 - 1


def draw_seed(task: Task, split: str, rng: np.random.Generator) -> int:
    """A seed for an episode that was reset without one.

    It is below the size of a finite split, so that the problem is one of its first epoch.
    """
    return int(rng.integers(task.size(split) or 2**31))


def check_options(
    task: Task, split: str, options: Mapping[str, Any] | None, known: tuple[str, ...] = ("split",)
) -> tuple[str, Any]:
    """The split and the reset mask (or ``None``) that the ``options`` of a reset ask for.

    ``split`` is the environment's own, used if the options name none. Raises ValueError for an unknown option or split.
    """
    options = options or {}
    for name in options:
        check_choice("reset option", name, known)
    return check_split(task, options.get("split")) if "split" in options else split, options.get("reset_mask")


def check_split(task: Task, split: str | None) -> str:
    """``split``, or the task's first one. Raises ValueError if it is unknown or empty."""
    split = check_choice("split", task.splits[0] if split is None else split, task.splits)
    if task.size(split) == 0:
        sizes = ", ".join(f"{name} has {task.size(name)}" for name in task.splits)
        raise ValueError(f"the split {split!r} of {task.name!r} is empty: {sizes}")
    return split


class Split:
    """The split that an environment takes its problems from; None for the first one of its task.

    Setting one that the task does not have, or an empty one, raises ValueError.
    """

    @overload
    def __get__(self, env: None, owner: type) -> Self: ...
    @overload
    def __get__(self, env: Any, owner: type) -> str: ...
    def __get__(self, env: Any, owner: type) -> Self | str:
        return self if env is None else env._split

    def __set__(self, env: Any, split: str | None) -> None:
        env._split = check_split(env.task, split)


def check_seed(seed: Any) -> int:
    """``seed`` as an ``int``. Raises TypeError or ValueError unless it is an integer from 0 to 2**63 - 1."""
    return check_int("seed", seed, 0, MAX_SEED)
