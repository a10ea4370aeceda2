"""Greedy accuracy, avg@k, pass@k and maj@k of a policy on a fixed list of held-out problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import cast

import numpy as np
from gymnasium.vector import VectorEnv

from espo_gym.sampling import Sampling

from .collect import collect
from .environment import describe, task_of
from .envs import Verdict
from .estimate import Estimate
from .policy import Policy
from .rollout import Rollout


@dataclass(frozen=True)
class ProblemResult:
    """The policy's completions of one problem, and their verdicts."""

    prompt: str
    greedy: str
    greedy_verdict: Verdict
    samples: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    def rows(self) -> list[dict[str, str | None]]:
        """One row per completion for a JSON Lines file, the greedy one first."""
        greedy = ("greedy", self.greedy, self.greedy_verdict)
        sampled = (("sample", *pair) for pair in zip(self.samples, self.verdicts, strict=True))
        return [
            {"prompt": self.prompt, "kind": kind, "completion": text, "verdict": v.status, "reason": v.reason}
            for kind, text, v in (greedy, *sampled)
        ]


class Evaluation(dict[str, Estimate]):
    """``greedy``, ``avg@k``, ``pass@k``, ``maj@k``, each an :class:`Estimate`."""

    env: str
    split: str | None
    n_problems: int
    no_verdict: int
    """Completions on which the verifier failed; no figure includes them."""
    problems: list[ProblemResult]
    """One entry per problem, if ``details=True`` asked for them."""

    def __str__(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in self.items())


def evaluate(
    policy: Policy,
    env: VectorEnv,
    *,
    split: str | None = "test",
    n_problems: int = 256,
    k: int = 8,
    sampling: Sampling | None = None,
    seed: int = 0,
    details: bool = False,
) -> Evaluation:
    """Evaluate ``policy`` on problems 0 ... n_problems - 1 of a split: the same ones each time.

    Args:
        split: which problems; None for an environment that has no splits.
        n_problems: at most; a data set smaller than this is gone through once.
        k: sampled completions per problem (0: greedy alone).
        sampling: how they are drawn; the greedy ones share its limits.
        seed: of the sampling. The problems do not depend on it.
        details: keep every completion and verdict in ``.problems``.

    - ``greedy``: share of problems that the most likely completion solves
    - ``avg@k``: share of sampled completions that are correct
    - ``pass@k``: unbiased probability that one of k is correct (arXiv:2107.03374, Eq. 1)
    - ``maj@k``: probability that the commonest answer among k is correct, ties drawn by lot

    Raises:
        ValueError: the environment knows no splits, or not this one.
    """
    sampling = sampling or Sampling()
    task = task_of(env)
    if split is not None and task is None:
        raise ValueError(
            f"{describe(env)} has no splits, so nothing is held out: evaluate(split=None) takes the problems of its "
            "seeds 0, 1, 2, ...; or pass an environment of held-out problems"
        )
    # With None, a task whose problems are counted says which splits it has.
    size = task.size(cast(str, split)) if task is not None else None
    n = n_problems if size is None else min(n_problems, size)
    options = None if split is None else {"split": split}
    greedy_sampling = Sampling(0.0, max_completion_tokens=sampling.max_completion_tokens, stop=sampling.stop)
    greedy = collect(env, policy, range(n), [0] * n, greedy_sampling, options=options)  # greedy decoding draws nothing
    sampled = None
    if k:
        seeds = np.random.SeedSequence([seed, n, k]).generate_state(max(n * k, 1), np.uint64).tolist()[: n * k]
        sampled = collect(env, policy, [p for p in range(n) for _ in range(k)], seeds, sampling, options=options)
    results = [_problem(i, greedy, sampled, k) for i in range(n)]
    evaluation = Evaluation(_figures(results, k))
    evaluation.env, evaluation.split, evaluation.n_problems = describe(env), split, n
    evaluation.no_verdict = sum(not v.has_verdict for r in results for v in (r.greedy_verdict, *r.verdicts))
    evaluation.problems = results if details else []
    return evaluation


def _problem(i: int, greedy: Rollout, sampled: Rollout | None, k: int) -> ProblemResult:
    """Problem ``i`` of the rollouts: one greedy completion each, and ``k`` sampled ones."""
    rows = slice(i * k, (i + 1) * k)
    texts, verdicts = (sampled.texts[rows], sampled.verdicts[rows]) if sampled else ([], [])
    return ProblemResult(greedy.prompts[i], greedy.texts[i], greedy.verdicts[i], tuple(texts), tuple(verdicts))


def _figures(results: Sequence[ProblemResult], k: int) -> dict[str, Estimate]:
    """The figures of an evaluation; completions without a verdict are left out, and so are problems without any."""
    greedy = [float(r.greedy_verdict.correct) for r in results if r.greedy_verdict.has_verdict]
    figures = {"greedy": Estimate.of(greedy)}
    if k:
        judged = [[v for v in r.verdicts if v.has_verdict] for r in results]
        judged = [row for row in judged if row]
        figures[f"avg@{k}"] = Estimate.of([float(np.mean([v.correct for v in row])) for row in judged])
        figures[f"pass@{k}"] = Estimate.of(
            [pass_at_k(len(row), sum(v.correct for v in row), min(k, len(row))) for row in judged]
        )
        figures[f"maj@{k}"] = Estimate.of([majority(row) for row in judged])
    return figures


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n completions, c of them correct, hold a correct one: ``1 - C(n-c, k) / C(n, k)``."""
    return 1.0 - comb(n - c, k) / comb(n, k)


def majority(verdicts: Sequence[Verdict]) -> float:
    """Probability that the commonest answer is correct, ties drawn by lot. No answer has no vote."""
    votes = Counter(v.normalized or v.answer for v in verdicts if v.status != "no_answer")
    if not votes:
        return 0.0
    right = {v.normalized or v.answer for v in verdicts if v.correct}
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(answer in right for answer in winners) / len(winners)
