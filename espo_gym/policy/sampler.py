"""The sampler: prompts in, completions out, with the log-prob and the entropy of every token as it was chosen.

One schedule for every model. Each distinct prompt is run once, however many rows continue it; finished rows leave the
batch and the last ones take their places; the log-prob and the entropy come out of the softmax that the choice needs
anyway. What the next token of a row follows from is a :class:`~.step.Step`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espo_gym.sampling import Sampling

from .language_model import LanguageModel
from .lm_head import FORBIDDEN, NAT, first_above, head_logits, next_tokens
from .step import Step

TILED_VOCABULARY = 8_192
"""With more entries than this the logits of a batch no longer fit a CPU's cache. (A GPU holds them all at once.)"""

AHEAD = 16
"""Random numbers are made for this many tokens at once, and this many are written before they are looked at for NaN."""


@dataclass
class Completions:
    """What the policy wrote. N rows, T tokens of the longest completion; padded on the right."""

    texts: list[str]
    """Decoded completions, special tokens left out."""
    tokens: Tensor
    """(N, T) long."""
    mask: Tensor
    """(N, T) bool: a token of the completion, end token included."""
    logps: Tensor
    """(N, T) float32 log pi(token), nats, of the whole vocabulary at the sampling temperature; 0 where masked."""
    entropies: Tensor
    """(N, T) float32 entropy of pi over the whole vocabulary, nats, same temperature; 0 where masked. NaN where the
    sampler does not report it (vLLM)."""
    truncated: Tensor
    """(N,) bool: cut off by ``max_completion_tokens`` or by the context, before an end token or a stop string."""


@torch.no_grad()
def generate(
    lm: LanguageModel, step: Step, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
) -> Completions:
    """One completion for each prompt (a list of token ids), token by token through ``step``.

    See :meth:`Policy.generate`.

    Raises:
        FloatingPointError: the logits are not finite.
    """
    device, pad, n = lm.device, lm.pad_token_id, len(prompts)
    context = lm.context_length
    limits = [min(sampling.max_completion_tokens, context - len(p)) for p in prompts]
    limit = torch.tensor(limits, device=device)  # (N,) tokens allowed
    is_end = torch.zeros(lm.vocab_size, dtype=torch.bool, device=device)
    is_end[lm.eos_token_ids] = True

    draws, head = Uniforms(seeds, device), lm.head
    columns = max(map(len, prompts)) + max(limits)
    slots = step.slots(n, columns)
    waiting = deque(range(slots, n))  # rows that begin where others have ended
    distinct, source = _distinct(prompts[:slots])
    ids, attention = left_pad(distinct, pad, device)
    states = step.start(ids, attention, torch.tensor(source, device=device), columns)
    rows = torch.arange(slots, device=device)  # the rows that are being written, in the order of the step
    age = torch.zeros(n, dtype=torch.long, device=device)  # (N,) tokens written
    written: list[tuple[Tensor, ...]] = []  # of each step: rows, columns, tokens, log-probs, entropies
    tails = torch.empty(slots, 0, dtype=torch.long, device=device)  # (rows, t) what stop strings are looked for in
    truncated = torch.zeros(n, dtype=torch.bool, device=device)

    while True:
        column = age[rows]
        choice, logp, entropy = _choose(states, head, draws.next(rows, age), sampling)
        written.append((rows, column, choice, logp, entropy))
        if len(written) % AHEAD == 0:
            _check_finite(torch.cat([step[-1] for step in written[-AHEAD:]]))
        age[rows] = column + 1
        over = is_end[choice]
        if sampling.stop:
            tails = torch.cat([tails, choice[:, None]], 1)
            over = over | _stopped(lm, tails, sampling.stop)
        if len(written) >= min(limits):
            cut = ~over & (column + 1 >= limit[rows])
            truncated[rows[cut]] = True
            over = over | cut
        ended = over.tolist()
        if any(ended):
            if waiting:
                free = [place for place, end in enumerate(ended) if end][: len(waiting)]
                fresh = [waiting.popleft() for _ in free]
                places = torch.tensor(free, device=device)
                step.refill(places, *left_pad([prompts[i][:-1] for i in fresh], pad, device))
                rows, choice = rows.clone(), choice.clone()
                rows[places] = torch.tensor(fresh, device=device)
                choice[places] = torch.tensor([prompts[i][-1] for i in fresh], device=device)  # opens the completion
                tails[places] = pad
                for place in free:
                    ended[place] = False
            order = torch.tensor(_close_ranks(ended), device=device)
            if len(order) == 0:
                break
            if len(order) < len(rows):
                rows, choice, tails = rows[order], choice[order], tails[order]
                step.keep(order)
        states = step.advance(choice)

    width = int(age.max())
    tokens = torch.full((n, width), pad, dtype=torch.long, device=device)
    logps, entropies = (torch.zeros(n, width, device=device) for _ in range(2))
    row, column, *values = (torch.cat(parts) for parts in zip(*written, strict=True))
    _check_finite(values[-1])
    for table, value in zip((tokens, logps, entropies), values, strict=True):
        table[row, column] = value.to(table.dtype)
    mask = torch.arange(width, device=device) < age[:, None]  # (N, T)
    texts = lm.decode([ids[:k] for ids, k in zip(tokens.tolist(), age.tolist(), strict=True)])
    return Completions(texts, tokens, mask, logps, entropies, truncated)


