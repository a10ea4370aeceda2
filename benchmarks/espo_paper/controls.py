"""Controls: what is no algorithm of its own, but shows which part of ESPO an effect is due to.

They inherit, unlike the algorithms: a control is its parent but for one thing, and this is how to see it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from espo_gym.algorithms import ESPO, GSPO, LossBatch
from espo_gym.rollout import Rollout

GROUPS = 100
"""Number of the random stream; those of the optimizers are 0 to 3."""


@dataclass(kw_only=True, eq=False)
class RandomGroups(ESPO):
    """ESPO with groups of the same sizes, whose tokens are drawn by lot: a function of seed and rollout alone."""

    def part(self, entropies: Tensor, mask: Tensor) -> Tensor:
        rollouts = getattr(self, "n_rollouts", 0)  # a formula has no counters
        lots = np.random.default_rng(self._stream(GROUPS, rollouts)).random(tuple(entropies.shape))
        return super().part(torch.from_numpy(lots).to(entropies), mask)


@dataclass(kw_only=True, eq=False)
class GSPOWithESPOWeights(GSPO):
    """GSPO in which a token counts for as much as in ESPO: the uncertain fifth of a response for half of it."""

    def advantages(self, rollout: Rollout) -> Tensor:
        return ESPO.formula().advantages(rollout)  # (N,) those of GSPO; forms the entropy groups besides

    def token_weights(self, batch: LossBatch) -> Tensor:
        return ESPO.formula().token_weights(batch)  # (B, T)
