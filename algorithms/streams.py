"""Random streams of training. Each is a pure function of (seed, stream, counters).

So a checkpoint keeps the counters alone, and the numbers do not depend on what else has been drawn in between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PROBLEMS, SAMPLES, SHUFFLE, PREDICT = range(4)


def stream(seed: int, *key: int) -> np.random.SeedSequence:
    """The seed sequence of a stream, one of the numbers above, at given counters."""
    return np.random.SeedSequence([seed, *key])


def problem_seeds(seed: int, timestep: int, n: int, group_size: int) -> list[int]:
    """The ``reset`` seeds of ``n`` episodes after ``timestep`` completions; a group shares one."""
    first = int(stream(seed, PROBLEMS).generate_state(1)[0]) + timestep // group_size
    return [first + i // group_size for i in range(n)]


def sample_seeds(seed: int, stream_id: int, timestep: int, n: int) -> list[int]:
    """``n`` seeds of sampling, for the completions after ``timestep``."""
    return [int(word) for word in stream(seed, stream_id, timestep).generate_state(n, np.uint64)]


def shuffled(seed: int, n_rollouts: int, epoch: int, n: int) -> NDArray[np.int64]:
    """(n,) the order of the rows of a rollout in an epoch."""
    return np.random.default_rng(stream(seed, SHUFFLE, n_rollouts, epoch)).permutation(n)
