"""A task as a native Gymnasium vector environment: many problems at a time, all verified in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from .checks import check_choice, check_int
from .episode import Episode, reset_infos, step_infos
from .registration import make_task
from .reset_arguments import MAX_SEED, Split, check_options, check_seed, draw_seed
from .spaces import ACTION_SPACE, OBSERVATION_SPACE
from .task import Task
from .verification import verify_completions

Texts = tuple[str, ...]
Seeds = SupportsIndex | Sequence[SupportsIndex | None] | npt.NDArray[np.integer[Any]]
"""One seed, from which the others count up, or one per sub-environment."""
Result = tuple[Texts, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]


class MathVectorEnv(VectorEnv[Texts, Sequence[str], npt.NDArray[Any]]):
    """N environments for one task, with one verifier call per step. Each sub-environment behaves as a ``TextEnv``.

    Observations are a tuple of N ``str``, actions any sequence of N ``str``, rewards float64 (N,), terminations and
    truncations bool (N,). As in Gymnasium, infos are arrays (N,) with a mask ``_key`` (N,) for each ``key``.

    ``reset(seed=[7, 7, 8, 8])`` gives each sub-environment its seed, so a group of G on problem s is ``[s] * G``;
    ``reset(seed=7)`` means 7, 8, 9, ... The ``options`` may name a ``split``, and a ``reset_mask``, bool (N,), to reset
    only where it is true.

    ``autoreset_mode``: with ``"Disabled"``, the default, a finished sub-environment stays finished until the next
    reset. Its actions are neither read nor verified (reward 0, no second end, no info), so that the others can continue
    with further turns. With ``"SameStep"`` it is reset at once, and the end of the old episode is in ``final_obs`` and
    ``final_info``. Gymnasium's ``"NextStep"`` is refused: it would ignore every second completion of a single-turn
    task.

    ```python
    >>> envs = MathVectorEnv("espo_gym/Addition-v0", num_envs=4, digits=2)
    >>> prompts, infos = envs.reset(seed=[7, 7, 8, 8])
    >>> prompts
    ('18+64=', '18+64=', '47+45=', '47+45=')
    >>> _, rewards, *_ = envs.step(["82", "72", "92", "The sum is \\boxed{92}."])
    >>> rewards
    array([1., 0., 1., 1.])

    ```
    """

    split = Split()

    def __init__(
        self,
        task: str | type[Task] | Task,
        num_envs: int = 1,
        split: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.DISABLED,
        render_mode: str | None = None,
        **task_kwargs: Any,
    ) -> None:
        """Make N = ``num_envs`` environments.

        Args:
            num_envs: number of sub-environments, at least 1.
            autoreset_mode: ``"Disabled"`` or ``"SameStep"``, see the class.
            task, split, render_mode, task_kwargs: as in ``TextEnv``.

        Raises TypeError or ValueError for a ``num_envs`` out of range, an unknown split, render mode or autoreset mode,
        and what ``make_task`` and the task's constructor raise.
        """
        self.task = make_task(task, **task_kwargs)
        self.num_envs = check_int("num_envs", num_envs, 1, 2**20)
        self.split = split
        self.render_mode = None if render_mode is None else check_choice("render_mode", render_mode, ["ansi"])
        modes = {mode.value: mode for mode in (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP)}
        mode = autoreset_mode.value if isinstance(autoreset_mode, AutoresetMode) else autoreset_mode
        if mode == AutoresetMode.NEXT_STEP.value:
            raise ValueError(f"autoreset_mode {mode!r} would ignore every second completion; use one of {list(modes)}")
        self._same_step = modes[check_choice("autoreset_mode", mode, modes)] is AutoresetMode.SAME_STEP
        self.metadata = {"render_modes": ["ansi"], "render_fps": 1, "autoreset_mode": modes[mode]}
        self.single_observation_space = deepcopy(OBSERVATION_SPACE)
        self.single_action_space = deepcopy(ACTION_SPACE)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._episodes: list[Episode | None] = [None] * self.num_envs
        self._randoms: list[int | np.random.Generator | None] = [None] * self.num_envs

    def reset(
        self, *, seed: Seeds | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Texts, dict[str, Any]]:
        """Start episodes; returns the prompts and the infos. Equal seeds share one problem, which is made once.

        Raises ValueError or TypeError for invalid seeds, an invalid mask, an unknown split or an unknown option.
        """
        split, mask = check_options(self.task, self.split, options, ("split", "reset_mask"))
        seeds = self._seeds(seed)
        chosen = self._chosen(mask)
        begun = self._begin(chosen, split, seeds)
        return self._observations(self._episodes), self._infos(chosen, reset_infos(begun))

    def step(self, actions: Sequence[str]) -> Result:
        """Verify N completions; returns observations, rewards, terminations, truncations and infos.

        Raises ResetNeeded before the first reset and if every sub-environment has finished, TypeError or ValueError
        unless given N ``str``.
        """
        return self.begin_step(actions)()

    def begin_step(self, actions: Sequence[str]) -> Callable[[], Result]:
        """``step`` in two halves: this one checks and raises, the function that it returns verifies.

        The function is bound to the current episodes. With autoreset disabled and single-turn episodes it may run in
        another thread while ``reset`` starts the next episodes here, as :func:`espo_gym.collect.collect` does.
        """
        episodes = [self._running(i) for i in range(self.num_envs)]
        running = [i for i, episode in enumerate(episodes) if not episode.done]
        if not running:
            raise ResetNeeded("call reset() before step(): every sub-environment has finished")
        actions = self._completions(actions)
        return lambda: self._finish_step(episodes, running, [actions[i] for i in running])

    def _finish_step(self, episodes: list[Episode], running: list[int], completions: list[str]) -> Result:
        played = [episodes[i] for i in running]
        verdicts = verify_completions(self.task, completions, [episode.problem for episode in played])
        rewards = np.zeros(self.num_envs)
        rewards[running] = [e.advance(c, v) for e, c, v in zip(played, completions, verdicts, strict=True)]
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        terminated[running] = [episode.done for episode in played]  # an end is said once, or wrappers count it again
        if self._same_step and terminated.any():
            infos = self._restart(episodes, running)
        else:
            infos = self._infos(running, step_infos(played))
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        return self._observations(episodes), rewards, terminated, truncated, infos

    def _restart(self, episodes: list[Episode], running: list[int]) -> dict[str, Any]:
        """Replace the episodes that have ended by new ones; returns the infos of the step."""
        ended = [i for i in running if episodes[i].done]
        others = [i for i in running if not episodes[i].done]
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[ended] = True
        final_obs = np.full(self.num_envs, None, dtype=object)
        final_obs[ended] = ""
        final_info = self._infos(ended, step_infos([episodes[i] for i in ended]))
        begun = self._begin(ended, self.split, [None] * self.num_envs)
        for i, episode in zip(ended, begun, strict=True):
            episodes[i] = episode
        return {
            "final_obs": final_obs,
            "final_info": final_info,
            "_final_obs": mask,
            "_final_info": mask.copy(),
            **self._infos(others, step_infos([episodes[i] for i in others])),
            **self._infos(ended, reset_infos(begun)),
        }

    def render(self) -> tuple[str, ...] | None:
        """The episodes so far as texts if ``render_mode="ansi"``. Raises ResetNeeded before the first reset."""
        return None if self.render_mode is None else tuple(self._running(i).render() for i in range(self.num_envs))

    def _begin(self, chosen: Sequence[int], split: str, seeds: Sequence[int | None]) -> list[Episode]:
        for i in chosen:
            if seeds[i] is not None:
                self._randoms[i] = seeds[i]
        drawn = [(draw_seed(self.task, split, self._random(i)) if (s := seeds[i]) is None else s) for i in chosen]
        distinct = list(dict.fromkeys(drawn))
        made = dict(zip(distinct, self.task.problems(split, distinct), strict=True))
        problems = [made[seed] for seed in drawn]
        begun = [Episode(self.task, split, s, p, p.prompt) for s, p in zip(drawn, problems, strict=True)]
        for i, episode in zip(chosen, begun, strict=True):
            self._episodes[i] = episode
        return begun

    def _random(self, i: int) -> np.random.Generator:
        """The generator of sub-environment i's next seeds. Equal seeds lead to equal next seeds: groups stay groups."""
        random = self._randoms[i]
        if not isinstance(random, np.random.Generator):
            random = self._randoms[i] = seeding.np_random(random)[0]
        return random

    def _running(self, i: int) -> Episode:
        episode = self._episodes[i]
        if episode is None:
            raise ResetNeeded(f"call reset() first: sub-environment {i} has no episode yet")
        return episode

    @staticmethod
    def _observations(episodes: Sequence[Episode | None]) -> Texts:
        return tuple([episode.observation if episode is not None else "" for episode in episodes])

    def _seeds(self, seed: Seeds | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if not isinstance(seed, Sequence | np.ndarray):
            first = check_seed(seed)
            super().reset(seed=first)
            return [check_seed(first + i) for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds were given for {self.num_envs} sub-environments")
        seeds: Any = seed
        if set(map(type, seeds)) == {int} and min(seeds) >= 0 and max(seeds) <= MAX_SEED:  # one check for all
            return [*seeds]
        return [None if one is None else check_seed(one) for one in seeds]

    def _chosen(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self.num_envs))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask must be a numpy array of {self.num_envs} bool, not {mask!r}")
        if not mask.any():
            raise ValueError("reset_mask must be true somewhere")
        return [int(i) for i in np.flatnonzero(mask)]

    def _completions(self, actions: Sequence[str]) -> Sequence[str]:
        if isinstance(actions, str) or not all(isinstance(action, str) for action in actions):
            raise TypeError(f"the actions must be a sequence of {self.num_envs} completions, each a str")
        if len(actions) != self.num_envs:
            raise ValueError(f"{len(actions)} completions were given to {self.num_envs} sub-environments")
        return actions

    def _infos(self, rows: Sequence[int], columns: dict[str, list[Any]]) -> dict[str, Any]:
        """The infos of the sub-environments ``rows`` in Gymnasium's format: an array (N,) and its mask for each key."""
        infos: dict[str, Any] = {}
        for key, column in columns.items() if rows else ():
            kind = type(column[0]) if type(column[0]) in (bool, int) else object
            values = np.zeros(self.num_envs, kind) if kind is not object else np.full(self.num_envs, None, object)
            values[rows] = np.fromiter(column, kind, len(column))
            mask = np.zeros(self.num_envs, dtype=np.bool_)
            mask[rows] = True
            infos[key], infos[f"_{key}"] = values, mask
        return infos
