r"""Problems small enough to be solved exactly: the bias and the variance of an estimator, without sampling error.

Two problems, two tokens, at most three of them in a completion: there are four completions to each problem, and 35
different groups of four. So the gradient of the expected reward is a sum of a few terms::

    J = mean_p sum_y pi(y | p) R(p, y)        grad J = mean_p sum_y pi(y | p) R(p, y) sum_t grad log pi(y_t | p, y_<t)

and so is the expectation of any algorithm's gradient, over all batches that could be sampled, each weighed by its
probability. The policy is a table of logits, one row a prefix, so nothing else stands between the two.

An optimizer undoes the scale of a gradient (AdamW for good, the clipped norm mostly), so the bias is measured after the
best scalar: ``angle`` is that between the expected estimate and the true gradient, ``residual`` what is left of the
true gradient's length, ``sin(angle)``.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espo_gym.algorithms import PolicyOptimizer
from espo_gym.envs import TextEnv, Verdict
from espo_gym.rollout import Rollout

from .bandit import Bandit, tiny_policy
from .rollouts import outcome

VOCABULARY = 2
PROBLEMS = 2
Response = tuple[int, ...]


@dataclass(frozen=True)
class Bias:
    """How the expectation of an estimator stands to the true gradient."""

    angle: float
    """Degrees between the two; 0 for an estimator that is unbiased up to its scale."""
    residual: float
    """Length of what remains of the true gradient after the best multiple of the estimate, as a share of it."""
    scale: float
    """Length of the estimate along the true gradient, as a share of it: 1 for an unbiased estimator."""
    noise: float
    """Standard deviation of one batch's estimate, as a share of the length of its expectation."""


@dataclass(frozen=True)
class Group:
    """G completions to a problem, in any order."""

    problem: int
    completions: tuple[int, ...]
    probability: float


