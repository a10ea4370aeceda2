"""Re-checks a share of the verdicts with an independent method, that of ``second_opinion.py``."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..verdict import Status, Verdict
from .decide import read_reference
from .second_opinion import second_opinion


@dataclass(frozen=True)
class Disagreement:
    """A verdict that the audit contradicts."""

    at: int
    """Its index in the batch."""
    answer: str
    reference: str
    verdict: Status
    audit: Status


@dataclass(frozen=True)
class Audit:
    """The outcome of re-checking a share of the verdicts."""

    checked: int
    """Number of verdicts on which the audit has an opinion."""
    disagreements: tuple[Disagreement, ...]
    opinions: Mapping[int, Status]
    """The audit's own verdicts, by index in the batch."""

    @property
    def rate(self) -> float:
        """Disagreements per checked verdict; 0 if none was checked."""
        return len(self.disagreements) / self.checked if self.checked else 0.0


def audit(verdicts: Sequence[Verdict], references: Sequence[str], *, share: float = 1.0, seed: int = 0) -> Audit:
    """Re-check a random ``share`` (0 to 1) of the ``correct`` and ``incorrect`` verdicts.

    The same ``seed`` selects the same verdicts and points; the global random state is not used. Raises ValueError
    unless there is one reference per verdict, and for a ``share`` out of range.
    """
    if len(verdicts) != len(references):
        raise ValueError(f"{len(verdicts)} verdicts but {len(references)} references; one reference for each")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be between 0 and 1, not {share}")
    rng = random.Random(seed)
    opinions: dict[int, Status] = {}
    found = []
    for at, (verdict, reference) in enumerate(zip(verdicts, references, strict=True)):
        if rng.random() >= share or verdict.answer is None or verdict.status not in ("correct", "incorrect"):
            continue
        if verdict.reason:  # a convention or a form decided, of which the audit knows nothing
            continue
        same = second_opinion(verdict.answer, read_reference(reference), random.Random(rng.getrandbits(64)))
        if same is None:
            continue
        status: Status = "correct" if same else "incorrect"
        opinions[at] = status
        if status != verdict.status:
            found.append(Disagreement(at, verdict.answer, reference, verdict.status, status))
    return Audit(len(opinions), tuple(found), opinions)
