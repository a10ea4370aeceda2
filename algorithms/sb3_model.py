"""What Stable-Baselines3's callbacks and logger ask of a model, so that they work unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import VectorEnv

from espo_gym.conversation import Conversation, speak
from espo_gym.environment import Environment, as_vector_env, task_of

from .streams import PREDICT, sample_seeds
from .training_state import TrainingState

if TYPE_CHECKING:
    from stable_baselines3.common.callbacks import BaseCallback, CallbackList
    from stable_baselines3.common.logger import Logger

    from espo_gym.evaluation import Evaluation

    MaybeCallback = BaseCallback | Sequence[BaseCallback] | Callable[..., bool] | None


@dataclass(kw_only=True, eq=False)
class SB3Model(TrainingState):
    """The interface of a Stable-Baselines3 model, apart from ``learn``, ``save`` and ``load``."""

    def predict(
        self,
        observation: str | Sequence[str],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Completions of observations: ``(text, state)`` for one, ``(object array of texts, state)`` for several.

        A completion that was cut off is returned as an empty text, as it is played in training.

        Args:
            observation: what the environment says: a prompt or, with ``state``, its reply to the last completion.
            state: of the previous call, to go on with its episodes. It holds the token ids of each row, so the policy
                reads the whole conversation as in training. One that was cut off, or fills the context, has no ids
                left: the row stays silent until its episode starts anew.
            episode_start: (N,) bool: rows that begin a new episode in spite of ``state``.
            deterministic: take the most likely tokens.

        Raises:
            ValueError: ``state`` has another number of rows than ``observation``.
        """
        observations = [observation] if isinstance(observation, str) else list(observation)
        n = len(observations)
        contexts = [None] * n if state is None else list(state)
        if len(contexts) != n:
            raise ValueError(f"the state is of {len(contexts)} episodes, but there are {n} observations")
        starts = np.broadcast_to(False if episode_start is None else np.asarray(episode_start, dtype=bool), n)
        system_prompt = getattr(task_of(self.env), "system_prompt", None)
        rows = []
        for text, context, start in zip(observations, contexts, starts, strict=True):
            if context is None or start:
                rows.append(Conversation(self.policy.encode_prompt(text, system_prompt)))
            else:
                rows.append(Conversation(list(context), truncated=not context))
                if context:
                    rows[-1].hear(self.policy, text)
        sampling = replace(self.sampling, temperature=0.0) if deterministic else self.sampling
        seeds = sample_seeds(self.seed, PREDICT, self.n_predictions, n)
        self.n_predictions += not deterministic
        texts = np.full(n, "", dtype=object)
        if going := [i for i, row in enumerate(rows) if not row.truncated]:
            texts[going] = speak(self.policy, [rows[i] for i in going], [seeds[i] for i in going], sampling)
        after = tuple([] if row.truncated else row.context for row in rows)
        return (texts[0] if isinstance(observation, str) else texts), after

    def evaluate(
        self,
        split: str | None = "test",
        *,
        k: int = 8,
        n_problems: int = 256,
        env: Environment | None = None,
        seed: int = 0,
        details: bool = False,
    ) -> Evaluation:
        """Greedy accuracy, avg@k, pass@k and maj@k on held-out problems; see :func:`espo_gym.evaluation.evaluate`.

        ``env`` is another environment to evaluate in. Training is not affected in any way.
        """
        from espo_gym.evaluation import evaluate

        return evaluate(
            self.policy,
            self.env if env is None else as_vector_env(env, self.rollout_size),
            split=split,
            n_problems=n_problems,
            k=k,
            sampling=self.sampling,
            seed=seed,
            details=details,
        )

    def get_env(self) -> VectorEnv[Any, Any, Any]:
        """The vector environment that episodes are played in."""
        return self.env

    def get_vec_normalize_env(self) -> None:
        """None: observations are text, so there is nothing to normalize."""

    @property
    def logger(self) -> Logger:
        """Where metrics are recorded; Stable-Baselines3's."""
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Record metrics in another logger, such as one made by ``stable_baselines3.common.logger.configure``."""
        self._logger = logger

    def record(self, metrics: Mapping[str, float]) -> None:
        """Record metrics of this rollout, by their keys in the logs."""
        for name, value in metrics.items():
            self.logger.record(name, value)

    def dump_logs(self) -> None:
        """Write what has been recorded since the last time."""
        self.record({"time/timesteps": self.num_timesteps, "time/rollouts": self.n_rollouts})
        self.logger.dump(self.num_timesteps)


def as_callback(callback: MaybeCallback, progress_bar: bool) -> CallbackList:
    """One callback of what ``learn`` was given, with Stable-Baselines3's progress bar if wanted."""
    from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, ProgressBarCallback

    if callback is None:
        callbacks: list[BaseCallback] = []
    elif isinstance(callback, BaseCallback):
        callbacks = [callback]
    elif callable(callback):
        callbacks = [ConvertCallback(callback)]
    else:
        callbacks = list(callback)
    return CallbackList([*callbacks, *([ProgressBarCallback()] if progress_bar else [])])


def give_back_terminal(callback: BaseCallback) -> None:
    """Close a progress bar or live table among ``callback``, or an error's message would be drawn into it."""
    from stable_baselines3.common.callbacks import CallbackList, ProgressBarCallback

    from espo_gym.live_table import LiveTable

    if isinstance(callback, CallbackList):
        for each in callback.callbacks:
            give_back_terminal(each)
    elif isinstance(callback, LiveTable) or (isinstance(callback, ProgressBarCallback) and hasattr(callback, "pbar")):
        callback.on_training_end()
