"""The sampler: prompts in, completions out, with the log-prob and the entropy of every token as it was chosen.

Three things make it fast without a second model: each distinct prompt is run once and its KV cache is copied to the
rows that share it, finished rows leave the batch, and the log-prob and the entropy come out of the softmax that the
choice needs anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .policy import Policy


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token (log-probs are then those of temperature 1)."""
    top_p: float = 1.0
    """Draw among the fewest tokens whose probabilities add up to this much (1 = all)."""
    top_k: int = 0
    """Draw among this many most likely tokens (0 = all)."""
    max_completion_tokens: int = 16_384
    """Tokens per completion, the end token included; the model's context may allow fewer."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are kept as its end."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be >= 0 (0 is greedy), not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0 (0 is all tokens), not {self.top_k}")
        if self.max_completion_tokens < 1:
            raise ValueError(f"max_completion_tokens must be at least 1, not {self.max_completion_tokens}")
        if isinstance(self.stop, str) or any(not s for s in self.stop):
            raise ValueError(f"stop must be a sequence of non-empty strings, not {self.stop!r}")

    @property
    def scale(self) -> float:
        """The temperature at which log-probs are taken: greedy decoding has none of its own, so 1."""
        return self.temperature or 1.0


@dataclass
class Completions:
    """What the policy said. N rows, T = the longest completion; padded on the right."""

    texts: list[str]
    """Decoded completions, special tokens left out."""
    tokens: Tensor
    """(N, T) long."""
    mask: Tensor
    """(N, T) bool: a token of the completion, end token included."""
    logps: Tensor
    """(N, T) float32 log pi(token), nats, of the whole vocabulary at the sampling temperature; 0 where masked."""
    entropies: Tensor
    """(N, T) float32 entropy of pi over the whole vocabulary, nats, same temperature; 0 where masked."""
    truncated: Tensor
    """(N,) bool: cut off by ``max_completion_tokens`` or by the context, before an end token or a stop string."""


@torch.no_grad()
def generate(policy: Policy, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> Completions:
    """One completion for each prompt (a list of token ids). See :meth:`Policy.generate`."""
    device, pad, ends = policy.device, policy.pad_token_id, policy.eos_token_ids
    distinct = list(dict.fromkeys(tuple(p) for p in prompts))
    position = {p: i for i, p in enumerate(distinct)}
    source = torch.tensor([position[tuple(p)] for p in prompts], device=device)  # (N,) the prompt of each row

    n = len(prompts)
    limits = [min(sampling.max_completion_tokens, policy.context_length - len(p)) for p in prompts]
    limit = torch.tensor(limits, device=device)  # (N,) tokens allowed
    draws = _uniforms(seeds, int(limit.max())).to(device)  # (N, T) one number decides one token

    tokens = torch.full((n, int(limit.max())), pad, dtype=torch.long, device=device)
    logps = torch.zeros(tokens.shape, device=device)
    entropies = torch.zeros_like(logps)
    length = torch.zeros(n, dtype=torch.long, device=device)
    truncated = torch.zeros(n, dtype=torch.bool, device=device)

    ids, attention = left_pad(distinct, pad, device)  # (U, S)
    out = policy.forward_cached(ids, attention, None)
    cache, logits = out.past_key_values, out.logits[:, -1]  # (U, V)
    cache.reorder_cache(source)
    attention, logits = attention[source], logits[source]
    rows = torch.arange(n, device=device)  # the rows still being written, in the order of the cache

    for t in range(tokens.shape[1]):
        choice, logp, entropy = _choose(logits.float(), draws[rows, t], sampling)
        tokens[rows, t], logps[rows, t], entropies[rows, t] = choice, logp, entropy
        length[rows] = t + 1
        ended = torch.isin(choice, ends) | _stopped(policy, tokens[rows, : t + 1], sampling.stop)
        cut = ~ended & (t + 1 >= limit[rows])
        truncated[rows[cut]] = True
        going = (~(ended | cut)).nonzero().squeeze(1)
        if len(going) == 0:
            break
        if len(going) < len(rows):
            rows, choice, attention = rows[going], choice[going], attention[going]
            cache.reorder_cache(going)
        attention = torch.cat([attention, attention.new_ones(len(rows), 1)], dim=1)  # (rows, S + t + 1)
        logits = policy.forward_cached(choice[:, None], attention, cache).logits[:, -1]

    width = int(length.max())
    mask = torch.arange(width, device=device) < length[:, None]  # (N, T)
    tokens = tokens[:, :width]
    texts = policy.decode([row[: int(k)] for row, k in zip(tokens.tolist(), length, strict=True)])
    return Completions(texts, tokens, mask, logps[:, :width], entropies[:, :width], truncated)


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token lists as ``(ids, attention)``, both (N, S) long, padded on the left so that all of them end together."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(r)) + list(r) for r in rows], device=device)
    attention = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, attention


def _uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """(N, T) float64 in [0, 1). Each row has its own stream: a completion does not depend on its neighbours."""
    streams = (np.random.Generator(np.random.Philox(key=int(s))) for s in seeds)
    return torch.from_numpy(np.stack([stream.random(steps) for stream in streams]))


def _choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """The next token of each row, its log-prob and the entropy, each (N,), from float32 ``logits`` (N, V)."""
    logprobs = (logits / sampling.scale).log_softmax(-1)  # (N, V)
    probs = logprobs.exp()
    entropy = -torch.where(probs > 0, probs * logprobs, 0.0).sum(-1)
    choice = logits.argmax(-1) if sampling.temperature == 0 else _draw(_restrict(probs, sampling), draws)
    return choice, logprobs.gather(-1, choice[:, None]).squeeze(-1), entropy


def _draw(probs: Tensor, draws: Tensor) -> Tensor:
    """Inverse-CDF sampling: (N,) tokens from unnormalised ``probs`` (N, V), one uniform a row."""
    cdf = probs.cumsum(-1, dtype=torch.float64)
    # right=True finds the first entry *above* the draw: a token of probability 0 is never taken.
    choice = torch.searchsorted(cdf, (draws * cdf[:, -1])[:, None], right=True).squeeze(-1)
    last = (probs > 0).long().cumsum(-1).argmax(-1)  # the last token that can be drawn, should rounding go past it
    return torch.minimum(choice, last)


def _restrict(probs: Tensor, sampling: Sampling) -> Tensor:
    """``probs`` (N, V) with 0 for what top-k and top-p rule out (top-k first, as everywhere)."""
    if 0 < sampling.top_k < probs.shape[-1]:
        kept = probs.topk(sampling.top_k, dim=-1)
        probs = torch.zeros_like(probs).scatter(-1, kept.indices, kept.values)
    if sampling.top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        above = ordered.cumsum(-1) - ordered  # what the more likely tokens already hold
        ordered = torch.where(above < sampling.top_p * ordered.sum(-1, keepdim=True), ordered, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    return probs


def _stopped(policy: Policy, tokens: Tensor, stop: tuple[str, ...]) -> Tensor:
    """(N,) bool: the text of this row, ``tokens`` (N, t), has just come to hold a stop string."""
    if not stop:
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    # A token is at least a byte, so a stop string of b bytes ends within the last b + 1 tokens.
    tail = max(len(s.encode()) for s in stop) + 1
    texts = policy.decode(tokens[:, -tail:].tolist())
    return torch.tensor([any(s in text for s in stop) for text in texts], device=tokens.device)
