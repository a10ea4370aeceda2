"""The sampler: prompts in, completions out, with the log-prob and the entropy of every token as it was chosen.

One schedule for every model. Each distinct prompt is run once, however many rows continue it; finished rows leave the
batch and the last ones take their places; the log-prob and the entropy come out of the softmax that the choice needs
anyway. How a row gets from one token to the next is a :class:`~espo_gym.decoding.Step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .decoding import make_step
from .head import head_logits, inverse_cdf, next_tokens

if TYPE_CHECKING:
    from .policy import Policy

TILED_VOCABULARY = 8_192
"""Above so many entries the logits of a batch no longer fit a processor's cache."""


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
    def unrestricted(self) -> bool:
        """Every token can be drawn."""
        return self.top_k == 0 and self.top_p == 1

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
    device, n = policy.device, len(prompts)
    distinct = list(dict.fromkeys(tuple(p) for p in prompts))
    position = {p: i for i, p in enumerate(distinct)}
    source = torch.tensor([position[tuple(p)] for p in prompts], device=device)  # (N,) the prompt of each row
    limits = [min(sampling.max_completion_tokens, policy.context_length - len(p)) for p in prompts]
    limit = torch.tensor(limits, device=device)  # (N,) tokens allowed
    is_end = torch.zeros(policy.vocab_size, dtype=torch.bool, device=device)
    is_end[policy.eos_token_ids] = True

    step, draws, head = make_step(policy), Uniforms(seeds, device), policy.head
    states = step.start(*left_pad(distinct, policy.pad_token_id, device), source)
    rows = torch.arange(n, device=device)  # the rows still being written, in the order of the step
    written: list[tuple[Tensor, ...]] = []  # of each step: the rows, their tokens, log-probs, entropies
    tails = torch.empty(n, 0, dtype=torch.long, device=device)  # (rows, t) what stop strings are looked for in
    truncated = torch.zeros(n, dtype=torch.bool, device=device)

    for t in range(max(limits)):
        choice, logp, entropy = _choose(states, head, draws.at(rows, t), sampling)
        written.append((rows, choice, logp, entropy))
        ended = is_end[choice]
        if sampling.stop:
            tails = torch.cat([tails, choice[:, None]], 1)
            ended = ended | _stopped(policy, tails, sampling.stop)
        over = ended
        if t + 1 >= min(limits):
            cut = ~ended & (t + 1 >= limit[rows])
            truncated[rows[cut]] = True
            over = ended | cut
        order = _close_ranks(over)
        if len(order) == 0:
            break
        if len(order) < len(rows):
            rows, choice = rows[order], choice[order]
            tails = tails[order] if sampling.stop else tails
            step.keep(order)
        states = step.advance(choice)

    width = len(written)
    tokens = torch.full((n, width), policy.pad_token_id, dtype=torch.long, device=device)
    logps, entropies = (torch.zeros(n, width, device=device) for _ in range(2))
    column = torch.cat([torch.full_like(part[0], t) for t, part in enumerate(written)])
    row, *values = (torch.cat(parts) for parts in zip(*written, strict=True))
    for table, value in zip((tokens, logps, entropies), values, strict=True):
        table[row, column] = value
    lengths = torch.bincount(row, minlength=n)
    mask = torch.arange(width, device=device) < lengths[:, None]  # (N, T)
    texts = policy.decode([ids[:k] for ids, k in zip(tokens.tolist(), lengths.tolist(), strict=True)])
    return Completions(texts, tokens, mask, logps, entropies, truncated)


def _close_ranks(over: Tensor) -> Tensor:
    """(n',) the rows to go on with: those not ``over`` (n,), the last of them in the places that have become free.

    Rows that can stay do, so that little of a cache is moved.
    """
    if not over.any():
        return torch.arange(len(over), device=over.device)
    going = (~over).nonzero().squeeze(1)
    order = torch.arange(len(going), device=over.device)
    order[over[: len(going)]] = going[going >= len(going)]
    return order


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token lists as ``(ids, attention)``, both (N, S) long, padded on the left so that all of them end together."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(r)) + list(r) for r in rows], device=device)
    attention = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, attention


class Uniforms:
    """Each row's own stream of float64 numbers in [0, 1), a function of its seed alone.

    Number t of seed s is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA
    2014) at step t of a stream that starts at a hash of s. One number decides one token, so a completion does not
    depend on its neighbours.
    """

    BLOCK = 64
    GOLDEN = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.start = self._mix(np.array([int(s) % 2**64 for s in seeds], dtype=np.uint64) + self.GOLDEN)  # (N,)
        self.device = device

    def at(self, rows: Tensor, t: int) -> Tensor:
        """(n,) number ``t`` of the rows ``rows`` (n,)."""
        if t % self.BLOCK == 0:
            steps = np.arange(t + 1, t + 1 + self.BLOCK, dtype=np.uint64)
            bits = self._mix(self.start[:, None] + steps * self.GOLDEN)  # wraps around
            self.block = torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53).to(self.device)  # (N, BLOCK)
        return self.block[rows, t % self.BLOCK]

    @staticmethod
    def _mix(z: np.ndarray) -> np.ndarray:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _choose(
    states: Tensor, head: tuple[Tensor, Tensor | None] | None, draws: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """The next token of each row, its log-prob and the entropy, each (n,), from what a step returned of them."""
    greedy = sampling.temperature == 0
    if head is not None and len(head[0]) > TILED_VOCABULARY and (greedy or sampling.unrestricted):
        return next_tokens(states, *head, None if greedy else draws, sampling.scale)
    logits = head_logits(states, head)  # (n, V)
    logprobs = (logits if sampling.scale == 1 else logits / sampling.scale).log_softmax(-1)
    probs = logprobs.exp()
    entropy = torch.special.entr(probs).sum(-1)
    if greedy:
        choice = logits.argmax(-1)
    else:
        allowed = _restrict(probs, sampling)
        choice = inverse_cdf(allowed, draws * allowed.sum(-1, dtype=torch.float64))
    return choice, logprobs.gather(-1, choice[:, None]).squeeze(-1), entropy


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
