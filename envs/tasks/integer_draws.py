"""Tasks whose problems are determined by a few uniform integers, so that thousands can be drawn at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..rng_streams import WORD, integers, seeded
from ..task import Problem, ProceduralTask, split_of, stable_hash


class UniformIntegersTask(ProceduralTask):
    """A problem is made from a few independent uniform integers.

    A subclass defines ``ranges`` and ``make`` instead of ``sample``.
    """

    @property
    @abstractmethod
    def ranges(self) -> Sequence[tuple[int, int]]:
        """The range of each integer, in order: its smallest value, and one above its largest."""

    @abstractmethod
    def make(self, numbers: Sequence[int]) -> Problem | None:
        """The problem for these integers; None if they make none and others should be drawn."""

    def sample(self, rng: np.random.Generator) -> Problem:
        while True:
            problem = self.make([int(rng.integers(low, high)) for low, high in self.ranges])
            if problem is not None:
                return problem

    def problems(self, split: str, seeds: Sequence[int]) -> list[Problem]:
        ranges = self.ranges
        default = type(self).sample is UniformIntegersTask.sample and self._default_seeding
        if not default or not all(1 < high - low <= WORD for low, high in ranges):
            return super().problems(split, seeds)
        tries = 3 if split == "train" else 20  # 80% of the problems belong to train, 10% to each other split
        low, high = np.array([*ranges] * tries).T
        drawn, valid = integers(seeded(stable_hash(self.name), seeds), low, high)
        rows = drawn.reshape(len(seeds), tries, len(ranges))
        return [
            (self._of(split, first) or self._first_of(split, others) if ok else None) or self.problem(split, seed)
            for seed, first, others, ok in zip(seeds, rows[:, 0].tolist(), rows[:, 1:], valid.tolist(), strict=True)
        ]

    def _of(self, split: str, numbers: Sequence[int]) -> Problem | None:
        """The problem for these integers if it belongs to ``split``."""
        problem = self.make(numbers)
        return problem if problem is not None and split_of(self.name, problem.key) == split else None

    def _first_of(self, split: str, rows: npt.NDArray[np.int64]) -> Problem | None:
        return next((problem for numbers in rows.tolist() if (problem := self._of(split, numbers))), None)
