"""A task as a Gymnasium environment: one problem at a time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar

import gymnasium
from gymnasium.error import ResetNeeded

from .checks import check_choice
from .episode import Episode, reset_infos, step_infos
from .registration import make_task
from .reset_arguments import Split, check_options, check_seed, draw_seed
from .spaces import ACTION_SPACE, OBSERVATION_SPACE
from .task import Task
from .verification import verify_completions


class TextEnv(gymnasium.Env[str, str]):
    """A task as an environment: the observation is a prompt, the action a completion, the reward 1 for a right answer.

    A single-turn episode ends after the first step, with an empty observation. In a multi-turn one (the task's
    ``max_turns``) a wrong answer is followed by feedback until no turn is left.

    ``reset(seed=s)`` asks the problem with seed s, always the same one; without a seed the next seed is drawn from
    ``np_random``. ``reset(options={"split": "test"})`` takes this episode's problem from another split.

    ``reset`` puts ``problem``, ``split`` and ``seed`` into the info, ``step`` puts ``verdict``, ``is_success``,
    ``has_verdict`` and ``turn`` (from 1). If the verifier failed, ``has_verdict`` is false and the reward of 0 carries
    no information.

    ```python
    >>> env = TextEnv("espo_gym/Addition-v0", digits=2)
    >>> prompt, info = env.reset(seed=7)
    >>> prompt, info["problem"].answer
    ('18+64=', '82')
    >>> observation, reward, terminated, truncated, info = env.step("The answer is 82.")
    >>> reward, terminated, info["verdict"].status
    (1.0, True, 'correct')

    ```
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # type: ignore[misc]
    split = Split()

    def __init__(
        self,
        task: str | type[Task] | Task,
        split: str | None = None,
        render_mode: str | None = None,
        **task_kwargs: Any,
    ) -> None:
        """Make the environment.

        Args:
            task: a ``Task``, a ``Task`` subclass, ``"module:Class"`` or a registered id.
            split: one of the task's splits; by default its first.
            render_mode: ``"ansi"`` to have ``render`` return the episode as text.
            task_kwargs: arguments of the task's constructor.

        Raises ValueError for an unknown split or render mode, and what ``make_task`` and the constructor raise.
        """
        self.task = make_task(task, **task_kwargs)
        self.split = split
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.observation_space = deepcopy(OBSERVATION_SPACE)
        self.action_space = deepcopy(ACTION_SPACE)
        self._episode: Episode | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode; returns the prompt and the info. Raises TypeError or ValueError for invalid arguments."""
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
        """Verify a completion; returns feedback or an empty observation, the reward, and whether the episode ended.

        Raises ResetNeeded before the first reset and after the end of an episode, TypeError unless given a ``str``.
        """
        episode = self._episode
        if episode is None or episode.done:
            raise ResetNeeded(
                f"call reset() before step(): {'no episode has begun' if not episode else 'it has ended'}"
            )
        if not isinstance(action, str):
            raise TypeError(f"the action must be the completion, a str, not {type(action).__name__}")
        [verdict] = verify_completions(self.task, [action], [episode.problem])
        reward = episode.advance(action, verdict)
        return episode.observation, reward, episode.done, False, _only(step_infos([episode]))

    def render(self) -> str | None:
        """The episode so far as text if ``render_mode="ansi"``. Raises ResetNeeded before the first reset."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                'nothing is rendered without a render mode: make the environment with render_mode="ansi"'
            )
            return None
        if self._episode is None:
            raise ResetNeeded("call reset() before render()")
        return self._episode.render()


def _only(infos: dict[str, list[Any]]) -> dict[str, Any]:
    """The infos of a single episode."""
    return {key: value for key, [value] in infos.items()}
