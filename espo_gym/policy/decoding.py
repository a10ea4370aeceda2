"""The decoding step of any model, and the check that the packed one agrees with it."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from .agreement import gap_and_limit
from .language_model import LanguageModel
from .lm_head import head_logits
from .matmul import fast_linear_layers
from .packed_step import GROWTH, SHARED_PROMPT, PackedStep, move_rows, widened, wider
from .step import Step
from .structure import supports

PROBED = (4, SHARED_PROMPT)
"""Lengths of the prompts on which the packed step is compared with the model."""


def check_packed_step(lm: LanguageModel) -> bool:
    """Whether the packed step agrees with the model to within rounding (:mod:`.agreement`).

    Warns if it should know the model and does not agree.
    """
    name = type(lm.model).__name__
    if lm.head is None or not supports(lm.model) or lm.context_length < min(PROBED) + 3:
        return False
    try:
        with fast_linear_layers([lm.model]):  # as both would run
            gap, limit = _gap(lm)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        warnings.warn(
            f"falling back to the model's own forward pass: the packed decoder for {name} failed with "
            f"{type(error).__name__}: {error}",
            stacklevel=2,
        )
        return False
    if not gap <= limit:
        warnings.warn(
            f"falling back to the model's own forward pass: the packed decoder for {name} is off by {gap:.1e} nats "
            f"(limit {limit:.1e})",
            stacklevel=2,
        )
    return gap <= limit


def _gap(lm: LanguageModel) -> tuple[float, float]:
    """The largest difference of log-probs between the two steps, in nats, and the largest that is allowed.

    Measured with short prompts and with long ones, whose keys and values are shared. Where the computation is in 16
    bits, it is measured in the dtype of the weights as well, whose rounding hides less.
    """
    gap = limit = 0.0
    lengths = [n for n in PROBED if n + 3 <= lm.context_length]
    for dtype, n in product(dict.fromkeys((lm.dtype, lm.compute_dtype)), lengths):
        with lm.without_autocast() if dtype == lm.dtype else nullcontext():
            gap, limit = gap_and_limit(
                partial(_probe, lm, ModelStep, n), partial(_probe, lm, PackedStep, n), lm.model.base_model, dtype
            )
        if not gap <= limit:
            break
    return gap, limit


@torch.no_grad()
def _probe(lm: LanguageModel, kind: type[PackedStep | ModelStep], length: int) -> Tensor:
    """Logits of such a step on arbitrary tokens: two prompts of up to ``length``, four rows, one of which leaves."""
    step = PackedStep(lm.model, lm.compute_dtype) if kind is PackedStep else ModelStep(lm)
    prompts = 1 + torch.arange(2 * length, device=lm.device).view(2, -1) * 7 % (lm.vocab_size - 1)
    attention = torch.ones_like(prompts)
    attention[0, 0] = 0
    source = torch.tensor([0, 1, 1, 0], device=lm.device)
    order = torch.tensor([3, 1, 2], device=lm.device)  # the last row moves into the place of the first
    states = [step.start(prompts, attention, source, length + 2), step.advance(prompts[source, 1])]
    step.keep(order)
    states.append(step.advance(prompts[source[order], 2]))
    return torch.cat([head_logits(x, lm.head) for x in states])


class BufferLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room: a token copies none of the others, rows leave in place.

    The model sees the whole buffer; the attention mask of :class:`ModelStep` hides what has not been written yet.
    """

    keys: Any
    values: Any

    def fan_out(self, source: Tensor) -> None:
        """From the prompts' rows to the N rows that continue them."""
        self.column = self.keys.shape[2]
        self.keys, self.values = (
            pad(half, (0, 0, 0, GROWTH)).index_select(0, source) for half in (self.keys, self.values)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "column"):
            return super().update(key_states, value_states, *args, **kwargs)
        width = self.keys.shape[2]
        if self.column == width:
            self.keys, self.values = (widened(half, wider(width) - width) for half in (self.keys, self.values))
        self.keys[:, :, self.column] = key_states[:, :, 0]
        self.values[:, :, self.column] = value_states[:, :, 0]
        self.column += 1
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.column if hasattr(self, "column") else super().get_seq_length()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        if not hasattr(self, "column"):
            return super().get_mask_sizes(query_length)
        width = self.keys.shape[2]
        return wider(width) if self.column == width else width, 0

    def keep(self, order: Tensor) -> None:
        """Continue with the rows ``order`` (n',)."""
        move_rows((self.keys, self.values), order)
        self.keys, self.values = self.keys[: len(order)], self.values[: len(order)]


class ModelStep(Step):
    """The model's own forward pass. A cache of a non-standard kind is reordered by its own method, not in place."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.cache: Any = DynamicCache(config=lm.model.config)
        self.in_place = lm.shortcuts and all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if self.in_place:
            self.cache.layers = [BufferLayer() for _ in self.cache.layers]  # type: ignore[no-untyped-call]

    def slots(self, n: int, columns: int) -> int:
        return n

    def refill(self, places: Tensor, ids: Tensor, attention: Tensor) -> None:
        raise NotImplementedError("every row starts at once, so none is refilled")

    def start(self, ids: Tensor, attention: Tensor, source: Tensor, columns: int) -> Tensor:
        out = self.lm.next_states(ids, attention, self.cache)
        self.length = attention.shape[1]
        self.attention = attention[source]  # (N, columns)
        if self.in_place:
            self.attention = pad(self.attention, (0, GROWTH))
            for layer in self.cache.layers:
                layer.fan_out(source)
        else:
            self.cache.reorder_cache(source)
        return out[source]

    def advance(self, tokens: Tensor) -> Tensor:
        width = self.attention.shape[1]
        if self.length == width:
            self.attention = pad(self.attention, (0, wider(width) - width if self.in_place else 1))
        self.attention[:, self.length] = 1
        self.length += 1
        return self.lm.next_states(tokens[:, None], self.attention, self.cache)

    def keep(self, order: Tensor) -> None:
        self.attention = self.attention[order]
        if self.in_place:
            for layer in self.cache.layers:
                layer.keep(order)
        else:
            self.cache.reorder_cache(order)
