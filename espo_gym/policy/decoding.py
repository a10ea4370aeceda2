"""Steps of decoding: what the sampler asks for the next token, row by row, from a cache that stays where it is.

A :class:`Step` holds the keys and values of the rows that are being written. Two of them have one contract:

- :class:`ModelStep` runs the model's own forward pass, whatever it is;
- :class:`~.packed_step.FunctionalStep` knows the layer of Llama, Qwen2, Qwen3 and Mistral, and is several times as
  fast; on a GPU its :class:`~.cuda_graphs.GraphStep`. It is checked against the model before it is first used.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from . import packed_step as functional
from .cuda_graphs import GraphStep
from .lm_head import head_logits
from .matmul import quick_linears
from .packed_step import GROWTH, move_rows, widened, wider
from .scoring import hooked

if TYPE_CHECKING:
    from .policy import Policy


class Step(Protocol):
    """What the next token of N rows follows from: hidden states (N, H) or, without a plain head, logits (N, V)."""

    def slots(self, n: int, columns: int) -> int:
        """Of ``n`` rows, each of at most ``columns`` tokens, so many are written at a time."""

    def start(self, ids: Tensor, attention: Tensor, source: Tensor, columns: int) -> Tensor:
        """Run the distinct prompts ``ids`` (U, S), padded on the left; row i of N continues prompt ``source[i]``."""

    def advance(self, tokens: Tensor) -> Tensor:
        """Append ``tokens`` (n,), one a row."""

    def keep(self, order: Tensor) -> None:
        """Go on with fewer rows, (n',): row i from now on is what row ``order[i]`` was."""

    def admit(self, places: Tensor, ids: Tensor, attention: Tensor) -> None:
        """Rows ``places`` (m,) are over: from now on they are ``ids`` (m, s), padded on the left."""


def make_step(policy: Policy) -> Step:
    """The step that ``policy.sampler`` asks for; "auto" is the fastest that passes its check."""
    if policy.sampler != "hf" and policy.decodes_functionally and not hooked(policy.model):
        kind = GraphStep if policy.device.type == "cuda" else functional.FunctionalStep
        return kind(policy.model, policy.compute_dtype)
    if policy.sampler == "functional":
        raise ValueError(
            f"sampler='functional' is for models of the families {', '.join(functional.FAMILIES)} whose modules have "
            f"no hooks, not for this {type(policy.model).__name__}: take 'auto' or 'hf'"
        )
    return ModelStep(policy)


def check_functional(policy: Policy) -> bool:
    """Whether the functional step says the same as the model; a model that it should know and does not is named.

    In float32 the log-probs must agree to 1e-5 and a millionth of the largest logit, in 16 bits to 0.05 and a fiftieth.
    """
    model = policy.model
    if policy.head is None or not functional.supports(model):
        return False
    try:
        with quick_linears([model]):  # as both would run
            gap, allowed = _gap(policy)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        warnings.warn(f"sampling by the model's own forward pass: {type(error).__name__}: {error}", stacklevel=2)
        return False
    if not gap <= allowed:
        warnings.warn(
            f"sampling by the model's own forward pass: the functional step of {type(model).__name__} differs from it "
            f"by {gap:.1e} nats, more than {allowed:.1e}",
            stacklevel=2,
        )
    return gap <= allowed


@torch.no_grad()
def _gap(policy: Policy) -> tuple[float, float]:
    """The largest difference of log-probs between both steps, and how large it may be.

    Looked at with short prompts and with long ones, whose keys and values are shared.
    """
    gaps, largest = [0.0], [0.0]
    lengths = [n for n in (4, functional.SHARED_PROMPT) if n + 3 <= policy.context_length]
    for n in lengths:
        seen = [
            _probe(policy, step, n)
            for step in (functional.FunctionalStep(policy.model, policy.compute_dtype), ModelStep(policy))
        ]
        gaps.append(float((seen[0].log_softmax(-1) - seen[1].log_softmax(-1)).abs().max()))
        largest.append(float(seen[1][seen[1] > -torch.inf].abs().max()))
    noise = (1e-5, 1e-6) if policy.compute_dtype.itemsize >= 4 else (0.05, 0.02)
    return max(gaps), noise[0] + noise[1] * max(largest)


def _probe(policy: Policy, step: Step, length: int) -> Tensor:
    """Logits of ``step`` on any tokens: two prompts of up to ``length``, four rows, one of which leaves."""
    prompts = 1 + torch.arange(2 * length, device=policy.device).view(2, -1) * 7 % (policy.vocab_size - 1)
    attention = torch.ones_like(prompts)
    attention[0, 0] = 0
    source = torch.tensor([0, 1, 1, 0], device=policy.device)
    order = torch.tensor([3, 1, 2], device=policy.device)  # the last row moves into the place of the first
    states = [step.start(prompts, attention, source, length + 2), step.advance(prompts[source, 1])]
    step.keep(order)
    states.append(step.advance(prompts[source[order], 2]))
    return torch.cat([head_logits(x, policy.head) for x in states])


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
        move_rows((self.keys, self.values), order)
        self.keys, self.values = self.keys[: len(order)], self.values[: len(order)]


class ModelStep:
    """The model's own forward pass. A cache of another kind than the standard one is copied, row by row, as it is."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.cache: Any = DynamicCache(config=policy.model.config)
        self.in_place = not policy.reference and all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if self.in_place:
            self.cache.layers = [BufferLayer() for _ in self.cache.layers]

    def slots(self, n: int, columns: int) -> int:
        return n

    def admit(self, places: Tensor, ids: Tensor, attention: Tensor) -> None:
        raise NotImplementedError("all rows are there from the start")

    def start(self, ids: Tensor, attention: Tensor, source: Tensor, columns: int) -> Tensor:
        out = self.policy.next_states(ids, attention, self.cache)
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
        return self.policy.next_states(tokens[:, None], self.attention, self.cache)

    def keep(self, order: Tensor) -> None:
        self.attention = self.attention[order]
        if self.in_place:
            for layer in self.cache.layers:
                layer.keep(order)
        else:
            self.cache.reorder_cache(order)
