"""``verify``: compares a batch of completions with their references."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ..verdict import Verdict
from .conventions import STRICT, Conventions, accepted_by, conventions_of
from .decide import Decision, decide, normalized, read_reference, readable, screened
from .extract import extract
from .tidy import tidy
from .worker import POOL

CACHE_SIZE = 65_536
"""Maximum number of cached decisions, by (answer, reference)."""
MAX_CACHED_LENGTH = 2_000
"""Longest pair of answer and reference that is cached, in characters."""


def verify(
    completions: Sequence[str],
    references: Sequence[str],
    *,
    conventions: str | Conventions = "strict",
    deadline: float = 2.0,
    batch_deadline: float = 60.0,
    memory_mb: int = 1024,
) -> list[Verdict]:
    """One verdict per completion on whether its final answer equals the reference.

    Tiers 1 and 2 decide nearly everything in this process, in bounded time. The rest goes to math-verify in a worker
    process.

    Args:
        completions, references: sequences of equal length.
        conventions: what else is accepted: a ``Conventions``, or the name of one, see ``conventions.PRESETS``.
        deadline: seconds for one item in the worker.
        batch_deadline: seconds for all items in the worker. A batch takes at most ``batch_deadline + deadline`` seconds
            there, plus the time to start workers.
        memory_mb: address space of the worker in MiB.

    Any failure is a ``no_verdict`` with a reason. Raises TypeError if an argument is not a sequence of strings,
    ValueError for different lengths, a limit that is not positive or unknown conventions.
    """
    chosen = conventions_of(conventions)
    completions, references = _checked(completions, "completions"), _checked(references, "references")
    if len(completions) != len(references):
        raise ValueError(f"{len(completions)} completions but {len(references)} references; one reference for each")
    if not (deadline > 0 and batch_deadline > 0 and memory_mb > 0):
        raise ValueError(f"deadlines and memory must be positive, not {deadline}, {batch_deadline}, {memory_mb}")
    verdicts: list[Verdict | None] = [None] * len(completions)
    rules: list[str] = []
    waiting: dict[tuple[str, str], list[int]] = {}
    for at, (completion, reference) in enumerate(zip(completions, references, strict=True)):
        begin = time.perf_counter()
        found, rule = extract(completion)
        rules.append(rule)
        if found is None:
            verdicts[at] = Verdict("no_answer", seconds=time.perf_counter() - begin, reason=rule)
            continue
        pair = (found, read_reference(reference))
        decision = _decide(pair)
        if decision.status is None and decision.reason is None:
            waiting.setdefault(pair, []).append(at)
        else:
            verdicts[at] = _verdict(pair, rule, decision, time.perf_counter() - begin)
    for pair, (decision, seconds) in _third_tier(list(waiting), deadline, batch_deadline, memory_mb).items():
        for at in waiting[pair]:
            verdicts[at] = _verdict(pair, rules[at], decision, seconds)
            seconds = 0.0
    final = [verdict for verdict in verdicts if verdict is not None]
    return final if chosen == STRICT else [_under(chosen, verdict) for verdict in final]


def _checked(texts: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"{name} must be a sequence of strings, not one string")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{at}] is a {type(text).__name__}, not a string")
    return texts


def _verdict(pair: tuple[str, str], rule: str, decision: Decision, seconds: float) -> Verdict:
    answer, reference = pair
    return Verdict(
        decision.status or "no_verdict",
        answer,
        _spelling(answer),
        decision.tier,
        seconds,
        decision.reason,
        detail=decision.detail,
        rule=rule,
        reference=reference,
    )


def _spelling(answer: str) -> str:
    try:
        return normalized(answer)
    except Exception:
        return answer


def _under(chosen: Conventions, verdict: Verdict) -> Verdict:
    """``verdict``, or the one that the conventions make of an incorrect one."""
    if verdict.status != "incorrect":
        return verdict
    begin = time.perf_counter()
    try:
        accepted = accepted_by(verdict.answer or "", verdict.rule or "", verdict.reference or "", chosen)
    except (MemoryError, RecursionError):
        accepted = None
    except Exception as error:  # the boundary, as in _decide
        detail = f"{type(error).__name__}: {error}"
        return replace(verdict, status="no_verdict", tier=None, reason="crash", detail=detail)
    if accepted is None:
        return verdict
    names, given, tier = accepted
    return replace(
        verdict,
        status="correct",
        normalized=_spelling(given),
        tier=tier,
        seconds=verdict.seconds + time.perf_counter() - begin,
        reason=f"convention: {names}",
    )


# ---- the cache

_CACHE: OrderedDict[tuple[str, str], Decision] = OrderedDict()
_CACHE_LOCK = threading.Lock()


def _decide(pair: tuple[str, str]) -> Decision:
    known = _CACHE.get(pair)
    if known is not None:
        return known
    try:
        decision = decide(*pair)
    except (MemoryError, RecursionError):
        return Decision(None, None, "too_long")
    except Exception as error:  # the boundary: a bug in the verifier is no verdict, never an exception or "incorrect"
        return Decision(None, None, "crash", f"{type(error).__name__}: {error}")
    if decision.status is not None:
        _remember(pair, decision)
    return decision


def _remember(pair: tuple[str, str], decision: Decision) -> None:
    if len(pair[0]) + len(pair[1]) > MAX_CACHED_LENGTH:
        return
    with _CACHE_LOCK:
        _CACHE[pair] = decision
        if len(_CACHE) > CACHE_SIZE:
            _CACHE.popitem(last=False)


def clear_cache() -> None:
    """Forget all cached decisions."""
    accepted_by.cache_clear()
    with _CACHE_LOCK:
        _CACHE.clear()


# ---- tier 3


def _third_tier(
    pairs: list[tuple[str, str]], deadline: float, batch_deadline: float, memory_mb: int
) -> dict[tuple[str, str], tuple[Decision, float]]:
    decisions: dict[tuple[str, str], tuple[Decision, float]] = {}
    questions = []
    for pair in pairs:
        answer, reference = tidy(pair[0]), tidy(pair[1])
        if not screened(reference):
            decisions[pair] = Decision(None, None, "unreadable_reference"), 0.0
            if readable(reference):
                decisions[pair] = Decision("incorrect", "screen"), 0.0
        elif not screened(answer):
            decisions[pair] = Decision("incorrect", "screen"), 0.0
        else:
            questions.append((pair, (answer, reference)))
    if questions:
        asked = [question for _, question in questions]
        results = POOL.ask(asked, deadline=deadline, batch_deadline=batch_deadline, memory_mb=memory_mb)
        left = batch_deadline - sum(seconds for _, seconds in results)
        failed = sorted({pair[1] for pair, (outcome, _) in zip(asked, results, strict=True) if outcome in _FAILURES})
        alone: dict[str, str] = {}
        if failed and left > 0 and POOL.problem is None:  # the fault of the answer, or of the reference or the worker?
            themselves = [(reference, reference) for reference in failed]
            outcomes = POOL.ask(themselves, deadline=deadline, batch_deadline=left, memory_mb=memory_mb)
            alone = {reference: outcome for reference, (outcome, _) in zip(failed, outcomes, strict=True)}
        for (pair, (_, reference)), (outcome, seconds) in zip(questions, results, strict=True):
            if outcome in _FAILURES and alone.get(reference) == "equal":
                decision = _UNREADABLE._replace(
                    detail=f"math-verify: {outcome} with this answer, not with the reference"
                )
            elif outcome == "unreadable_reference" and readable(reference):
                decision = _UNREADABLE
            else:
                detail = POOL.problem if outcome == "crash" else None
                decision = _OUTCOMES.get(outcome) or Decision(None, "math-verify", outcome, detail)
            decisions[pair] = decision, seconds
            if decision.status is not None:
                _remember(pair, decision)
    return decisions


_FAILURES = frozenset(("timeout", "memory", "crash"))
_UNREADABLE = Decision("incorrect", "math-verify")
"""The verdict on an answer with which math-verify fails, though it works and the reference can be read."""
_OUTCOMES = {
    "equal": Decision("correct", "math-verify"),
    "different": Decision("incorrect", "math-verify"),
    "unreadable_answer": Decision("incorrect", "math-verify"),
    "unreadable_reference": Decision(None, "math-verify", "unreadable_reference"),
}


def close() -> None:
    """End the worker process if one is running. The next item that needs it starts another."""
    POOL.close()
