"""Retry-v0: several attempts at a problem, with feedback in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import check_int, check_template
from ..registration import make_task
from ..task import Problem, Task
from ..verdict import Verdict


class Retry(Task):
    """Any single-turn environment with more than one attempt.

    Description:
        The problems, splits and verifier of another environment. An episode ends with a right answer or the last
        attempt.

    Observation:
        The prompt; after a wrong answer the feedback ``That is not correct. Try again.``

    Action:
        As in the other environment.

    Reward:
        1 for a right answer, 0 before that and otherwise.

    Arguments:
        ``env``, the id (default ``espo_gym/Addition-v0``) or the task; ``attempts`` (1 to 100, default 3);
        ``feedback``, which may use the fields ``{prompt}``, ``{answer}`` (the wrong one, if there was any) and
        ``{left}`` (attempts); all others go to the other environment.

    Version history:
        v0: first version.
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
        self.name = self.task.name
        self.splits = self.task.splits
        self.system_prompt = self.task.system_prompt
        self.verifier, self.audit_share = self.task.verifier, self.task.audit_share
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

    def feedback(self, problem: Problem, completion: str, verdict: Verdict, turn: int) -> str:
        return self.feedback_template.format(
            prompt=problem.prompt, answer=verdict.answer or "", left=self.max_turns - turn
        )
