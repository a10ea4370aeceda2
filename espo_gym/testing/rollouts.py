"""Rollouts of random numbers, and an algorithm's loss and gradient on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from espo_gym.algorithms import LossOutput, PolicyOptimizer
from espo_gym.envs import TextEnv, Verdict
from espo_gym.policy import TokenScores
from espo_gym.rollout import Rollout

from .bandit import Bandit, tiny_policy

LENGTHS = (5, 1, 7, 2, 6, 3, 1, 4)
NO_VERDICT = (2, 7)
SMALL: dict[str, Any] = {
    "rollout_size": 8,
    "group_size": 4,
    "n_minibatches": 2,
    "max_completion_tokens": 8,
    "stop": ("a", "b"),
    "learning_rate": 1e-2,
    "warmup_steps": 2,
}


def make(cls: type[PolicyOptimizer], hyperparameters: dict[str, Any], **more: Any) -> PolicyOptimizer:
    """``cls`` on a tiny policy and a bandit."""
    return cls(tiny_policy(), TextEnv(Bandit()), **(SMALL | more | hyperparameters))


def random_rollout(
    *,
    lengths: Sequence[int] = LENGTHS,
    no_verdict: Sequence[int] = NO_VERDICT,
    group_size: int = 4,
    vocab_size: int = 5,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Rollout:
    """N completions of ``lengths`` in groups of ``group_size``, with rewards anywhere between 0 and 1.

    In long ones the environment spoke in between: its tokens are in ``completion_mask`` and not in ``mask``.
    """
    rng = np.random.default_rng(seed)
    n, width = len(lengths), max(1, *lengths)

    def tensor(x: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.where(written, x, 0)).to(dtype)

    written = np.arange(width) < np.array(lengths)[:, None]
    old = -rng.exponential(1, (n, width))
    own = written & ~((np.arange(width) == 2) & (np.array(lengths)[:, None] > 4))
    rewards = rng.uniform(0, 1, n)
    verdicts = [Verdict("correct" if r > 0.5 else "incorrect") for r in rewards]
    for i in no_verdict:
        verdicts[i], rewards[i] = Verdict("no_verdict", reason="crash"), 0.0
    return Rollout(
        prompt_ids=torch.from_numpy(rng.integers(2, vocab_size, (n, 2))),
        prompt_mask=torch.ones(n, 2, dtype=torch.bool),
        completion_ids=torch.from_numpy(np.where(written, rng.integers(2, vocab_size, (n, width)), 0)),
        completion_mask=torch.from_numpy(written),
        mask=torch.from_numpy(own),
        old_logps=tensor(old),
        entropies=tensor(rng.uniform(0.05, np.log(vocab_size), (n, width))),
        rewards=torch.from_numpy(rewards).to(dtype),
        has_verdict=torch.tensor([v.has_verdict for v in verdicts]),
        groups=torch.arange(n) // group_size,
        truncated=torch.zeros(n, dtype=torch.bool),
        values=tensor(rng.normal(0, 1, (n, width))),
        ref_logps=tensor(old + rng.normal(0, 0.1, (n, width))),
        sampler_logps=tensor(old + rng.normal(0, 0.01, (n, width))),
        prompts=["?"] * n,
        texts=["a"] * n,
        verdicts=verdicts,
        seconds={"generate": 1.0, "verify": 1.0},
        n_generated=n,
    )


@dataclass
class Outcome:
    """What an algorithm makes of a rollout. N completions, T tokens."""

    advantages: Tensor
    """(N,) or (N, T)."""
    weights: Tensor
    """(N, T)."""
    loss: Tensor
    """Scalar."""
    gradient: Tensor
    """(N, T) d loss / d log-prob of each token."""
    out: LossOutput


def logps_near(rollout: Rollout, noise: float = 0.02, seed: int = 1) -> Tensor:
    """(N, T) log-probs of a new policy, ``noise`` nats from the old one's at a token that was written."""
    rng = np.random.default_rng(seed)
    step = torch.from_numpy(rng.normal(0, noise, tuple(rollout.mask.shape))).to(rollout.old_logps.dtype)
    return rollout.old_logps + step * rollout.completion_mask


def outcome(
    algo: PolicyOptimizer,
    rollout: Rollout,
    logps: Tensor,
    *,
    advantages: Tensor | None = None,
    parts: Sequence[Sequence[int]] | None = None,
) -> Outcome:
    """Loss and gradient of ``algo`` on ``rollout`` as its training step takes them.

    ``logps`` (N, T) are the new policy's; ``advantages`` replace the algorithm's own; ``parts`` are the rows of each
    micro-batch.
    """
    rollout = algo.annotate(rollout)
    credited = algo.advantages(rollout)
    advantages = credited if advantages is None else advantages
    weights = algo.token_weights(algo.loss_batch(rollout, advantages))
    leaf = logps.detach().clone().requires_grad_()
    entropies = rollout.entropies.clone().requires_grad_()
    values = None if rollout.values is None else (rollout.values + 0.1).requires_grad_()
    loss = torch.zeros((), dtype=logps.dtype)
    for rows in parts or [list(range(len(rollout)))]:
        index = torch.tensor(list(rows))
        scores = TokenScores(leaf[index], entropies[index], None if values is None else values[index])
        out = algo.loss(algo.loss_batch(rollout.rows(index), advantages[index], scores), weights[index])
        if out.loss.requires_grad:
            out.loss.backward()
        loss = loss + out.loss.detach()
    gradient = torch.zeros_like(logps) if leaf.grad is None else leaf.grad
    return Outcome(advantages.detach(), weights.detach(), loss, gradient, out.detach())


def padded(rollout: Rollout, columns: int, fill: float) -> Rollout:
    """``rollout`` with ``columns`` more of padding on the right, which hold ``fill`` where they hold a number."""
    more: dict[str, Any] = {}
    for f in fields(rollout):
        value = getattr(rollout, f.name)
        if isinstance(value, Tensor) and value.dim() == 2 and not f.name.startswith("prompt_"):
            number = fill if value.is_floating_point() else 0
            more[f.name] = torch.nn.functional.pad(value, (0, columns), value=number)
    return replace(rollout, **more)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference of ``a`` and ``b`` as a share of the largest entry of ``a``, or as it is if that is 0."""
    if a.numel() == 0:
        return 0.0
    gap, size = float((a - b).abs().max()), float(a.abs().max())
    return gap / size if size else gap
