"""The verdict on one completion: what ``Task.verify`` returns and everything downstream reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["correct", "incorrect", "no_answer", "no_verdict"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of verifying one completion.

    A failure of the verifier must never look like a wrong answer. ``no_verdict`` means that nothing is known about the
    completion, and everything downstream (baselines, losses, accuracies) leaves such a completion out.
    """

    status: Status
    """``correct``, ``incorrect``, ``no_answer`` (no answer was found in the completion) or ``no_verdict`` (the verifier
    failed)."""
    answer: str | None = None
    """The final answer exactly as written in the completion."""
    normalized: str | None = None
    """The answer in a normal form, on which majority votes (maj@k) are counted: equal strings are equal answers."""
    tier: str | None = None
    """Which stage of the verifier decided, e.g. ``string``, ``rational``, ``numeric``, ``math-verify``."""
    seconds: float = field(default=0.0, compare=False)
    """Wall-clock seconds spent on this verdict."""
    reason: str | None = None
    """Why there is no verdict (``timeout``, ``memory``, ``crash``, ``unreadable_reference``, ``too_long``) or no
    answer, which ``Conventions`` made the answer correct, or which form it lacks. None if the two texts decided.
    """
    audit: Status | None = None
    """The outcome of an independent second check, if one was made."""
    detail: str | None = field(default=None, compare=False)
    """What is known of a ``crash``, for example the last words of a worker that does not start; or how math-verify
    failed with an answer that is therefore ``incorrect``."""
    rule: str | None = field(default=None, compare=False)
    """The rule by which the answer was found, if ``verify`` found it."""
    reference: str | None = field(default=None, compare=False)
    """What the answer was compared with, if ``verify`` compared it."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right. False does not mean wrong: see ``has_verdict``."""
        return self.status == "correct"

    @property
    def has_verdict(self) -> bool:
        """False if the verifier failed."""
        return self.status != "no_verdict"

    @property
    def reward(self) -> float:
        """1.0 for a correct answer, else 0.0. Meaningless if ``has_verdict`` is false."""
        return float(self.correct)

    def explain(self) -> str:
        """A few plain lines: which answer was found by which rule, how both sides were read, what decided and why.

        Control characters are escaped and long texts cut, so that it can be printed whatever the completion contains.
        """
        from .verifier.explain import explain  # only where somebody reads it

        return explain(
            self.status,
            answer=self.answer,
            reference=self.reference,
            rule=self.rule,
            tier=self.tier,
            reason=self.reason,
            detail=self.detail,
        )
