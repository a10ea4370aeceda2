"""Retry-v0: several attempts at a problem, with feedback in between."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import get_annotations
from typing import Any

import numpy as np

from ..checks import check_int, check_template
from ..registration import make_task
from ..task import Problem, Task
from ..verdict import Verdict

OWN = {"max_turns", "open_arguments"}
"""The fields of a Task that are not those of the other task."""


class Retry(Task):
    """Several attempts at the problems of any single-turn environment, with feedback in between.

    ## Description

    The problems, splits and verifier of another environment. An episode ends with a right answer or after the last
    attempt.

    ## Observation

    The prompt; after a wrong answer the ``feedback``, with ``{prompt}``, ``{answer}`` (the wrong one, empty if none was
    found) and ``{left}`` (attempts left) filled in.

    ## Action

    As in the other environment.

    ## Reward

    1 for a right answer, else 0.

    ## Arguments

    All other arguments are passed on to the other environment.

    | Argument | Type | Default | Meaning |
    |---|---|---|---|
    | `env` | `str`, `Task` or its class | `"espo_gym/Addition-v0"` | id or task of the other environment |
    | `attempts` | `int`, 1 to 100 | `3` | maximum number of completions per episode |
    | `feedback` | `str` | `"That is not correct. Try again."` | may use `{prompt}`, `{answer}`, `{left}` |

    ## Example

    ```python
    >>> import espo_gym, gymnasium
    >>> env = gymnasium.make("espo_gym/Retry-v0", attempts=2, feedback="Not {answer}. {left} left: {prompt}", digits=2)
    >>> env.reset(seed=7)[0]
    '18+64='
    >>> env.step("72")[:3]
    ('Not 72. 1 left: 18+64=', 0.0, False)
    >>> env.step("82")[:3]
    ('', 1.0, True)

    ```

    ## Version history

    - v0: first version.
    """

    open_arguments = True

    def __init__(
        self,
        *,
        env: str | type[Task] | Task = "espo_gym/Addition-v0",
        attempts: int = 3,
        feedback: str = "That is not correct. Try again.",
        **kwargs: Any,
    ) -> None:
        """Raises UnregisteredEnv for an unknown id, TypeError if it is no text task, ValueError if not single-turn."""
        self.task = make_task(env, **kwargs)
        if self.task.max_turns != 1:
            raise ValueError(f"Retry needs a task of one turn; {self.task.name!r} has {self.task.max_turns} already")
        # Not super().__init__: all fields that a Task declares, now or later, are the other task's, except OWN.
        for name in get_annotations(Task).keys() - OWN:
            setattr(self, name, getattr(self.task, name))
        self.max_turns = check_int("attempts", attempts, 1, 100)
        self.feedback_template = check_template("feedback", feedback, ("prompt", "answer", "left"), required=False)

    def problem(self, split: str, seed: int) -> Problem:
        return self.task.problem(split, seed)

    def problems(self, split: str, seeds: Sequence[int]) -> list[Problem]:
        return self.task.problems(split, seeds)

    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        return self.task.verify(completions, problems)

    def size(self, split: str) -> int | None:
        return self.task.size(split)

    def generator(self, *seeds: int) -> np.random.Generator:
        return self.task.generator(*seeds)

    def feedback(self, problem: Problem, completion: str, verdict: Verdict, turn: int) -> str:
        return self.feedback_template.format(
            prompt=problem.prompt, answer=verdict.answer or "", left=self.max_turns - turn
        )
