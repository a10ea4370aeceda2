"""Math problems as Gymnasium text environments with verifiable rewards. Importing it loads no torch."""

if __name__ != "espo_gym.envs":
    raise ImportError("this package is espo_gym.envs; import it under that name")

from .registration import make_task, register_task, task_arguments
from .spaces import UnicodeText
from .task import Problem, ProceduralTask, Task, any_thread
from .tasks.addition import Addition, scratchpad
from .tasks.chain import ChainArithmetic
from .tasks.countdown import Countdown
from .tasks.dataset import AIME, GSM8K, MATH500, Dataset
from .tasks.linear_equation import LinearEquation
from .tasks.modular import ModularArithmetic
from .tasks.retry import Retry
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

register_task("espo_gym/Addition-v0", "espo_gym.envs.tasks.addition:Addition")
register_task("espo_gym/ChainArithmetic-v0", "espo_gym.envs.tasks.chain:ChainArithmetic")
register_task("espo_gym/Countdown-v0", "espo_gym.envs.tasks.countdown:Countdown")
register_task("espo_gym/LinearEquation-v0", "espo_gym.envs.tasks.linear_equation:LinearEquation")
register_task("espo_gym/ModularArithmetic-v0", "espo_gym.envs.tasks.modular:ModularArithmetic")
register_task("espo_gym/JSONL-v0", "espo_gym.envs.tasks.dataset:Dataset")
register_task("espo_gym/GSM8K-v0", "espo_gym.envs.tasks.dataset:GSM8K")
register_task("espo_gym/MATH500-v0", "espo_gym.envs.tasks.dataset:MATH500")
register_task("espo_gym/AIME-v0", "espo_gym.envs.tasks.dataset:AIME")
register_task("espo_gym/Retry-v0", "espo_gym.envs.tasks.retry:Retry")
