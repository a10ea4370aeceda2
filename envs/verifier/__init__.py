"""Is the final answer of a completion equal to the reference? Usable alone: ``from espo_gym.envs import verify``."""

from ..verdict import Verdict
from .audit import Audit, Disagreement, audit
from .extract import extract_answer
from .verify import close, verify

__all__ = ["Audit", "Disagreement", "Verdict", "audit", "close", "extract_answer", "verify"]
