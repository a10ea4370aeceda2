"""Math problems as Gymnasium text environments, and policy optimizers that solve them behind one interface."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In the repository algorithms/ and envs/ lie beside this folder, in a wheel inside it (see pyproject.toml).
# This line lets a checkout run without being installed, and never another checkout's files.
if not Path(__file__).with_name("envs").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

from . import envs as envs  # registers the environments; loads no torch
from .extras import advice as _advice
from .plugins import register_environments as _register_environments

if TYPE_CHECKING:
    from .algorithms import (
        ALGORITHMS,
        CISPO,
        DAPO,
        ESPO,
        GMPO,
        GRPO,
        GSPO,
        PPO,
        RLOO,
        SAPO,
        DrGRPO,
        LossBatch,
        PolicyOptimizer,
        ReinforcePP,
    )
    from .callbacks import EvaluateCallback
    from .estimate import Estimate
    from .evaluation import Evaluation, evaluate
    from .experiments.compare import compare
    from .experiments.comparison import Comparison
    from .experiments.comparison_report import comparison_report
    from .experiments.setting import Entry
    from .experiments.tuning import tune
    from .live_table import LiveTable
    from .policy import Policy
    from .rollout import Rollout
    from .sampling import Sampling
    from .text_vec_env import TextVecEnv

__version__ = "0.1.0"

_register_environments()  # those of other packages

# Loaded at first use, so that environments and verifier alone need no torch.
_HOMES = {
    "algorithms": (
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
        "PolicyOptimizer",
        "ReinforcePP",
    ),
    "experiments.compare": ("compare",),
    "experiments.comparison": ("Comparison",),
    "experiments.comparison_report": ("comparison_report",),
    "experiments.setting": ("Entry",),
    "experiments.tuning": ("tune",),
    "callbacks": ("EvaluateCallback",),
    "estimate": ("Estimate",),
    "evaluation": ("Evaluation", "evaluate"),
    "live_table": ("LiveTable",),
    "policy": ("Policy",),
    "rollout": ("Rollout",),
    "sampling": ("Sampling",),
    "text_vec_env": ("TextVecEnv",),
}

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
    "Comparison",
    "DrGRPO",
    "Entry",
    "Estimate",
    "EvaluateCallback",
    "Evaluation",
    "LiveTable",
    "LossBatch",
    "Policy",
    "PolicyOptimizer",
    "ReinforcePP",
    "Rollout",
    "Sampling",
    "TextVecEnv",
    "compare",
    "comparison_report",
    "envs",
    "evaluate",
    "tune",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            try:
                return getattr(import_module(f"{__name__}.{module}"), name)
            except ModuleNotFoundError as error:
                if said := _advice(error):
                    raise ImportError(said) from error
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
