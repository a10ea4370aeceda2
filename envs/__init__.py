"""Math problems as Gymnasium text environments with verifiable rewards. Importing it loads no torch."""

if __name__ != "espo_gym.envs":
    raise ImportError("this package is espo_gym.envs; import it under that name")

from .addition import Addition, scratchpad
from .chain import ChainArithmetic
from .countdown import Countdown
from .dataset import AIME, GSM8K, MATH500, Dataset
from .linear_equation import LinearEquation
from .modular import ModularArithmetic
from .registration import make_task, register_task, task_arguments
from .retry import Retry
from .spaces import UnicodeText
from .task import Problem, ProceduralTask, Task, any_thread
from .text_env import TextEnv
from .vector_env import MathVectorEnv
from .verifier import Verdict, verify

__all__ = [
    "AIME",
    "GSM8K",
    "MATH500",
    "Addition",
    "ChainArithmetic",
    "Countdown",
    "Dataset",
    "LinearEquation",
    "MathVectorEnv",
    "ModularArithmetic",
    "Problem",
    "ProceduralTask",
    "Retry",
    "Task",
    "TextEnv",
    "UnicodeText",
    "Verdict",
    "any_thread",
    "make_task",
    "register_task",
    "scratchpad",
    "task_arguments",
    "verify",
]

register_task("espo_gym/Addition-v0", "espo_gym.envs.addition:Addition")
register_task("espo_gym/ChainArithmetic-v0", "espo_gym.envs.chain:ChainArithmetic")
register_task("espo_gym/Countdown-v0", "espo_gym.envs.countdown:Countdown")
register_task("espo_gym/LinearEquation-v0", "espo_gym.envs.linear_equation:LinearEquation")
register_task("espo_gym/ModularArithmetic-v0", "espo_gym.envs.modular:ModularArithmetic")
register_task("espo_gym/JSONL-v0", "espo_gym.envs.dataset:Dataset")
register_task("espo_gym/GSM8K-v0", "espo_gym.envs.dataset:GSM8K")
register_task("espo_gym/MATH500-v0", "espo_gym.envs.dataset:MATH500")
register_task("espo_gym/AIME-v0", "espo_gym.envs.dataset:AIME")
register_task("espo_gym/Retry-v0", "espo_gym.envs.retry:Retry")
