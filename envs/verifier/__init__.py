"""Is the final answer of a completion equal to the reference? Usable alone: ``from espo_gym.envs import verify``."""

from .extract import extract_answer
from .verdict import Verdict
from .verify import close, verify

__all__ = ["Verdict", "close", "extract_answer", "verify"]
