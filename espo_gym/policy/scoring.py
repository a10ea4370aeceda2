"""Log-probs of completions that are already written, with gradient, at the cost of the tokens that matter.

Each distinct prompt is run once, its keys and values serve all of its completions, and the gradient goes back through
them. Completions are sorted by length and cut into micro-batches by number of tokens, so that little of a batch is
padding. The head runs over the policy's own tokens alone, in tiles (:mod:`espo_gym.lm.lm_head`).

Axes: B completions, U distinct prompts, S tokens of the longest prompt, T of the longest completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from espo_gym.rollout import Rollout

from .agreement import gap_and_limit
from .language_model import LanguageModel
from .lm_head import head_logits, head_scores
from .matmul import fast_linear_layers


@dataclass
class TokenScores:
    """Log-probs, entropies and values of completions that are already written. B rows, T tokens; 0 where masked."""

    logps: Tensor
    """(B, T) log pi(token), nats, at the sampling temperature; float32 (float64 of a float64 model)."""
    entropies: Tensor | None
    """(B, T) float32, nats, over the whole vocabulary; None unless asked for."""
    values: Tensor | None
    """(B, T) float32 prediction of the return before the token is chosen; None without a value head."""

    @classmethod
    def concat(cls, pieces: Sequence[tuple[Tensor, TokenScores]]) -> TokenScores:
        """Scores of pieces ``(rows, scores)``, in the order of the rows."""
        order = torch.cat([rows for rows, _ in pieces]).argsort()
        joined: list[Any] = []
        for name in ("logps", "entropies", "values"):
            parts = [getattr(scores, name) for _, scores in pieces]
            joined.append(None if parts[0] is None else torch.cat(parts)[order])
        return cls(*joined)


class _Recorded(DynamicLayer):
    """Keys and values of the prompts, as they come."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values = key_states, value_states
        return key_states, value_states


class _Prefix(DynamicLayer):
    """Keys and values that precede those of the completions. Nothing is stored, so a layer can be run again."""

    keys: Any
    values: Any

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], 2), torch.cat([self.values, value_states], 2)


@dataclass
class _Prompts:
    """What has been computed for the prompts of some completions: all of their tokens but the last."""

    mask: Tensor  # (U, S - 1) bool, padded on the left
    heads: list[Tensor]  # keys and values of each layer, (U, k, S - 1, d): the graph that leads back
    leaves: list[Tensor]  # the same without it; gradients add up here

    @classmethod
    def run(cls, lm: LanguageModel, model: Any, ids: Tensor, mask: Tensor, whole: bool) -> _Prompts:
        """``ids`` and ``mask`` (U, S - 1), all tokens but the last: that one opens the completion."""
        cache = DynamicCache()
        if ids.shape[1]:
            cache.layer_class_to_replicate = _Recorded
            lm.trunk_states(model, ids, mask.long(), cache)
        heads: list[Tensor] = [half for layer in cast(Any, cache.layers) for half in (layer.keys, layer.values)]
        leaves = heads if whole else [head.detach().requires_grad_(head.requires_grad) for head in heads]
        return cls(mask, heads, leaves)

    def cache(self, which: Tensor) -> DynamicCache | None:
        """For completions of the prompts ``which`` (B,)."""
        if not self.heads:
            return None
        cache = DynamicCache()
        pairs = zip(self.leaves[::2], self.leaves[1::2], strict=True)
        cache.layers = [_Prefix(keys.index_select(0, which), values.index_select(0, which)) for keys, values in pairs]
        cache.layer_class_to_replicate = None
        return cache

    def backward(self) -> None:
        """Backpropagate the gradients that have arrived at the prompts' keys and values."""
        pairs = zip(self.heads, self.leaves, strict=True)
        reached = [(head, leaf.grad) for head, leaf in pairs if leaf.grad is not None]
        if reached:
            torch.autograd.backward([head for head, _ in reached], [grad for _, grad in reached])


def shared_prompt_pieces(
    lm: LanguageModel,
    rollout: Rollout,
    tokens: int,
    temperature: float,
    entropies: bool,
    checkpointing: bool,
    whole: bool,
) -> Iterator[tuple[Tensor, TokenScores]]:
    """See :meth:`Policy.micro_batches`. ``whole`` leaves the prompts in the graph of their completions."""
    both, prompt_of = torch.stack([rollout.prompt_ids, rollout.prompt_mask.long()], 1).unique(
        dim=0, return_inverse=True
    )
    distinct, prompt_mask = both[:, 0], both[:, 1].bool()  # (U, S)
    prompt_lengths, lengths = prompt_mask.sum(1), rollout.completion_mask.sum(1)
    models = [lm.model] if lm.critic is None else [lm.model, lm.critic]
    for chosen in _within(prompt_lengths, prompt_lengths.argsort(stable=True), tokens):  # (U',) prompts
        local = torch.full_like(prompt_lengths, -1)
        local[chosen] = torch.arange(len(chosen), device=local.device)
        ids = distinct[chosen, -int(prompt_lengths[chosen].max()) :]
        mask = prompt_mask[chosen, -ids.shape[1] :]
        with prepared(models, checkpointing):
            prompts = [_Prompts.run(lm, model, ids[:, :-1], mask[:, :-1], whole) for model in models]
        mine = (local[prompt_of] >= 0).nonzero().squeeze(1)
        for rows in _within(lengths, mine[lengths[mine].argsort(stable=True)], tokens):
            which = local[prompt_of[rows]]
            with prepared(models, checkpointing):
                scores = _scores(lm, rollout.rows(rows), ids[which, -1:], which, prompts, temperature, entropies)
            yield rows, scores
        if not whole:
            for prompt in prompts:
                prompt.backward()


