"""Controls: what is no algorithm of its own, but shows which part of ESPO an effect is due to.

They inherit, unlike the algorithms: a control is its parent but for one thing, and this is how to see it.
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
"""Number of the random stream; those of the optimizers are 0 to 3."""


@dataclass(kw_only=True, eq=False)
class RandomGroups(ESPO):
    """ESPO with groups of the same sizes, whose tokens are drawn by lot: a function of seed and rollout alone."""

    def part(self, entropies: Tensor, mask: Tensor) -> Tensor:
        rollouts = getattr(self, "n_rollouts", 0)  # a formula has no counters
        lots = np.random.default_rng(stream(self.seed, GROUPS, rollouts)).random(tuple(entropies.shape))
        return super().part(torch.from_numpy(lots).to(entropies), mask)


@dataclass(kw_only=True, eq=False)
class GSPOWithESPOWeights(GSPO):
    """GSPO in which a token counts for as much as in ESPO: the uncertain fifth of a response for half of it."""

    def annotate(self, rollout: Rollout) -> Rollout:
        return ESPO.formula().annotate(rollout)  # the entropy groups that the weights are made of

    def token_weights(self, batch: LossBatch) -> Tensor:
        return ESPO.formula().token_weights(batch)  # (B, T)
