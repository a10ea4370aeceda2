"""One problem at a time: a task as a Gymnasium environment."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar

import gymnasium
from gymnasium.error import ResetNeeded

from .checks import check_choice
from .episode import (
    ACTION_SPACE,
    OBSERVATION_SPACE,
    Episode,
    check_options,
    check_seed,
    check_split,
    draw_seed,
    judge,
    reset_infos,
    step_infos,
)
from .registration import make_task
from .task import Task


class TextEnv(gymnasium.Env[str, str]):
    """A task as an environment: the observation is a prompt, the action a completion, the reward 1 for a right answer.

    A single-turn episode ends with its first step, where the observation is empty. In a multi-turn one (``max_turns``
    of the task) a wrong answer is followed by feedback until the turns are used up.

    ``reset(seed=s)`` gives the problem of seed s, always the same one; without a seed the next is drawn from
    ``np_random``. ``reset(options={"split": "test"})`` takes this episode's problem from another split.

    Info of ``reset``: ``problem``, ``split``, ``seed``. Info of ``step``: ``verdict``, ``is_success``, ``has_verdict``
    and ``turn`` (from 1). Where the verifier failed ``has_verdict`` is false: the reward 0 then says nothing.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # type: ignore[misc]

    def __init__(
        self,
        task: str | type[Task] | Task,
        split: str | None = None,
        render_mode: str | None = None,
        **task_kwargs: Any,
    ) -> None:
        """``task`` is a task, its class, ``"module:Class"`` or a registered id; ``task_kwargs`` go to its constructor.

        ``split`` is one of the task's, by default its first. Raises ValueError for an unknown split or render mode.
        """
        self.task = make_task(task, **task_kwargs)
        self.split = check_split(self.task, split)
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.observation_space = deepcopy(OBSERVATION_SPACE)
        self.action_space = deepcopy(ACTION_SPACE)
        self._episode: Episode | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        split, _ = check_options(self.task, self.split, options)
        if seed is not None:
            seed = check_seed(seed)
        super().reset(seed=seed)
        if seed is None:
            seed = draw_seed(self.task, split, self.np_random)
        problem = self.task.problem(split, seed)
        self._episode = Episode(self.task, split, seed, problem, problem.prompt)
        return self._episode.observation, _only(reset_infos([self._episode]))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Raises ResetNeeded before the first reset and after an episode's end, TypeError if not given a ``str``."""
        episode = self._episode
        if episode is None or episode.done:
            raise ResetNeeded(
                f"call reset() before step(): {'no episode has begun' if not episode else 'it has ended'}"
            )
        if not isinstance(action, str):
            raise TypeError(f"the action must be the completion, a str, not {type(action).__name__}")
        [verdict] = judge(self.task, [action], [episode.problem])
        reward = episode.advance(action, verdict)
        return episode.observation, reward, episode.done, False, _only(step_infos([episode]))

    def render(self) -> str | None:
        """The episode so far as text, with ``render_mode="ansi"``; raises ResetNeeded before the first reset."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                'nothing is rendered without a render mode: make the environment with render_mode="ansi"'
            )
            return None
        if self._episode is None:
            raise ResetNeeded("call reset() before render()")
        return self._episode.render()


def _only(infos: dict[str, list[Any]]) -> dict[str, Any]:
    """The infos of the one episode that there is."""
    return {key: value for key, [value] in infos.items()}
