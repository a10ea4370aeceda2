"""Is the final answer of a completion equal to the reference? Usable alone: ``from espo_gym.envs import verify``."""

from .verdict import Verdict
from .verify import verify

__all__ = ["Verdict", "verify"]
