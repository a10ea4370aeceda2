"""Math problems as Gymnasium text environments with verifiable rewards.

===================  ==================================================================================================
``task``             ``Task`` and ``ProceduralTask``, from which every environment is derived
``tasks/``           the tasks that come with the package, one file each
``text_env``         ``TextEnv``: a task as a Gymnasium environment
``vector_env``       ``MathVectorEnv``: a task as a vector environment, with one verifier call per step
``registration``     ids for ``gymnasium.make``, and ``make_task``
``verdict``          ``Verdict``: the outcome of verifying one completion
``verifier/``        ``verify``: is the final answer of a completion equal to the reference?
the rest             what the two environments share: ``episode``, ``verification``, ``reset_arguments``, ``spaces``,
                     ``checks``; and ``rng_streams``, which seeds thousands of problems at once
===================  ==================================================================================================

Importing this package loads neither torch nor the verifier, which is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

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
from .verdict import Verdict

if TYPE_CHECKING:
    from .verifier import verify

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


def __getattr__(name: str) -> Any:
    if name == "verify":
        from .verifier import verify

        globals()["verify"] = verify
        return verify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