class World:
    """Two problems, an easy one and a hard one, and a tabular policy.

    With ``equal_lengths`` a completion is two tokens, a or b: the easy problem is solved by aa, ab and ba, the hard one
    by bb. Else it is up to three tokens, a or the end (a dot): the easy one is solved by "a." and "aa.", the hard one
    by "aaa".

    ``step`` is how far, in logits, the policy has moved since the completions were sampled: at 0 the ratio is 1.

    Shapes: P problems, R completions, T tokens, S prefixes, V = 2 tokens of the vocabulary, D = P * S * V parameters.
    """

    def __init__(self, *, equal_lengths: bool, step: float = 0.0, seed: int = 0) -> None:
        self.horizon = 2 if equal_lengths else 3
        self.end = None if equal_lengths else 1
        alphabet = "ab" if equal_lengths else "a."
        self.completions = list(self._complete(()))
        self.prefixes = sorted({y[:t] for y in self.completions for t in range(len(y))})
        generator = torch.Generator().manual_seed(seed)
        size = (PROBLEMS, len(self.prefixes), VOCABULARY)
        self.old = 0.5 * torch.randn(size, generator=generator, dtype=torch.float64)  # (P, S, V) logits
        self.new = self.old + step * torch.randn(size, generator=generator, dtype=torch.float64)
        written = ["".join(alphabet[token] for token in y) for y in self.completions]
        easy, hard = ({"aa", "ab", "ba"}, {"bb"}) if equal_lengths else ({"a.", "aa."}, {"aaa"})
        solved = [[text in solutions for text in written] for solutions in (easy, hard)]
        self.rewards = torch.tensor(solved, dtype=torch.float64)  # (P, R)
        self._tabulate()

    def _complete(self, prefix: Response) -> Iterator[Response]:
        if len(prefix) == self.horizon or (prefix and prefix[-1] == self.end):
            yield prefix
        else:
            for token in range(VOCABULARY):
                yield from self._complete((*prefix, token))

    def _tabulate(self) -> None:
        """What a batch is put together from, for each problem and completion."""
        n, width = len(self.completions), self.horizon
        self.mask = torch.tensor([[t < len(y) for t in range(width)] for y in self.completions])  # (R, T)
        tokens = torch.tensor([[*y, *[0] * (width - len(y))] for y in self.completions])  # (R, T)
        rows = [[self.prefixes.index(y[:t]) if t < len(y) else 0 for t in range(width)] for y in self.completions]
        at = torch.tensor(rows)  # (R, T) the prefix that each token follows
        self.tokens = tokens
        self.old_logps, self.new_logps = (
            x.log_softmax(-1)[:, at, tokens].masked_fill(~self.mask, 0.0) for x in (self.old, self.new)
        )  # (P, R, T)
        p = self.old.softmax(-1)
        self.entropies = -(p * p.log()).sum(-1)[:, at].masked_fill(~self.mask, 0.0)  # (P, R, T)
        # d log pi_new(token) / d logits: 1 at the token less the probabilities, in the row of its prefix.
        slope = torch.nn.functional.one_hot(tokens, VOCABULARY) - self.new.softmax(-1)[:, at]  # (P, R, T, V)
        scores = torch.zeros(PROBLEMS, n, width, *self.new.shape, dtype=torch.float64)
        for problem, y, t in itertools.product(range(PROBLEMS), range(n), range(width)):
            if self.mask[y, t]:
                scores[problem, y, t, problem, at[y, t]] = slope[problem, y, t]
        self.scores = scores.flatten(3)  # (P, R, T, D)
        self.old_probabilities, self.new_probabilities = (x.sum(2).exp() for x in (self.old_logps, self.new_logps))
        self.values = torch.zeros_like(self.old_logps)  # (P, R, T) the expected reward before each token: a true critic
        for y, t in itertools.product(range(n), range(width)):
            same = torch.tensor([other[:t] == self.completions[y][:t] for other in self.completions])
            weight = self.old_probabilities * same
            self.values[:, y, t] = (weight * self.rewards).sum(1) / weight.sum(1) * self.mask[y, t]

    @property
    def gradient(self) -> Tensor:
        """(D,) the gradient of the expected reward of the new policy."""
        weight = self.new_probabilities * self.rewards / PROBLEMS  # (P, R)
        return (weight[..., None] * self.scores.sum(2)).sum((0, 1))

    def groups(self, size: int) -> list[Group]:
        """Every group of ``size`` completions, with its probability under the old policy."""
        found = []
        for problem in range(PROBLEMS):
            chances = self.old_probabilities[problem].tolist()
            for members in itertools.combinations_with_replacement(range(len(self.completions)), size):
                orders = math.factorial(size) / math.prod(map(math.factorial, Counter(members).values()))
                probability = orders * math.prod(chances[i] for i in members) / PROBLEMS
                found.append(Group(problem, members, probability))
        return found

    def rollout(self, groups: tuple[Group, ...]) -> tuple[Rollout, Tensor, Tensor]:
        """``groups`` as a rollout, its new log-probs (N, T) and their gradients (N, T, D)."""
        problem = torch.tensor([g.problem for g in groups for _ in g.completions])  # (N,)
        y = torch.tensor([i for g in groups for i in g.completions])  # (N,)
        n, rewards, mask = len(y), self.rewards[problem, y], self.mask[y]
        rollout = Rollout(
            prompt_ids=problem[:, None],
            prompt_mask=torch.ones(n, 1, dtype=torch.bool),
            completion_ids=self.tokens[y],
            completion_mask=mask,
            mask=mask,
            old_logps=self.old_logps[problem, y],
            entropies=self.entropies[problem, y],
            rewards=rewards,
            has_verdict=torch.ones(n, dtype=torch.bool),
            groups=torch.tensor([k for k, g in enumerate(groups) for _ in g.completions]),
            truncated=torch.zeros(n, dtype=torch.bool),
            values=self.values[problem, y],
            verdicts=[Verdict("correct" if r else "incorrect") for r in rewards],
        )
        return rollout, self.new_logps[problem, y], self.scores[problem, y]

    def bias(self, algo: PolicyOptimizer, *, group_size: int = 4, n_groups: int = 1) -> Bias:
        """The bias of ``algo``'s gradient on batches of ``n_groups`` groups, by going through all of them.

        With dynamic sampling the groups are those whose rewards differ, as they would be after enough resampling.
        """
        groups = self.groups(group_size)
        if algo.dynamic_sampling:
            groups = [g for g in groups if len({float(self.rewards[g.problem, y]) for y in g.completions}) > 1]
        total = sum(g.probability for g in groups)
        mean, square = torch.zeros_like(self.gradient), 0.0
        for batch in itertools.combinations_with_replacement(groups, n_groups):
            orders = math.factorial(n_groups) / math.prod(map(math.factorial, Counter(map(id, batch)).values()))
            chance = orders * math.prod(g.probability / total for g in batch)
            estimate = self.estimate(algo, batch)
            mean += chance * estimate
            square += chance * float(estimate.square().sum())
        return compare(mean, square, self.gradient)

    def estimate(self, algo: PolicyOptimizer, batch: tuple[Group, ...]) -> Tensor:
        """(D,) what ``algo`` takes for the gradient of the expected reward from this batch."""
        rollout, logps, scores = self.rollout(batch)
        return -(outcome(algo, rollout, logps).gradient[..., None] * scores).sum((0, 1))


def compare(mean: Tensor, square: float, true: Tensor) -> Bias:
    """The bias of an estimator of expectation ``mean`` (D,) and expected squared length ``square``; ``true`` (D,)."""
    along = float(mean @ true)
    across = float((mean - along / float(true @ true) * true).norm())
    angle = math.degrees(math.atan2(across, along / float(true.norm())))
    variance = max(0.0, square - float(mean @ mean))
    return Bias(
        angle=angle,
        residual=math.sin(math.radians(min(angle, 90.0))),
        scale=along / float(true @ true),
        noise=math.sqrt(variance) / float(mean.norm()),
    )


def estimator(cls: type[PolicyOptimizer], **hyperparameters: Any) -> PolicyOptimizer:
    """``cls`` for a vocabulary of two tokens. Dr. GRPO's constant is 1, so that its weights are 1 / N."""
    small = {"rollout_size": 8, "group_size": 8, "n_minibatches": 1, "max_completion_tokens": 1}
    return cls(tiny_policy(""), TextEnv(Bandit()), **(small | hyperparameters))
