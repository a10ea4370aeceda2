"""The life of one problem in an environment: what ``TextEnv`` and ``MathVectorEnv`` have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .checks import check_choice, check_int
from .spaces import UnicodeText
from .task import Problem, Task, stable_hash
from .verifier import Verdict, audit

OBSERVATION_SPACE = UnicodeText(2**17)
LOGGER = logging.getLogger("espo_gym.audit")
ACTION_SPACE = UnicodeText(2**20)
MAX_SEED = 2**63 - 1


@dataclass(slots=True)
class Episode:
    """A problem and the turns taken on it."""

    task: Task
    split: str
    seed: int
    problem: Problem
    observation: str
    """What the model is to read next: the prompt, the feedback after a turn, or nothing at the end."""
    turn: int = 0
    """Completions so far."""
    done: bool = False
    transcript: list[tuple[str, str, Verdict]] = field(default_factory=list)
    """Observation, completion and verdict of each turn."""

    def advance(self, completion: str, verdict: Verdict) -> float:
        """Take one turn; returns the reward.

        A wrong answer is followed by feedback while turns are left. Without a verdict the episode ends: feedback would
        claim what nobody knows.
        """
        self.turn += 1
        self.transcript.append((self.observation, completion, verdict))
        self.done = self.turn >= self.task.max_turns or verdict.correct or not verdict.has_verdict
        self.observation = "" if self.done else self.task.feedback(self.problem, completion, verdict, self.turn)
        return verdict.reward

    def render(self) -> str:
        """Prompt, completions and verdicts as readable text."""
        blocks = [
            f"{observation}\ncompletion: {completion}\nverdict:    {describe(verdict)}"
            for observation, completion, verdict in self.transcript
        ]
        if not self.done:
            blocks.append(self.observation)
        return "prompt:     " + "\nfeedback:   ".join(blocks)


def reset_infos(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    """What the infos of a reset say of each of some episodes."""
    return {
        "problem": [episode.problem for episode in episodes],
        "split": [episode.split for episode in episodes],
        "seed": [episode.seed for episode in episodes],
    }


def step_infos(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    """What the infos of a step say of each of some episodes."""
    verdicts = [episode.transcript[-1][2] for episode in episodes]
    return {
        "verdict": verdicts,
        "is_success": [verdict.correct for verdict in verdicts],
        "has_verdict": [verdict.has_verdict for verdict in verdicts],
        "turn": [episode.turn for episode in episodes],
    }


def judge(task: Task, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
    """``task.verify`` and, if the task says so, its audit. Raises ValueError unless each completion gets a verdict."""
    verdicts = task.verify(completions, problems)
    if len(verdicts) != len(completions):
        raise ValueError(f"{task.name!r}.verify gave {len(verdicts)} verdicts on {len(completions)} completions")
    return audited(task, verdicts, problems) if task.verifier == "audit" else verdicts


def audited(task: Task, verdicts: Sequence[Verdict], problems: Sequence[Problem]) -> list[Verdict]:
    """The verdicts with what the audit came to; disagreements go to the logger ``espo_gym.audit``."""
    seed = stable_hash("\0".join(problem.key for problem in problems))  # the same batch is looked at in the same places
    result = audit(verdicts, [problem.answer for problem in problems], share=task.audit_share, seed=seed)
    for found in result.disagreements:
        LOGGER.warning(
            "verdict %s, audit %s: answer %r, reference %r", found.verdict, found.audit, found.answer, found.reference
        )
    return [replace(v, audit=result.opinions[i]) if i in result.opinions else v for i, v in enumerate(verdicts)]


def describe(verdict: Verdict) -> str:
    """A verdict in one line."""
    text = verdict.status.replace("_", " ")
    if verdict.reason:
        text += f" ({verdict.reason})"
    return text if verdict.answer is None else f"{text}, answer {verdict.answer!r}"


def draw_seed(task: Task, split: str, rng: np.random.Generator) -> int:
    """A seed for an episode that was reset without one; below the size of a finite split, so in its first epoch."""
    return int(rng.integers(task.size(split) or 2**31))


def check_options(
    task: Task, split: str, options: Mapping[str, Any] | None, known: tuple[str, ...] = ("split",)
) -> tuple[str, Any]:
    """The split and the reset mask (or ``None``) that the ``options`` of a reset ask for.

    Raises ValueError for an unknown option or split.
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


def check_seed(seed: Any) -> int:
    """Raises TypeError or ValueError unless ``seed`` is an integer from 0 to 2**63 - 1."""
    return check_int("seed", seed, 0, MAX_SEED)
