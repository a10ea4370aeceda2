"""``verify``: compares a batch of completions with their references."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from ..verdict import Verdict
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
    deadline: float = 2.0,
    batch_deadline: float = 60.0,
    memory_mb: int = 1024,
) -> list[Verdict]:
    """One verdict per completion on whether its final answer equals the reference.

    Tiers 1 and 2 decide nearly everything in this process, in bounded time. The rest goes to math-verify in a worker
    process.

    Args:
        completions, references: sequences of equal length.
        deadline: seconds for one item in the worker.
        batch_deadline: seconds for all items in the worker. A batch takes at most ``batch_deadline + deadline`` seconds
            there, plus the time to start workers.
        memory_mb: address space of the worker in MiB.

    Any failure is a ``no_verdict`` with a reason. Raises TypeError if an argument is not a sequence of strings,
    ValueError for different lengths or a limit that is not positive.
    """
    completions, references = _checked(completions, "completions"), _checked(references, "references")
    if len(completions) != len(references):
        raise ValueError(f"{len(completions)} completions but {len(references)} references; one reference for each")
    if not (deadline > 0 and batch_deadline > 0 and memory_mb > 0):
        raise ValueError(f"deadlines and memory must be positive, not {deadline}, {batch_deadline}, {memory_mb}")
    verdicts: list[Verdict | None] = [None] * len(completions)
    waiting: dict[tuple[str, str], list[int]] = {}
    for at, (completion, reference) in enumerate(zip(completions, references, strict=True)):
        begin = time.perf_counter()
        found, rule = extract(completion)
        if found is None:
            verdicts[at] = Verdict("no_answer", seconds=time.perf_counter() - begin, reason=rule)
            continue
        pair = (found, read_reference(reference))
        decision = _decide(pair)
        if decision.status is None and decision.reason is None:
            waiting.setdefault(pair, []).append(at)
        else:
            verdicts[at] = _verdict(found, decision, time.perf_counter() - begin)
    for pair, (decision, seconds) in _third_tier(list(waiting), deadline, batch_deadline, memory_mb).items():
        for at in waiting[pair]:
            verdicts[at] = _verdict(pair[0], decision, seconds)
            seconds = 0.0
    return [verdict for verdict in verdicts if verdict is not None]


def _checked(texts: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"{name} must be a sequence of strings, not one string")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{at}] is a {type(text).__name__}, not a string")
    return texts


def _verdict(answer: str, decision: Decision, seconds: float) -> Verdict:
    try:
        spelling = normalized(answer)
    except Exception:
        spelling = answer
    status = decision.status or "no_verdict"
    return Verdict(status, answer, spelling, decision.tier, seconds, decision.reason, detail=decision.detail)


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
