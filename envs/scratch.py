"""Answers written at the end of a compact scratch pad, such as ``8+7=15,5+6+1=12,3+4+1=8,825``."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence

from .task import Problem, ProceduralTask
from .verifier import Verdict

INTEGER = re.compile(r"-?[0-9]+")


class ScratchTask(ProceduralTask):
    """Integer answers. A completion made of scratch-pad characters alone is read by its last field, exactly; to the
    general verifier ``8,825`` would be 8825. Any other completion goes to the general verifier."""

    scratch_pad: re.Pattern[str]
    """Matches a whole completion that is a scratch pad."""

    @abstractmethod
    def final_answer(self, scratch_pad: str) -> str | None:
        """The integer that a scratch pad ends with, "" if there is none, ``None`` if it is no scratch pad after all."""

    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        verdicts = [self._read(text.strip(), problem) for text, problem in zip(completions, problems, strict=True)]
        rest = [i for i, verdict in enumerate(verdicts) if verdict is None]
        if rest:
            general = super().verify([completions[i] for i in rest], [problems[i] for i in rest])
            for i, verdict in zip(rest, general, strict=True):
                verdicts[i] = verdict
        return verdicts  # type: ignore[return-value]

    def _read(self, text: str, problem: Problem) -> Verdict | None:
        answer = self.final_answer(text) if self.scratch_pad.fullmatch(text) else None
        if answer is None:
            return None
        if not INTEGER.fullmatch(answer):
            return Verdict("no_answer", tier="integer", reason="no_final_field")
        normalized = normalize(answer)
        status = "correct" if normalized == normalize(problem.answer) else "incorrect"
        return Verdict(status, answer, normalized, tier="integer")  # type: ignore[arg-type]


def normalize(integer: str) -> str:
    """Without leading zeros. Text all along: Python refuses to read an integer of more than 4300 digits."""
    digits = integer.lstrip("-").lstrip("0") or "0"
    return f"-{digits}" if integer.startswith("-") and digits != "0" else digits
