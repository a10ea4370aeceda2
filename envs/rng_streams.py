"""Thousands of random streams, seeded and drawn from in one go: the same numbers as numpy's, only faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

WORD = 2**32
HALF = np.uint64(32)
FEW = 16
"""With fewer seeds the arrays do not pay off."""


def seeded(family: int, seeds: Sequence[int]) -> list[np.random.PCG64]:
    """``PCG64(SeedSequence((family, seed)))`` for each seed. ``family`` and the seeds must be below 2**64."""
    if len(seeds) < FEW:
        return [np.random.PCG64(np.random.SeedSequence((family, seed))) for seed in seeds]
    words = np.array(seeds, np.uint64)
    family_words = [family] if family < WORD else [family % WORD, family >> 32]
    entropy = [np.full(len(seeds), word, np.uint32) for word in family_words]
    states = _seed_states([*entropy, words.astype(np.uint32), (words >> HALF).astype(np.uint32)])
    return [np.random.PCG64(_State(state)) for state in states]  # type: ignore[arg-type]  # missing in numpy's stubs


def integers(
    bits: Sequence[np.random.PCG64], low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """What ``Generator.integers(low[k], high[k])`` draws from each of N fresh streams, for k = 0, 1, ..., K-1.

    Args:
        bits: N streams from which nothing has been drawn.
        low: (K,) smallest value of each integer.
        high: (K,) one above the largest value; there must be 2 to 2**32 possible values.

    Returns:
        The integers, (N, K) int64, and which rows are valid, (N,) bool. In an invalid row, one in millions, numpy would
        have rejected a word and drawn another; its values must not be used.
    """
    span = (high - low).astype(np.uint64)
    raw = np.concatenate([one.random_raw((len(low) + 1) // 2) for one in bits])
    words = raw.astype("<u8", copy=False).view("<u4").reshape(len(bits), -1)[:, : len(low)]  # lower half first
    # Lemire, arXiv:1805.10941: the number is the upper half, and is rejected if the lower half is too small.
    scaled = words * span
    valid = scaled.astype(np.uint32) >= WORD % span
    return low + (scaled >> HALF).view(np.int64), np.all(valid, axis=1)


class _State(ISeedSequence):
    """Gives a generator the state that was computed for it."""

    def __init__(self, state: npt.NDArray[np.uint64]) -> None:
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> npt.NDArray[np.uint64]:
        return self._state


def _seed_states(entropy: list[npt.NDArray[np.uint32]]) -> npt.NDArray[np.uint64]:
    """``SeedSequence.generate_state(4, np.uint64)`` for N seeds at once, (N, 4).

    ``entropy`` is at most 4 arrays (N,) of uint32, the words of each seed. Missing words are 0, which makes no
    difference to SeedSequence. The algorithm is O'Neill's seed_seq_fe, which numpy promises not to change.
    """
    entropy = entropy + [np.zeros_like(entropy[0])] * (4 - len(entropy))
    hash_in = _hash(0x43B0D7E5, 0x931E8875)
    pool = [hash_in(word) for word in entropy]
    for i in range(4):
        for j in range(4):
            if i != j:
                mixed = pool[j] * np.uint32(0xCA01F9DD) - hash_in(pool[i]) * np.uint32(0x4973F715)
                pool[j] = mixed ^ (mixed >> np.uint32(16))
    hash_out = _hash(0x8B51F9DD, 0x58F38DED)
    halves = [hash_out(pool[i % 4]).astype(np.uint64) for i in range(8)]
    return np.stack([halves[2 * k] | halves[2 * k + 1] << HALF for k in range(4)], 1)


def _hash(constant: int, factor: int) -> Any:
    """A hash function for uint32 arrays whose constant changes with each call."""

    def hashed(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        nonlocal constant
        words = words ^ np.uint32(constant)
        constant = constant * factor % WORD
        words = words * np.uint32(constant)
        return words ^ (words >> np.uint32(16))

    return hashed
