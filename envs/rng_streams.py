"""Random streams by the thousand: numpy's own, number for number, but seeded and drawn from together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

WORD = 2**32
HALF = np.uint64(32)
FEW = 16
"""So few seeds are not worth the arrays."""


def seeded(family: int, seeds: Sequence[int]) -> list[np.random.PCG64]:
    """``PCG64(SeedSequence((family, seed)))`` for each seed; both are of at most 64 bits."""
    if len(seeds) < FEW:
        return [np.random.PCG64(np.random.SeedSequence((family, seed))) for seed in seeds]
    words = np.array(seeds, np.uint64)
    family_words = [family] if family < WORD else [family % WORD, family >> 32]
    entropy = [np.full(len(seeds), word, np.uint32) for word in family_words]
    states = _seed_states([*entropy, words.astype(np.uint32), (words >> HALF).astype(np.uint32)])
    return [np.random.PCG64(_State(state)) for state in states]  # type: ignore[arg-type]  # numpy's stubs forget it


def integers(bits: Sequence[np.random.PCG64], low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What ``Generator.integers(low[k], high[k])`` draws from each of N fresh streams, for one k after the other.

    Args:
        low: (K,) the least value of each integer.
        high: (K,) one above its largest; 2 to 2**32 values are possible.

    Returns:
        (N, K) int64, and (N,) bool: these are the integers. Where it is false a word would have had to be drawn again,
        once in millions, and the row means nothing.
    """
    span = (high - low).astype(np.uint64)
    raw = np.concatenate([one.random_raw((len(low) + 1) // 2) for one in bits])
    words = raw.astype("<u8", copy=False).view("<u4").reshape(len(bits), -1)[:, : len(low)]  # lower half first
    scaled = words * span  # Lemire, arXiv:1805.10941: the upper half is the number, unless the lower one is too small
    return low + (scaled >> HALF).view(np.int64), (scaled.astype(np.uint32) >= WORD % span).all(1)


class _State(ISeedSequence):
    """Hands a generator the state that has been worked out for it."""

    def __init__(self, state: np.ndarray) -> None:
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self._state


def _seed_states(entropy: list[np.ndarray]) -> np.ndarray:
    """``SeedSequence.generate_state(4, np.uint64)`` of N seeds at a time, (N, 4).

    ``entropy`` is at most 4 arrays (N,) of uint32, the words of each seed. Missing words are 0: to SeedSequence it is
    all the same. The algorithm is O'Neill's seed_seq_fe, which numpy promises not to change.
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
    """A hash function of arrays of uint32 that is another one at each call."""

    def hashed(words: np.ndarray) -> np.ndarray:
        nonlocal constant
        words = words ^ np.uint32(constant)
        constant = constant * factor % WORD
        words = words * np.uint32(constant)
        return words ^ (words >> np.uint32(16))

    return hashed
