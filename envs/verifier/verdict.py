"""What a verifier says of one completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["correct", "incorrect", "no_answer", "no_verdict"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one verification.

    A verifier that fails must never look like a wrong answer: ``no_verdict`` says that nothing is known of the
    completion, and everything downstream (baselines, losses, accuracies) leaves such a response out.
    """

    status: Status
    """``correct``, ``incorrect``, ``no_answer`` (nothing to compare was found) or ``no_verdict`` (the verifier
    failed)."""
    answer: str | None = None
    """The final answer as it stands in the completion."""
    normalized: str | None = None
    """The answer in a normal form: equal strings are equal answers (votes of maj@k are counted on it)."""
    tier: str | None = None
    """What decided, e.g. ``string``, ``rational``, ``numeric``, ``math-verify``."""
    seconds: float = field(default=0.0, compare=False)
    """Wall-clock seconds spent on this verdict."""
    reason: str | None = None
    """Why there is no verdict (``timeout``, ``memory``, ``crash``, ``unreadable_reference``, ``too_long``) or no
    answer."""
    audit: Status | None = None
    """What a second, independent decision came to, where one was made."""

    @property
    def correct(self) -> bool:
        return self.status == "correct"

    @property
    def has_verdict(self) -> bool:
        return self.status != "no_verdict"

    @property
    def reward(self) -> float:
        """1.0 for a correct answer, else 0.0. Meaningless where ``has_verdict`` is false."""
        return float(self.correct)
