"""Math problems as Gymnasium text environments with verifiable rewards. Importing it loads no torch."""

if __name__ != "espo_gym.envs":
    raise ImportError("this package is espo_gym.envs; import it under that name")

from .addition import Addition, scratchpad
from .countdown import Countdown
from .registration import make_task, register_task
from .spaces import UnicodeText
from .task import Problem, ProceduralTask, Task
from .text_env import TextEnv
from .vector_env import MathVectorEnv
from .verifier import Verdict, verify

__all__ = [
    "Addition",
    "Countdown",
    "MathVectorEnv",
    "Problem",
    "ProceduralTask",
    "Task",
    "TextEnv",
    "UnicodeText",
    "Verdict",
    "make_task",
    "register_task",
    "scratchpad",
    "verify",
]

register_task("espo_gym/Addition-v0", "espo_gym.envs.addition:Addition")
register_task("espo_gym/Countdown-v0", "espo_gym.envs.countdown:Countdown")
