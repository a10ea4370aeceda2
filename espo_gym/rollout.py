"""A rollout: the one thing that crosses from the environment's side to the algorithm's.

Axes, the same in every file:

    N   completions of a rollout; the G completions of one problem are neighbours
    B   rows of a minibatch or micro-batch
    S   tokens of the longest prompt; prompts are padded on the left
    T   tokens of the longest completion; completions are padded on the right
    V   entries of the vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from espo_gym.envs import Verdict


@dataclass
class Rollout:
    """N episodes as right-padded tensors, and what the verifier said of them. No tensor carries a gradient."""

    prompt_ids: Tensor
    """(N, S) long."""
    prompt_mask: Tensor
    """(N, S) bool: a token, not padding."""
    completion_ids: Tensor
    """(N, T) long: what the policy wrote and, in episodes of several turns, what the environment answered."""
    completion_mask: Tensor
    """(N, T) bool: a token, not padding."""
    mask: Tensor
    """(N, T) bool: a token that the policy chose itself, end tokens included. Everything learnt is about these."""
    old_logps: Tensor
    """(N, T) float32 log pi_old(token), nats, at the sampling temperature."""
    entropies: Tensor
    """(N, T) float32 entropy of pi_old over the whole vocabulary, nats, at the sampling temperature."""
    rewards: Tensor
    """(N,) float32 return of the episode."""
    has_verdict: Tensor
    """(N,) bool: False where the verifier failed. Such a row takes no part in any mean, loss or accuracy."""
    groups: Tensor
    """(N,) long: rows with the same number answer the same problem."""
    truncated: Tensor
    """(N,) bool: the completion was cut off before it ended."""
    values: Tensor | None = None
    """(N, T) float32 predictions of the value head under pi_old."""
    returns: Tensor | None = None
    """(N, T) float32 targets of the value head."""
    ref_logps: Tensor | None = None
    """(N, T) float32 log-probs under the frozen reference policy."""
    prompts: list[str] = field(default_factory=list)
    """N observations that opened the episodes."""
    texts: list[str] = field(default_factory=list)
    """N texts of the policy's last turn."""
    verdicts: list[Verdict] = field(default_factory=list)
    """N verdicts on the last turn."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of the phases ``generate``, ``verify`` and ``score``."""

    def __len__(self) -> int:
        return len(self.rewards)

    def rows(self, index: Tensor) -> Rollout:
        """The rows that ``index`` (B,) long picks."""
        chosen: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                chosen[f.name] = value[index]
            elif isinstance(value, list):
                chosen[f.name] = [value[i] for i in index.tolist()] if value else []
        return replace(self, **chosen)

    @property
    def correct(self) -> Tensor:
        """(N,) bool."""
        return torch.tensor([v.correct for v in self.verdicts])
