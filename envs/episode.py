"""One problem and the turns taken on it: the state that ``TextEnv`` and ``MathVectorEnv`` keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .task import Problem, Task
from .verdict import Verdict


@dataclass(slots=True)
class Episode:
    """A problem and the turns taken on it."""

    task: Task
    split: str
    seed: int
    problem: Problem
    observation: str
    """What the model reads next: the prompt, the feedback after a turn, or an empty string at the end."""
    turn: int = 0
    """Number of completions so far."""
    done: bool = False
    transcript: list[tuple[str, str, Verdict]] = field(default_factory=list)
    """Observation, completion and verdict of each turn."""

    def advance(self, completion: str, verdict: Verdict) -> float:
        """Take one turn; returns the reward.

        A wrong answer is followed by feedback while turns are left. Without a verdict the episode ends: feedback would
        claim to know whether the answer was wrong.
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
    """The infos of a reset: for each key a list with one value per episode."""
    return {
        "problem": [episode.problem for episode in episodes],
        "split": [episode.split for episode in episodes],
        "seed": [episode.seed for episode in episodes],
    }


def step_infos(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    """The infos of a step: for each key a list with one value per episode."""
    verdicts = [episode.transcript[-1][2] for episode in episodes]
    return {
        "verdict": verdicts,
        "is_success": [verdict.correct for verdict in verdicts],
        "has_verdict": [verdict.has_verdict for verdict in verdicts],
        "turn": [episode.turn for episode in episodes],
    }


def describe(verdict: Verdict) -> str:
    """A verdict in one line."""
    text = verdict.status.replace("_", " ")
    if verdict.reason:
        text += f" ({verdict.reason}{f': {verdict.detail}' if verdict.detail else ''})"
    return text if verdict.answer is None else f"{text}, answer {verdict.answer!r}"
