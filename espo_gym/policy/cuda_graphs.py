"""The packed step for a GPU: shapes that never change, replayed as CUDA graphs, and rows that are refilled.

A decoding step is about a hundred small kernels, and Python takes longer to launch them than the GPU to run them. A
CUDA graph launches all of them at once, but for one shape and one place in memory. So the buffers are as wide as they
will ever need to be, the number of rows is rounded up to a power of two, and the columns are a ring: every row writes
into the same column, each reads those that are its own, and a row that begins when others are half way takes the
columns just behind. Since a key is already rotated by its position, the order of the columns has no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .packed_step import PackedStep, move_rows

SLOTS = 256
"""At most this many rows are written at the same time. The others wait until some have finished."""

MEMORY = 0.5
"""Share of the GPU's free memory that keys and values may take."""


class GraphStep(PackedStep):
    """On a GPU each number of rows is captured once. Elsewhere the same operations run one by one, for testing."""

    def slots(self, n: int, columns: int) -> int:
        slots = min(n, SLOTS)
        if self.embed.is_cuda:
            row = 2 * len(self.layers) * self.n_kv * columns * self.d * self.dtype.itemsize
            slots = min(slots, int(MEMORY * torch.cuda.mem_get_info(self.embed.device)[0] / row))
        return max(slots, 1)

    def start(self, ids: Tensor, attention: Tensor, source: Tensor, columns: int) -> Tensor:
        n, device = len(source), ids.device
        rows = 1 << (n - 1).bit_length()
        shape = (rows, self.n_kv, columns, self.d)
        self.cache = [torch.zeros(shape, dtype=self.dtype, device=device) for _ in range(2 * len(self.layers))]
        self.bias = torch.full((rows, self.n_kv, 1, columns), -torch.inf, dtype=self.dtype, device=device)
        # Everything that a graph reads or writes keeps its place; rows from n on are padding.
        self.tokens, self.position = (torch.zeros(rows, dtype=torch.long, device=device) for _ in range(2))
        self.next_column = torch.zeros(1, dtype=torch.long, device=device)
        self.out = torch.empty(rows, self.embed.shape[1], dtype=self.dtype, device=device)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._extend_rope(columns)
        self.n, self.column = n, ids.shape[1]
        return self._enter(torch.arange(n, device=device), ids, attention, source)

    def refill(self, places: Tensor, ids: Tensor, attention: Tensor) -> None:
        if ids.shape[1]:
            self._enter(places, ids, attention, torch.arange(len(places), device=places.device))
        else:  # nothing comes before the token that follows
            self.bias[places], self.position[places] = -torch.inf, -1

    def _enter(self, places: Tensor, ids: Tensor, attention: Tensor, source: Tensor) -> Tensor:
        """Put the prompts into the columns just behind the next one; their last hidden states, (m, H)."""
        hidden, prompts, hides, last = self._prefill(ids, attention)
        s, width = ids.shape[1], self.bias.shape[-1]
        columns = torch.arange(self.column - s, self.column, device=ids.device) % width  # (s,)
        at, heads = places[:, None, None], torch.arange(self.n_kv, device=ids.device)[:, None]
        for buffer, prompt in zip(self.cache, prompts, strict=True):
            buffer[at, heads, columns] = prompt[source]
        self.bias[places] = -torch.inf
        self.bias[at, heads, 0, columns] = hides[source][:, None]
        self.position[places] = last[source]
        return hidden[source]

    def advance(self, tokens: Tensor) -> Tensor:
        rows = 1 << (self.n - 1).bit_length()
        self.tokens[: self.n] = tokens
        self.next_column.fill_(self.column % self.bias.shape[-1])
        if not tokens.is_cuda:
            self._step(rows)
        else:
            with torch.cuda.device(tokens.device):
                if rows not in self.graphs:
                    self.graphs[rows] = self._capture(rows)
                self.graphs[rows].replay()
        self.column += 1
        return self.out[: self.n]

    def keep(self, order: Tensor) -> None:
        move_rows((*self.cache, self.bias, self.position), order)
        self.n = len(order)

    def _step(self, rows: int) -> None:
        """One token more in each of the first ``rows`` rows; no shape and no place in memory depends on the data."""
        self.bias[:rows].index_fill_(3, self.next_column, 0)
        position = self.position[:rows].add_(1)
        rotation = self.rope[position.clamp(max=len(self.rope) - 1)][
            :, None
        ]  # the positions of padding rows keep growing
        x = self.embed[self.tokens[:rows]]  # (rows, H)
        bias = self.bias[:rows].flatten(0, 1)  # (rows k, 1, columns)
        for i, layer in enumerate(self.layers):
            qkv = self._project(layer, x, rotation)
            q, k, v = qkv.split((self.n_q, self.n_kv, self.n_kv), 1)
            keys, values = (buffer[:rows] for buffer in self.cache[2 * i : 2 * i + 2])
            keys.index_copy_(2, self.next_column, k[:, :, None])
            values.index_copy_(2, self.next_column, v[:, :, None])
            q = q.reshape(rows * self.n_kv, -1, self.d)  # (rows k, q / k, d)
            weights = torch.baddbmm(bias, q, keys.flatten(0, 1).transpose(1, 2)).softmax(-1)
            x = self._finish(layer, x, torch.bmm(weights, values.flatten(0, 1)).view(rows, -1))
        self.out[:rows] = self._normed(x).mul_(self.norm)

    def _capture(self, rows: int) -> torch.cuda.CUDAGraph:
        position = self.position.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up at their first call, which cannot be captured
            self._step(rows)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values())).pool() if self.graphs else None
        with torch.cuda.graph(graph, pool=pool):
            self._step(rows)
        self.position.copy_(position)  # all else that has been written is written again by the replay
        return graph
