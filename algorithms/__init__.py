"""Policy optimizers: one file an algorithm, and the file is its formula."""

if __name__ != "espo_gym.algorithms":
    raise ImportError("this package is espo_gym.algorithms; import it under that name")

from .base import PolicyOptimizer, loss_function
from .cispo import CISPO, cispo_loss
from .dapo import DAPO, dapo_loss
from .dr_grpo import DrGRPO, dr_grpo_loss
from .espo import ESPO, espo_loss
from .gmpo import GMPO, gmpo_loss
from .grpo import GRPO, grpo_loss
from .gspo import GSPO, gspo_loss
from .loss import LossBatch, LossOutput, Objective
from .ppo import PPO, ppo_loss
from .reinforce_pp import ReinforcePP, reinforce_pp_loss
from .rloo import RLOO, rloo_loss
from .sapo import SAPO, sapo_loss

ALGORITHMS: dict[str, type[PolicyOptimizer]] = {
    "espo": ESPO,
    "grpo": GRPO,
    "gspo": GSPO,
    "ppo": PPO,
    "dapo": DAPO,
    "dr_grpo": DrGRPO,
    "cispo": CISPO,
    "gmpo": GMPO,
    "sapo": SAPO,
    "rloo": RLOO,
    "reinforce_pp": ReinforcePP,
}
"""Every algorithm by the name that the command line knows it by. The only registry."""

__all__ = [
    "ALGORITHMS",
    "CISPO",
    "DAPO",
    "ESPO",
    "GMPO",
    "GRPO",
    "GSPO",
    "PPO",
    "RLOO",
    "SAPO",
    "DrGRPO",
    "LossBatch",
    "LossOutput",
    "Objective",
    "PolicyOptimizer",
    "ReinforcePP",
    "cispo_loss",
    "dapo_loss",
    "dr_grpo_loss",
    "espo_loss",
    "gmpo_loss",
    "grpo_loss",
    "gspo_loss",
    "loss_function",
    "ppo_loss",
    "reinforce_pp_loss",
    "rloo_loss",
    "sapo_loss",
]
