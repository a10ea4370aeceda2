"""What an environment must return for a rollout to be learned from; a breach names the environment and the problem."""

from __future__ import annotations

import math
import reprlib
from typing import Any

import numpy as np

LARGEST_REWARD = 1e16
"""The squares of a million such rewards still add up in float32; beyond it, advantages overflow."""


def check_text(observation: Any, row: int, when: str) -> None:
    """Raise TypeError unless ``observation`` is a ``str``."""
    if not isinstance(observation, str):
        raise TypeError(
            f"the environment returned the observation {reprlib.repr(observation)} {when} (row {row}); it must be a "
            "str, which may be empty at the end of an episode"
        )


def checked_reward(reward: Any, row: int, prompt: str) -> float:
    """``reward`` as a float.

    Raises:
        TypeError: it is not one number.
        ValueError: it is not finite, or larger than :data:`LARGEST_REWARD`.
    """
    where = f"for {prompt[:80]!r} (row {row})"
    look = "Look at the step method of the environment; nothing was learned from this rollout"
    try:
        if isinstance(reward, str | bytes) or np.ndim(reward):
            raise TypeError
        number = float(reward)
    except TypeError:
        given = reprlib.repr(reward)
        raise TypeError(f"the environment returned the reward {given} {where}; it must be one number. {look}") from None
    if not abs(number) <= LARGEST_REWARD:
        hint = " (Gymnasium makes nan of None, too)" if math.isnan(number) else ""
        raise ValueError(
            f"the environment returned the reward {number} {where}{hint}; it must be finite, and at most "
            f"{LARGEST_REWARD:g} in size. {look}"
        )
    return number


def check_group(seed: int, first: tuple[int, str], other: tuple[int, str]) -> None:
    """Raise ValueError unless two episodes, each a number and a prompt, that were reset with ``seed`` ask the same."""
    if first[1] != other[1]:
        raise ValueError(
            f"episodes {first[0]} and {other[0]} of the rollout are one group, but reset(seed={seed}) asked "
            f"{first[1][:80]!r} in one and {other[1][:80]!r} in the other: rewards for different problems cannot be "
            "compared. A group takes group_size neighboring rows. Give all of them the same environment, whose problem "
            "depends on the seed alone, or set group_size=1"
        )
