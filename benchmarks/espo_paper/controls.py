"""Controls: variants that show which part of ESPO an effect is due to.

Unlike the algorithms they inherit from one another: a control differs from its parent in one thing, and this shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from espo_gym.algorithms import ESPO, GSPO, LossBatch
from espo_gym.algorithms.streams import stream
from espo_gym.rollout import Rollout

GROUPS = 100
"""Index of the random stream; the optimizers use 0 to 3."""


@dataclass(kw_only=True, eq=False)
class RandomGroups(ESPO):
    """ESPO with groups of the same sizes, but random tokens: a function of seed and rollout alone."""

    def part(self, entropies: Tensor, mask: Tensor) -> Tensor:
        """(N, T) long: the groups of ESPO for random numbers in place of ``entropies`` (N, T)."""
        rollouts = getattr(self, "n_rollouts", 0)  # a formula has no counters
        random = np.random.default_rng(stream(self.seed, GROUPS, rollouts)).random(tuple(entropies.shape))
        return super().part(torch.from_numpy(random).to(entropies), mask)


@dataclass(kw_only=True, eq=False)
class GSPOWithESPOWeights(GSPO):
    """GSPO with the token weights of ESPO: the uncertain fifth of a completion has half of its weight."""

    def annotate(self, rollout: Rollout) -> Rollout:
        return ESPO.formula().annotate(rollout)  # the entropy groups that the weights are made of

    def token_weights(self, batch: LossBatch) -> Tensor:
        return ESPO.formula().token_weights(batch)  # (B, T)