def _check_finite(entropies: Tensor) -> None:
    """``entropies``, of any shape, are of tokens just drawn: one is NaN exactly where the logits were not finite."""
    if entropies.isnan().any():
        raise FloatingPointError(
            "the logits of the policy are not finite, so no token can be drawn: its weights are NaN, infinite or too "
            "large for its dtype. Go back to weights that are finite (an earlier checkpoint), or to a wider dtype"
        )


def _distinct(prompts: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The different ones among ``prompts``, and which of them each is."""
    distinct = list(dict.fromkeys(tuple(p) for p in prompts))
    position = {p: i for i, p in enumerate(distinct)}
    return distinct, [position[tuple(p)] for p in prompts]


def _close_ranks(ended: Sequence[bool]) -> list[int]:
    """The rows to continue with: those that have not ended, the last of them moved into the places that became free.

    Rows stay where they are if they can, so that little of a cache is moved.
    """
    going = len(ended) - sum(ended)
    last = [row for row in range(going, len(ended)) if not ended[row]]
    return [last.pop() if ended[row] else row for row in range(going)]


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token lists as ``(ids, attention)``, both (N, S) long, padded on the left so that all of them end together."""
    width = max(map(len, rows))
    ids = [[pad] * (width - len(r)) + list(r) for r in rows]
    attention = [[0] * (width - len(r)) + [1] * len(r) for r in rows]
    return tuple(torch.tensor(x, dtype=torch.long, device=device) for x in (ids, attention))  # type: ignore[return-value]


class Uniforms:
    """Each row's own stream of float64 numbers in [0, 1), a function of its seed alone.

    Number t of seed s is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA
    2014) at step t of a stream that starts at a hash of s. One number decides one token, so a completion does not
    depend on its neighbours.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        words = torch.tensor([_signed(int(s)) for s in seeds], dtype=torch.long, device=device)
        self.start = splitmix(words + GOLDEN)  # (N,)
        self.calls = 0

    def at(self, rows: Tensor, t: Tensor) -> Tensor:
        """Number ``t`` of the rows ``rows``, whose shapes are broadcast."""
        bits = splitmix(self.start[rows] + (t + 1) * GOLDEN)
        return ((bits >> 11) & (2**53 - 1)).double() * 2.0**-53

    def next(self, rows: Tensor, t: Tensor) -> Tensor:
        """(n,) number ``t[row]`` of each of ``rows`` (n,); called once per step.

        ``t`` (N,) covers all rows, and no entry grows by more than 1 from one call to the next.
        """
        if self.calls % AHEAD == 0:  # in blocks: twenty small operations take as long for one number as for these
            all_rows, steps = (torch.arange(k, device=t.device) for k in (len(t), AHEAD))
            self.first, self.ahead = t.clone(), self.at(all_rows[:, None], t[:, None] + steps)  # (N,), (N, AHEAD)
        self.calls += 1
        return self.ahead[rows, (t - self.first)[rows]]


def splitmix(z: Tensor) -> Tensor:
    """The mixing function of SplitMix64; 64-bit words as int64, whose products wrap around as unsigned ones do."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _signed(0x94D049BB133111EB)
    return z ^ ((z >> 31) & (2**33 - 1))


def _signed(word: int) -> int:
    """The int64 with the bits of ``word`` modulo 2^64."""
    return (word + 2**63) % 2**64 - 2**63


GOLDEN = _signed(0x9E3779B97F4A7C15)
"""What the state of SplitMix64 moves by."""


def _choose(
    states: Tensor, head: tuple[Tensor, Tensor | None] | None, draws: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """The next token of each row, its log-prob and the entropy, each (n,), from what a step returned of them."""
    greedy = sampling.temperature == 0
    whole = states.device.type != "cpu" or not (greedy or sampling.unrestricted)
    if head is not None and len(head[0]) > TILED_VOCABULARY and not whole:
        return next_tokens(states, *head, None if greedy else draws, sampling.scale)
    logits = head_logits(states, head)  # (n, V)
    logprobs = (logits if sampling.scale == 1 else logits / sampling.scale).log_softmax(-1)
    probs = (logprobs * NAT).exp2()
    entropy = (probs * -logprobs.clamp(min=FORBIDDEN)).sum(-1)
    if greedy:
        choice = logits.argmax(-1)
    else:
        cdf = _restrict(probs, sampling).cumsum(-1, dtype=torch.float64)
        choice = first_above(cdf, draws * cdf[:, -1])
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


def _stopped(lm: LanguageModel, tokens: Tensor, stop: tuple[str, ...]) -> Tensor:
    """(N,) bool: the text of this row, ``tokens`` (N, t), has just come to hold a stop string."""
    if not stop:
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    # A token is at least a byte, so a stop string of b bytes ends within the last b + 1 tokens.
    tail = max(len(s.encode()) for s in stop) + 1
    texts = lm.decode(tokens[:, -tail:].tolist())
    return torch.tensor([any(s in text for s in stop) for text in texts], device=tokens.device)
