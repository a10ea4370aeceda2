"""Checks that an algorithm, an environment or a verifier of your own keeps the promises that the others rely on.

``check_algorithm(cls)``, ``check_text_env(env)`` and ``check_verifier(function)`` return None or raise one
:class:`ConformanceError` that names what was found, what was expected and where to look. docs/conformance.md explains
their use, and has the measured bias of every estimator on problems small enough to be solved exactly
(:mod:`espo_gym.testing.exact`).
"""

from .algorithm import check_algorithm
from .bandit import Bandit, tiny_policy
from .environment import check_text_env
from .failure import ConformanceError
from .verifier import check_verifier

__all__ = ["Bandit", "ConformanceError", "check_algorithm", "check_text_env", "check_verifier", "tiny_policy"]
