"""Verifying a batch of completions for an environment: the task's own verdicts, checked and, on request, audited."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from .task import Problem, Task, stable_hash
from .verdict import Verdict

LOGGER = logging.getLogger("espo_gym.audit")


def verify_completions(task: Task, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
    """The verdicts of ``task.verify``, audited if the task was made with ``verifier="audit"``.

    Raises TypeError if ``task.verify`` returns anything else than verdicts, ValueError if their number is wrong.
    """
    verdicts = task.verify(completions, problems)
    listed = isinstance(verdicts, Sequence) and not isinstance(verdicts, str)
    if wrong := [v for v in (verdicts if listed else [verdicts]) if not isinstance(v, Verdict)]:
        raise TypeError(
            f"{task.name!r}.verify must return a list with a Verdict for each completion, such as Verdict('correct'), "
            f"Verdict('incorrect'), not {'a list with ' * listed}{wrong[0]!r}"
        )
    if len(verdicts) != len(completions):
        raise ValueError(f"{task.name!r}.verify gave {len(verdicts)} verdicts on {len(completions)} completions")
    return audited(task, verdicts, problems) if task.verifier == "audit" else verdicts


def audited(task: Task, verdicts: Sequence[Verdict], problems: Sequence[Problem]) -> list[Verdict]:
    """The verdicts with the outcome of the audit filled in; disagreements go to the logger ``espo_gym.audit``."""
    from .verifier import audit

    seed = stable_hash("\0".join(problem.key for problem in problems))  # equal batches are audited in the same places
    result = audit(verdicts, [problem.answer for problem in problems], share=task.audit_share, seed=seed)
    for found in result.disagreements:
        LOGGER.warning(
            "verdict %s, audit %s: answer %r, reference %r", found.verdict, found.audit, found.answer, found.reference
        )
    return [replace(v, audit=result.opinions[i]) if i in result.opinions else v for i, v in enumerate(verdicts)]
