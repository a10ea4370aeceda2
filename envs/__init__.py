"""Math problems as Gymnasium text environments with verifiable rewards. Loads no torch."""

if __name__ != "espo_gym.envs":
    raise ImportError("this package is espo_gym.envs; import it under that name")

from .verifier import Verdict, verify

__all__ = ["Verdict", "verify"]
