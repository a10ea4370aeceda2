"""Policy optimizers: one file an algorithm, and the file is its formula."""

if __name__ != "espo_gym.algorithms":
    raise ImportError("this package is espo_gym.algorithms; import it under that name")

from .base import PolicyOptimizer, loss_function
from .espo import ESPO, espo_loss
from .grpo import GRPO, grpo_loss
from .gspo import GSPO, gspo_loss
from .loss import LossBatch, LossOutput, Objective
from .ppo import PPO, ppo_loss

ALGORITHMS: dict[str, type[PolicyOptimizer]] = {c.__name__.lower(): c for c in (ESPO, GRPO, GSPO, PPO)}
"""Every algorithm by the name that the command line knows it by. The only registry."""

__all__ = [
    "ALGORITHMS",
    "ESPO",
    "GRPO",
    "GSPO",
    "PPO",
    "LossBatch",
    "LossOutput",
    "Objective",
    "PolicyOptimizer",
    "espo_loss",
    "grpo_loss",
    "gspo_loss",
    "loss_function",
    "ppo_loss",
]
