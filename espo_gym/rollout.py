"""A rollout: the only object that crosses from the environment side to the algorithm side.

Axes, the same in every file:

    N   completions of a rollout; the G completions of one problem are neighbours
    B   rows of a minibatch or micro-batch
    S   tokens of the longest prompt; prompts are padded on the left
    T   tokens of the longest completion; completions are padded on the right
    V   entries of the vocabulary
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from .envs import Verdict


@dataclass
class Rollout:
    """N episodes as right-padded tensors, with their verdicts. No tensor carries a gradient."""

    prompt_ids: Tensor
    """(N, S) long."""
    prompt_mask: Tensor
    """(N, S) bool: a token, not padding."""
    completion_ids: Tensor
    """(N, T) long: what the policy wrote and, in episodes of several turns, what the environment answered."""
    completion_mask: Tensor
    """(N, T) bool: a token, not padding."""
    mask: Tensor
    """(N, T) bool: a token that the policy chose itself, end tokens included. Only these are trained on."""
    old_logps: Tensor
    """(N, T) float32 log pi_old(token), nats, at the sampling temperature."""
    entropies: Tensor
    """(N, T) float32 entropy of pi_old over the whole vocabulary, nats, at the sampling temperature."""
    rewards: Tensor
    """(N,) float32 return of the episode."""
    has_verdict: Tensor
    """(N,) bool: False where the verifier failed. Such a row is left out of every mean, loss and accuracy."""
    groups: Tensor
    """(N,) long: rows with the same number answer the same problem."""
    truncated: Tensor
    """(N,) bool: the completion was cut off before it ended."""
    values: Tensor | None = None
    """(N, T) float32 predictions of the value head under pi_old."""
    returns: Tensor | None = None
    """(N, T) float32 targets of the value head."""
    token_groups: Tensor | None = None
    """(N, T) long: ESPO's entropy group of each token, numbered within its completion."""
    sampler_logps: Tensor | None = None
    """(N, T) float32 log-probs as the sampler saw them, where ``old_logps`` have been recomputed."""
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

    n_generated: int = 0
    """Completions that were sampled for it; more than N if some were thrown away."""

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

    @classmethod
    def concat(cls, parts: Sequence[Rollout]) -> Rollout:
        """Rollouts one after the other, padded to the same width; groups stay apart."""
        joined: dict[str, Any] = {}
        for f in fields(cls):
            values = [getattr(part, f.name) for part in parts]
            if isinstance(values[0], list):
                joined[f.name] = [item for value in values for item in value]
            elif isinstance(values[0], dict):
                joined[f.name] = {key: sum(value[key] for value in values) for key in values[0]}
            elif f.name == "groups":
                offsets = itertools.accumulate([0, *(int(v.max()) + 1 if len(v) else 0 for v in values)])
                joined[f.name] = torch.cat([v + offset for v, offset in zip(values, offsets, strict=False)])
            elif isinstance(values[0], Tensor):
                if values[0].dim() == 2:
                    width, left = max(v.shape[1] for v in values), f.name.startswith("prompt_")
                    pads = [(width - v.shape[1], 0) if left else (0, width - v.shape[1]) for v in values]
                    values = [torch.nn.functional.pad(v, pad) for v, pad in zip(values, pads, strict=True)]
                joined[f.name] = torch.cat(values)
        return cls(**joined)

    @property
    def correct(self) -> Tensor:
        """(N,) bool."""
        return torch.tensor([v.correct for v in self.verdicts])
