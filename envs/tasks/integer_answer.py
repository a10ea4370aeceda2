"""Tasks with an integer answer, which may be the last field of a compact scratch pad."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..task import Problem, any_thread
from ..verdict import Verdict
from .integer_draws import UniformIntegersTask

INTEGER = re.compile(r"-?[0-9]+")
UNEVALUATED = re.compile(r"[0-9})]\s*(?:[-+*/^]|\(\s*[0-9])|\\(?:[dt]?frac|times|cdot|div|sqrt|sum)|mod")


class IntegerAnswerTask(UniformIntegersTask):
    r"""The answer to each problem is an integer.

    If a completion consists only of the characters of a scratch pad, its last field is the answer, taken literally: the
    general verifier would read ``8,825`` as 8825. Any other completion goes to the general verifier, but the answer
    must be evaluated: ``\boxed{358+467}`` equals the sum, but only repeats the question.
    """

    scratch_pad: re.Pattern[str] = INTEGER
    """Fully matches a completion that is a scratch pad."""

    def final_answer(self, scratch_pad: str) -> str:
        """The last field of a scratch pad. If it is not an integer, the completion has no answer."""
        return scratch_pad

    @any_thread
    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        verdicts = [self._read(text.strip(), problem) for text, problem in zip(completions, problems, strict=True)]
        rest = [i for i, verdict in enumerate(verdicts) if verdict is None]
        if rest:
            general = super().verify([completions[i] for i in rest], [problems[i] for i in rest])
            for i, verdict in zip(rest, general, strict=True):
                result = (verdict.answer or "").rpartition("=")[2]
                cheated = verdict.correct and UNEVALUATED.search(result)
                verdicts[i] = replace(verdict, status="incorrect", normalized=verdict.answer) if cheated else verdict
        return verdicts  # type: ignore[return-value]

    def _read(self, text: str, problem: Problem) -> Verdict | None:
        if not self.scratch_pad.fullmatch(text):
            return None
        answer = self.final_answer(text)
        if not INTEGER.fullmatch(answer):
            return Verdict("no_answer", tier="integer", reason="no_final_field")
        normalized = normalize(answer)
        right = normalized == normalize(problem.answer)
        return Verdict("correct" if right else "incorrect", answer, normalized, tier="integer")


def normalize(integer: str) -> str:
    """An integer without leading zeros. It stays a string: Python refuses to parse more than 4300 digits."""
    digits = integer.lstrip("-").lstrip("0") or "0"
    return f"-{digits}" if integer.startswith("-") and digits != "0" else digits
