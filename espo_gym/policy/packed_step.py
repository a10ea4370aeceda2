"""The decoder layer of Llama, Qwen2, Qwen3 and Mistral as a dozen tensor operations, for sampling alone.

A module's forward pass spends more time on Python than on arithmetic when each row brings one token. Here the weights
are packed first: the query, key and value projections into one matrix, likewise the gate and up projections; what an
RMS norm multiplies by and the attention's 1 / sqrt(d) are folded into the matrix behind it. The halves that rotary
embeddings pair up are interleaved, so that the rotation is one multiplication by complex numbers; that permutes
queries and keys alike and leaves their products as they are.

:class:`PackedStep` only serves models that are made of these layers and nothing else (:func:`.structure.supports`), and
is checked against the model's own forward pass before it is first used (:mod:`.decoding`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, rms_norm, scaled_dot_product_attention, silu

from .matmul import product_by_rows
from .step import Step

SHARED_PROMPT = 48
"""Prompts of at least this many tokens store their keys and values once per group instead of once per row."""

GROWTH = 16
"""The cache grows by at least this many columns."""

KEPT_BYTES = 2**25
"""glibc returns larger blocks to the system as soon as they are freed."""


def wider(width: int) -> int:
    """Columns of the next larger cache.

    Attention reads all columns of the buffer, with the empty ones masked: contiguous memory is read three times as
    fast. So a buffer is never much wider than its contents, and is copied now and then.
    """
    return width + max(GROWTH, width // 8)


def widened(buffer: Tensor, more: int) -> Tensor:
    """``buffer`` (n, k, columns, d) with ``more`` columns of zeros.

    The buffers of all layers grow one after the other. Where malloc keeps freed blocks, sizes are rounded up to powers
    of two, so that each buffer grows into the block that the previous one has just freed and that is still in cache.
    """
    n, k, columns, d = buffer.shape
    size = room = n * k * (columns + more) * d
    if not buffer.is_cuda and size * buffer.itemsize <= KEPT_BYTES:
        room = 1 << (size - 1).bit_length()
    out = buffer.new_empty(room)[:size].view(n, k, -1, d)
    out[:, :, :columns] = buffer
    out[:, :, columns:] = 0
    return out


def move_rows(buffers: Iterable[Tensor], order: Tensor) -> None:
    """Move row ``order[i]`` of each buffer to row i, in place; rows that stay where they are cost nothing."""
    places = (order != torch.arange(len(order), device=order.device)).nonzero().squeeze(1)
    rows = order[places]
    for buffer in buffers if len(places) else ():
        buffer.index_copy_(0, places, buffer.index_select(0, rows))


@dataclass
class _Layer:
    """Packed weights of one layer. H hidden, I intermediate; q, k, v heads of d features."""

    qkv: Tensor  # ((q + k + v) d, H)
    qkv_bias: Tensor | None
    qk_norm: Tensor | None  # (q + k, d), Qwen3
    out: Tensor  # (H, q d)
    out_bias: Tensor | None
    up: Tensor  # (2 I, H) gate, then up
    up_bias: Tensor | None
    down: Tensor  # (H, I)
    down_bias: Tensor | None


class PackedStep(Step):
    """Next-token hidden states from a persistent cache (the contract is :class:`.step.Step`).

    Keys and values of each layer lie in a buffer, (n, k, columns, d). All rows are at the same column: prompts
    are padded on the left, and a bias of -inf hides the padding and the columns to come. The last rows take the places
    of those that leave.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        config = model.config
        self.dtype = dtype
        self.n_q, self.n_kv = config.num_attention_heads, config.num_key_value_heads
        self.d = getattr(config, "head_dim", None) or config.hidden_size // self.n_q
        # x / sqrt(mean x^2 + eps) is sqrt(H) x / hypot(|x|, sqrt(H eps)); sqrt(H) goes into the weights.
        self.root = sqrt(config.hidden_size)
        self.floor = torch.tensor(self.root * sqrt(config.rms_norm_eps), device=model.device)
        self.rotary = model.model.rotary_emb
        # (d,) feature 0, d/2, 1, d/2 + 1, ...: the pairs of a rotation become neighbours.
        self.order = torch.arange(self.d, device=model.device).view(2, -1).t().reshape(-1)
        self.embed = model.model.embed_tokens.weight.to(dtype)
        self.norm = (model.model.norm.weight * self.root).to(dtype)
        self.layers = [self._pack(layer) for layer in model.model.layers]
        self.rope = torch.empty(0, self.d // 2, dtype=torch.complex64, device=model.device)

    def _pack(self, layer: Any) -> _Layer:
        attention, mlp, order = layer.self_attn, layer.mlp, self.order
        scale = attention.scaling
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]

        def heads(projection: Any, factor: float) -> tuple[Tensor, Tensor | None]:
            weight = projection.weight.view(-1, self.d, projection.in_features)[:, order].flatten(0, 1) * factor
            bias = None if projection.bias is None else projection.bias.view(-1, self.d)[:, order].flatten() * factor
            return weight, bias

        def packed(parts: Sequence[tuple[Tensor, Tensor | None]], norm: Any = None) -> tuple[Tensor, Tensor | None]:
            weight = torch.cat([w for w, _ in parts])  # (out, in)
            if norm is not None:
                weight = weight * (norm.weight * self.root)
            biases = [b for _, b in parts if b is not None]
            return weight.to(self.dtype).contiguous(), torch.cat(biases).to(self.dtype) if biases else None

        def plain(projection: Any) -> tuple[Tensor, Tensor | None]:
            return projection.weight, projection.bias

        value = plain(attention.v_proj)
        if attention.q_proj.bias is not None and value[1] is None:
            raise ValueError("a query with bias and a value without one")
        query = heads(attention.q_proj, 1.0 if norms[0] is not None else scale)
        qk_norm = None
        if norms[0] is not None:
            q, k = (norm.weight[order] for norm in norms)  # type: ignore[union-attr]
            qk_norm = torch.cat([(q * scale).expand(self.n_q, -1), k.expand(self.n_kv, -1)]).to(self.dtype)
            self.qk_eps = norms[0].variance_epsilon
        return _Layer(
            *packed([query, heads(attention.k_proj, 1.0), value], layer.input_layernorm),
            qk_norm,
            *packed([plain(attention.o_proj)]),
            *packed([plain(mlp.gate_proj), plain(mlp.up_proj)], layer.post_attention_layernorm),
            *packed([plain(mlp.down_proj)]),
        )

    # -- the contract ------------------------------------------------------------------------------------------------

    def slots(self, n: int, columns: int) -> int:
        """All ``n`` rows are written at the same time."""
        return n

    def start(self, ids: Tensor, attention: Tensor, source: Tensor, columns: int) -> Tensor:
        """Run the distinct prompts ``ids`` (U, S), padded on the left; row i of the batch continues ``source[i]``.

        Returns the last hidden states, (N, H).
        """
        (u, s), n = ids.shape, len(source)
        self._extend_rope(s + GROWTH)
        hidden, prompts, hides, last = self._prefill(ids, attention)
        self.n, self.position = n, last[source]  # (n,) of the latest token
        self.shared = s >= SHARED_PROMPT and n >= 2 * u
        self.column = 0 if self.shared else s
        width = self.column + GROWTH
        self.bias = torch.full((n, self.n_kv, 1, width), -torch.inf, dtype=self.dtype, device=ids.device)
        if self.shared:
            self.group, self.prompts, self.hides = source.clone(), prompts, hides  # (n,), (U, k, S, d), (U, S)
            self._regroup()
            self.cache = [prompt.new_zeros(n, self.n_kv, width, self.d) for prompt in prompts]
        else:
            # (index_select, here and elsewhere: it moves whole rows, where brackets move single numbers.)
            self.cache = [pad(prompt, (0, 0, 0, GROWTH)).index_select(0, source) for prompt in prompts]
            self.bias[..., :s] = hides[source][:, None, None]
        return hidden[source]

    def _prefill(self, ids: Tensor, attention: Tensor) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """Run prompts ``ids`` (U, S).

        Returns their last hidden states (U, H), keys and values of each layer (U, k, S, d), a bias (U, S) that hides
        the padding, and the position (U,) of the last token, -1 for an empty prompt.
        """
        u, s = ids.shape
        mask = attention.bool()
        positions = (attention.cumsum(1) - 1).clamp(min=0)  # (U, S)
        causal = torch.ones(s, s, dtype=torch.bool, device=ids.device).tril()
        # A padded position looks at itself: a softmax over nothing would be NaN.
        visible = (causal & mask[:, None] | torch.eye(s, dtype=torch.bool, device=ids.device))[:, None]
        x = self.embed[ids.flatten()]  # (U S, H)
        rotation = self.rope[positions.flatten()][:, None]
        prompts = []
        for layer in self.layers:
            qkv = self._project(layer, x, rotation).view(u, s, -1, self.d).transpose(1, 2)  # (U, q + k + v, S, d)
            q, k, v = qkv.split((self.n_q, self.n_kv, self.n_kv), 1)
            attended = scaled_dot_product_attention(
                q, k, v, visible, scale=1.0, enable_gqa=self.n_q != self.n_kv
            )  # (U, q, S, d)
            x = self._finish(layer, x, attended.transpose(1, 2).reshape(u * s, -1))
            prompts += [k, v]
        hides = torch.zeros(u, s, dtype=self.dtype, device=ids.device).masked_fill_(~mask, -torch.inf)
        return self._normed(x.view(u, s, -1)[:, -1]).mul_(self.norm), prompts, hides, attention.sum(1) - 1

    def refill(self, places: Tensor, ids: Tensor, attention: Tensor) -> None:
        raise NotImplementedError("all rows start at once: on a CPU refilling does not pay")

    def advance(self, tokens: Tensor) -> Tensor:
        """Append ``tokens`` (n,) to the rows and return their last hidden states, (n, H)."""
        self._make_room()
        self.bias[: self.n, ..., self.column] = 0
        self.position += 1
        rotation = self.rope[self.position][:, None]  # (n, 1, d/2)
        x = self.embed[tokens]  # (n, H)
        heads = (self.n_q, self.n_kv, self.n_kv)
        for i, layer in enumerate(self.layers):
            qkv = self._project(layer, x, rotation)  # (n, q + k + v, d)
            _, k, v = qkv.split(heads, 1)
            self.cache[2 * i][: self.n, :, self.column] = k
            self.cache[2 * i + 1][: self.n, :, self.column] = v
            q = qkv[:, : self.n_q].reshape(self.n * self.n_kv, -1, self.d)  # (n k, q / k, d)
            x = self._finish(layer, x, self._attend(i, q).view(self.n, -1))
        self.column += 1
        return self._normed(x).mul_(self.norm)

    def keep(self, order: Tensor) -> None:
        """Continue with the rows ``order`` (n',): row i is now what row ``order[i]`` was."""
        self.n = len(order)
        self.position = self.position[order]
        move_rows((*self.cache, self.bias), order)
        if self.shared:
            self.group = self.group[order]
            self._regroup()

    # -- parts of a layer --------------------------------------------------------------------------------------------

    def _project(self, layer: _Layer, x: Tensor, rotation: Tensor) -> Tensor:
        """(n, q + k + v, d) of ``x`` (n, H); queries and keys rotated by ``rotation`` (n, 1, d/2)."""
        qkv = product_by_rows(self._normed(x), layer.qkv, layer.qkv_bias).view(len(x), -1, self.d)
        qk = qkv[:, : self.n_q + self.n_kv]
        if layer.qk_norm is not None:
            qk.copy_(rms_norm(qk, (self.d,), None, self.qk_eps) * layer.qk_norm)
        if self.dtype.itemsize >= 4:
            torch.view_as_complex(qk.unflatten(-1, (-1, 2))).mul_(rotation)
        else:
            qk.copy_(
                torch.view_as_real(torch.view_as_complex(qk.float().unflatten(-1, (-1, 2))) * rotation).flatten(-2)
            )
        return qkv

    def _attend(self, i: int, q: Tensor) -> Tensor:
        """Attention of one new token per row, (n k, q / k, d) like ``q``."""
        keys, values = (buffer[: self.n].flatten(0, 1) for buffer in self.cache[2 * i : 2 * i + 2])  # (n k, columns, d)
        scores = torch.baddbmm(self.bias[: self.n].flatten(0, 1), q, keys.transpose(1, 2))  # (n k, q / k, columns)
        if self.shared:
            return self._attend_shared(i, q, scores, values)
        return torch.bmm(scores.softmax(-1), values)

    def _attend_shared(self, i: int, q: Tensor, own: Tensor, values: Tensor) -> Tensor:
        """The same in two parts: over the group's prompt, for all its rows at once, and over the row's own tokens."""
        prompt_keys, prompt_values = (half.flatten(0, 1) for half in self.prompts[2 * i : 2 * i + 2])  # (U k, S, d)
        s = prompt_keys.shape[1]
        hides = self.hides[:, None, None].expand(-1, self.n_kv, 1, -1).flatten(0, 1)  # (U k, 1, S)
        scores = torch.baddbmm(hides, self._fold(q), prompt_keys.transpose(1, 2))  # (U k, G q / k, S)
        weights = torch.cat([self._unfold(scores), own], -1).softmax(-1)  # (n k, q / k, S + columns)
        common = torch.bmm(self._fold(weights[..., :s]), prompt_values)
        return self._unfold(common).baddbmm_(weights[..., s:], values)

    def _regroup(self) -> None:
        """Assign each row a place in its group; every group has as many places as the largest group has rows."""
        alive, member = self.group.unique(return_inverse=True)
        if len(alive) < len(self.hides):
            self.prompts = [prompt[alive] for prompt in self.prompts]
            self.hides, self.group = self.hides[alive], member
        count = torch.bincount(member, minlength=len(alive))
        size = int(count.max())
        order = member.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(self.n, device=order.device) - (count.cumsum(0) - count)[member[order]]
        self.size, self.place = size, member * size + rank  # (n,)

    def _fold(self, x: Tensor) -> Tensor:
        """(n k, r, f) by row to (U k, G r, f) by group."""
        f, u = x.shape[-1], len(self.hides)
        rows = x.reshape(self.n, -1)
        places = rows.new_zeros(u * self.size, rows.shape[1])
        places[self.place] = rows
        return places.view(u, self.size, self.n_kv, -1, f).transpose(1, 2).reshape(u * self.n_kv, -1, f)

    def _unfold(self, x: Tensor) -> Tensor:
        """(U k, G r, f) by group to (n k, r, f) by row."""
        f, u = x.shape[-1], len(self.hides)
        places = x.view(u, self.n_kv, self.size, -1, f).transpose(1, 2).reshape(u * self.size, -1)
        return places[self.place].view(self.n * self.n_kv, -1, f)

    def _finish(self, layer: _Layer, x: Tensor, attended: Tensor) -> Tensor:
        """What follows the attention: its output projection and the feed-forward block, each with its residual."""
        x = _added(x, attended, layer.out, layer.out_bias)
        gate, up = product_by_rows(self._normed(x), layer.up, layer.up_bias).chunk(2, -1)
        return _added(x, silu(gate).mul_(up), layer.down, layer.down_bias)

    def _normed(self, x: Tensor) -> Tensor:
        """RMS norm of ``x`` (n, H) without its factors."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return (x / torch.hypot(norm, self.floor)).to(self.dtype)

    def _extend_rope(self, length: int) -> None:
        """Extend ``rope`` (positions, d/2) complex64, the rotation at each position, to at least ``length``."""
        if len(self.rope) < length:
            positions = torch.arange(length, device=self.embed.device)[None]
            cos, sin = self.rotary(self.embed.new_empty(1, dtype=torch.float32), positions)  # (1, length, d)
            self.rope = torch.complex(cos[0, :, : self.d // 2], sin[0, :, : self.d // 2])

    def _make_room(self) -> None:
        """Widen the buffers when all of their columns are taken."""
        width = self.bias.shape[-1]
        if self.column < width:
            return
        more = wider(width) - width
        for i, buffer in enumerate(self.cache):
            self.cache[i] = widened(buffer[: self.n], more)
            del buffer  # so that it is freed before the next one grows
        self.bias = pad(self.bias[: self.n], (0, more), value=-torch.inf)
        self._extend_rope(width + more + (self.prompts[0].shape[2] if self.shared else 0))


def _added(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``residual + x @ weight.T + bias``."""
    if x.is_cuda:  # in one kernel
        out = torch.addmm(residual, x, weight.t())
        return out if bias is None else out.add_(bias)
    return product_by_rows(x, weight, bias).add_(residual)
