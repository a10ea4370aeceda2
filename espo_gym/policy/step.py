"""Decoding steps: from one token of each row to what the next one follows from, over a cache that stays in place.

A :class:`Step` holds the keys and values of the rows that are being written. There are three:

- :class:`~.decoding.ModelStep` runs the model's own forward pass, for any model;
- :class:`~.packed_step.PackedStep` runs the layer of Llama, Qwen2, Qwen3 and Mistral from packed weights, several times
  as fast, and :class:`~.cuda_graphs.GraphStep` does so on a GPU. Both are checked against the model before first use.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Step(Protocol):
    """What the next token of N rows follows from: hidden states (N, H) or, without a plain head, logits (N, V)."""

    def slots(self, n: int, columns: int) -> int:
        """How many of ``n`` rows, each of at most ``columns`` tokens, are written at the same time."""

    def start(self, ids: Tensor, attention: Tensor, source: Tensor, columns: int) -> Tensor:
        """Run the distinct prompts ``ids`` (U, S), padded on the left; row i of N continues prompt ``source[i]``."""

    def advance(self, tokens: Tensor) -> Tensor:
        """Append ``tokens`` (n,), one per row."""

    def keep(self, order: Tensor) -> None:
        """Continue with fewer rows, (n',): row i is now what row ``order[i]`` was."""

    def refill(self, places: Tensor, ids: Tensor, attention: Tensor) -> None:
        """Replace the finished rows ``places`` (m,) by new prompts ``ids`` (m, s), padded on the left."""
