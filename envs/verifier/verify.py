"""Placeholder of the first commit: exact strings only."""

from __future__ import annotations

from collections.abc import Sequence

from .verdict import Verdict


def verify(completions: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """A verdict for each completion against its reference."""
    return [
        Verdict("correct" if c.strip() == r.strip() else "incorrect", answer=c.strip(), tier="string")
        for c, r in zip(completions, references, strict=True)
    ]