def plain_pieces(rollout: Rollout, tokens: int | None, *, in_order: bool) -> Iterator[Tensor]:
    """Rows of ``rollout`` in pieces of at most ``tokens`` tokens, padding counted; None: all at once."""
    lengths = rollout.completion_mask.sum(1)
    if in_order:
        lengths = torch.full_like(lengths, rollout.completion_mask.shape[1])
    yield from _within(lengths, lengths.argsort(stable=True), tokens or lengths.numel() * int(lengths.max()))


def _within(lengths: Tensor, order: Tensor, tokens: int) -> Iterator[Tensor]:
    """``order``, ascending in ``lengths``, in pieces of at most ``tokens`` tokens, padding counted."""
    start, sizes = 0, lengths[order].tolist()
    for i, size in enumerate(sizes):
        if i > start and (i + 1 - start) * size > tokens:
            yield order[start:i]
            start = i
    if len(order) > start:
        yield order[start:]


def _scores(
    lm: LanguageModel,
    part: Rollout,
    opening: Tensor,
    which: Tensor,
    prompts: list[_Prompts],
    temperature: float,
    entropies: bool,
) -> TokenScores:
    """Of the completions ``part``, in its full width; ``opening`` (B, 1) are the last tokens of their prompts."""
    width = max(1, int(part.completion_mask.sum(1).max()))
    own = part.mask[:, :width]
    ids = torch.cat([opening, part.completion_ids[:, : width - 1]], 1)  # (B, width): what each token is predicted from
    present = torch.cat([torch.ones_like(own[:, :1]), part.completion_mask[:, : width - 1]], 1)

    def states(i: int, model: Any) -> Tensor:
        attention = torch.cat([prompts[i].mask[which], present], 1).long()
        return lm.trunk_states(model, ids, attention, prompts[i].cache(which))  # (B, width, H)

    hidden = states(0, lm.model)
    assert lm.head is not None
    weight, bias = lm.head
    logps, entropy = head_scores(
        hidden[own], weight, bias, part.completion_ids[:, :width][own], temperature=temperature, entropies=entropies
    )
    values = None
    if lm.value_head is not None:
        values = lm.values_of(hidden if lm.critic is None else states(1, lm.critic))
        values = pad(values.masked_fill(~own, 0.0), (0, part.mask.shape[1] - width))

    def table(flat: Tensor) -> Tensor:
        rows = torch.zeros(own.shape, dtype=flat.dtype, device=flat.device).masked_scatter(own, flat)
        return pad(rows, (0, part.mask.shape[1] - width))  # (B, T)

    return TokenScores(table(logps), None if entropy is None else table(entropy), values)


@contextmanager
def prepared(models: Sequence[Any], checkpointing: bool, fast: bool = True) -> Iterator[None]:
    """Within it ``models`` use the faster matrix products of :mod:`.matmul`, unless ``fast`` is False.

    With ``checkpointing`` their decoder layers keep no activations but compute them again in the backward pass.
    (transformers' own switch for this works in training mode only, where there would be dropout.)
    """
    models = [model for model in models if model is not None]
    layers = [layer for model in models for layer in _decoder_layers(model)] if checkpointing else []
    before = [{"forward": layer.forward} if "forward" in layer.__dict__ else {} for layer in layers]

    def run(layer: Any, forward: Any, *args: Any, **kwargs: Any) -> Any:
        with fast_linear_layers([layer] if fast else []):  # the second run happens outside of this context
            return forward(*args, **kwargs)

    try:
        for layer in layers:
            layer.forward = partial(checkpoint, partial(run, layer, layer.forward), use_reentrant=False)
        with fast_linear_layers(models if fast else []):
            yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            layer.__dict__.update(own)


def _decoder_layers(model: Any) -> Sequence[Any]:
    n = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n:
            return list(module)
    raise ValueError(f"no list of {n} layers in {type(model).__name__}, so activations cannot be checkpointed")


@torch.no_grad()
def check_prefix(lm: LanguageModel) -> bool:
    """Whether the log-probs stay the same when the keys and values of the first tokens come out of a cache."""
    cache = DynamicCache(config=lm.model.config)
    if lm.head is None or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return False
    ids, attention = lm.probe()

    def whole() -> Tensor:
        return head_logits(lm.trunk_states(lm.model, ids, attention, None)[:, 3:].flatten(0, 1), lm.head)

    def split() -> Tensor:
        prompts = _Prompts.run(lm, lm.model, ids[:, :3], attention[:, :3].bool(), whole=True)
        states = lm.trunk_states(lm.model, ids[:, 3:], attention, prompts.cache(torch.arange(len(ids))))
        return head_logits(states.flatten(0, 1), lm.head)

    with lm.without_autocast():
        try:
            gap, limit = gap_and_limit(whole, split, lm.model.base_model, lm.dtype)
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
            return False  # the model has a cache of another kind
        return gap <= limit
