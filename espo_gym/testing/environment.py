"""``check_text_env``: what every text environment promises, beyond what Gymnasium's own checker looks at."""

from __future__ import annotations

import copy
import math
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Text
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import VectorEnv

from espo_gym.environment import as_vector_env
from espo_gym.envs import Verdict

from .failure import Fault, run

SEEDS = (0, 7, 3, 2**40)
PLAIN = "5"
UNICODE = ("∑ 日本語 \N{GRINNING FACE}", "a\N{COMBINING ACUTE ACCENT}\u202eright to left", "\0\x1b[31m\r\n", "\ud800")
HUGE = 200_000  # characters
SECONDS = 20.0
MAX_TURNS = 1000


class Subject:
    """An environment from which any number of fresh ones can be made."""

    def __init__(self, env: str | gym.Env, kwargs: dict[str, Any]) -> None:
        self.made_from, self.kwargs = env, kwargs
        self.first = self.make()

    def make(self, **more: Any) -> gym.Env:
        """A new environment, with ``more`` arguments."""
        if isinstance(self.made_from, str):
            return gym.make(self.made_from, disable_env_checker=True, **(self.kwargs | more))
        return copy.deepcopy(self.made_from)

    def vector(self, num_envs: int) -> VectorEnv:
        """In the form in which training uses it."""
        if isinstance(self.made_from, str) and gym.spec(self.made_from).vector_entry_point is not None:
            return gym.make_vec(self.made_from, num_envs=num_envs, **self.kwargs)
        return as_vector_env(self.make(), num_envs)


def check_text_env(env: str | gym.Env, **kwargs: Any) -> None:
    """Check that an environment of text is one that policies can be trained in.

    ``env`` is an id, with ``kwargs`` for ``gymnasium.make``, or an environment, which must survive ``copy.deepcopy``.

    Raises:
        ConformanceError: naming the first check that failed. The checks, in this order, are the functions of
            :data:`CHECKS`; the docstring of each says what must hold.
    """
    if not isinstance(env, str | gym.Env):
        raise TypeError(f"an id or a gymnasium.Env is needed, not {env!r}")
    run(env if isinstance(env, str) else type(env.unwrapped).__name__, CHECKS, Subject(env, kwargs))


def spaces(subject: Subject) -> None:
    """Observations and actions are ``gymnasium.spaces.Text``; every observation lies in its space, and so does every
    text that a model may write.
    """
    env = subject.make()
    for name in ("observation_space", "action_space"):
        space = getattr(env, name)
        if not isinstance(space, Text):
            raise Fault(f"{name} is {space}", "espo_gym.envs.UnicodeText, which admits any string")
    for seed in SEEDS:
        observation, _ = env.reset(seed=seed)
        if not env.observation_space.contains(observation):
            raise Fault(f"{observation!r} after reset(seed={seed})", "the observation space, or reset")
        if not env.observation_space.contains(observation := env.step(PLAIN)[0]):
            raise Fault(f"{observation!r} after a step", "step: at the end of an episode, too, there is an observation")
    for action in (PLAIN, "", *UNICODE):
        if not env.action_space.contains(action):
            raise Fault(f"the action {action!r} is outside of {env.action_space}", "espo_gym.envs.UnicodeText")


def global_random_state(subject: Subject) -> None:
    """Constructing, resetting and stepping an environment does not touch the global generators of random, NumPy and
    torch.
    """
    before = _generators()
    env = subject.make()
    env.reset(seed=1)
    env.step(PLAIN)
    env.reset()
    after = _generators()
    if used := [name for name in before if after.get(name) != before[name]]:
        raise Fault(f"the state of {', '.join(used)} has changed", "np_random of the environment is there instead")


def _generators() -> dict[str, Any]:
    found: dict[str, Any] = {"random": random.getstate(), "numpy.random": _plain(np.random.get_state())}
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    return found


def seeds(subject: Subject) -> None:
    """``reset(seed=s)`` is a pure function of s: in any order, after any episode, in a fresh environment."""
    env = subject.make()
    first = {seed: _plain(env.reset(seed=seed)) for seed in SEEDS}
    env.step(PLAIN)
    env.reset()
    for seed in (*reversed(SEEDS), SEEDS[0]):
        if _plain(env.reset(seed=seed)) != first[seed]:
            raise Fault(f"reset(seed={seed}) gives something else the second time", "reset: state between episodes")
    for seed in SEEDS:
        if _plain(subject.make().reset(seed=seed)) != first[seed]:
            raise Fault(f"reset(seed={seed}) differs in a fresh environment", "reset: state between episodes")


def determinism(subject: Subject) -> None:
    """Equal seeds and equal actions give equal episodes: observations, rewards, ends and infos."""
    for seed in SEEDS[:2]:
        for action in (PLAIN, "", UNICODE[0]):
            one, two = _episode(subject.make(), seed, action), _episode(subject.make(), seed, action)
            if one != two:
                at = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), "the number")
                raise Fault(f"step {at} of reset(seed={seed}) and {action!r} differs", "step: an unseeded generator")


def rewards(subject: Subject) -> None:
    """Rewards are finite numbers, ends are bool, a verdict is a ``Verdict``, and every episode ends."""
    env = subject.make()
    env.reset(seed=1)
    for _ in range(MAX_TURNS):
        _, reward, terminated, truncated, info = env.step(PLAIN)
        if isinstance(reward, bool) or not math.isfinite(reward):
            raise Fault(f"the reward {reward!r}", "step")
        if not isinstance(terminated, bool | np.bool_) or not isinstance(truncated, bool | np.bool_):
            raise Fault(f"terminated={terminated!r}, truncated={truncated!r}", "step")
        if "verdict" in info and not isinstance(info["verdict"], Verdict):
            raise Fault(f"info['verdict'] is {info['verdict']!r}", "espo_gym.envs.Verdict")
        if terminated or truncated:
            return
    raise Fault(f"no end after {MAX_TURNS} steps", "step: terminated")


def any_action(subject: Subject) -> None:
    """Nothing that a model may write raises an exception or takes long: empty text, any Unicode, 200,000 characters."""
    for action in ("", *UNICODE, "9" * HUGE, "(" * HUGE, "x " * (HUGE // 2)):
        shown = repr(action[:20]) + (f" ... ({len(action)} characters)" if len(action) > 20 else "")
        env, began = subject.make(), time.perf_counter()
        env.reset(seed=1)
        try:
            env.step(action)
        except Exception as error:
            found = f"{type(error).__name__} after the action {shown}: {error}"
            raise Fault(found, "step and the verifier") from error
        if (seconds := time.perf_counter() - began) > SECONDS:
            raise Fault(f"{seconds:.0f} seconds for the action {shown}", "a deadline for the verifier")


def groups(subject: Subject) -> None:
    """In the vector form, ``reset(seed=[s, s, t, t])`` gives each group the same problem, which is how groups are
    sampled.
    """
    env, single = subject.vector(6), subject.make()
    asked = [7, 7, 7, 3, 3, 3]
    observations, _ = env.reset(seed=asked)  # type: ignore[arg-type]  # Gymnasium's annotation forgets the lists
    for seed, observation in zip(asked, observations, strict=True):
        if observation != (expected := single.reset(seed=seed)[0]):
            raise Fault(f"{observation!r} in a row with seed {seed}, not {expected!r}", "reset of the vector form")


def vector_form(subject: Subject) -> None:
    """Row i of the vector form gives what a single environment gives for its seed and its action."""
    asked, actions = [0, 7, 7, 3], [PLAIN, "", "1", UNICODE[0]]
    vector, singles = subject.vector(len(asked)), [subject.make() for _ in asked]
    shown, _ = vector.reset(seed=asked)  # type: ignore[arg-type]
    _rows("observation after reset", shown, [env.reset(seed=s)[0] for env, s in zip(singles, asked, strict=True)])
    answers = _right_answers(subject, asked)
    for round_of_actions in (actions, answers):
        shown, rewards, terminated, truncated, _ = vector.step(round_of_actions)
        steps = [env.step(action) for env, action in zip(singles, round_of_actions, strict=True)]
        _rows("reward", rewards, [step[1] for step in steps])
        _rows("terminated", terminated, [step[2] for step in steps])
        _rows("truncated", truncated, [step[3] for step in steps])
        going = [i for i, step in enumerate(steps) if not (step[2] or step[3])]
        _rows("observation", [shown[i] for i in going], [steps[i][0] for i in going])
        if len(going) < len(asked):  # what follows an end depends on the kind of autoreset
            shown, _ = vector.reset(seed=asked)  # type: ignore[arg-type]
            for env, seed in zip(singles, asked, strict=True):
                env.reset(seed=seed)


def _right_answers(subject: Subject, asked: Sequence[int]) -> list[str]:
    """The reference answers, where the environment shows them, so that a reward other than 0 is compared too."""
    env, found = subject.make(), []
    for seed in asked:
        problem = env.reset(seed=seed)[1].get("problem")
        found.append(str(getattr(problem, "answer", PLAIN)))
    return found


def _rows(what: str, vector: Sequence[Any], single: Sequence[Any]) -> None:
    for i, (ours, theirs) in enumerate(zip(vector, single, strict=True)):
        if ours != theirs:
            look = "the vector form: vector_entry_point of the id, or what a subclass of TextEnv overrides"
            raise Fault(f"{what} {ours!r} in row {i}, where the single environment has {theirs!r}", look)


def render(subject: Subject) -> None:
    """If "ansi" is among the render modes, ``render()`` returns text, before the first step and after the last."""
    if "ansi" not in subject.first.metadata.get("render_modes", ()):
        return
    env = subject.make(render_mode="ansi")
    if env.render_mode is None:
        return  # made by the caller without one
    env.reset(seed=1)
    for when in ("after reset", "after a step"):
        if not isinstance(shown := env.render(), str) or not shown:
            raise Fault(f"{shown!r} {when}", "render")
        if when == "after reset":
            env.step(PLAIN)


def gymnasium_checker(subject: Subject) -> None:
    """``gymnasium.utils.env_checker.check_env`` reports nothing: no error, no warning."""
    env = subject.make().unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=env.spec is None)
        except Exception as error:
            raise Fault(f"{type(error).__name__}: {error}", "the traceback above") from error
    if caught:
        found = re.sub(r"\x1b\[\d*m", "", str(caught[0].message))  # it comes in colour
        raise Fault(found, "the warning's own words")


def _episode(env: gym.Env, seed: int, action: str) -> list[Any]:
    steps: list[Any] = [_plain(env.reset(seed=seed))]
    for _ in range(MAX_TURNS):
        step = env.step(action)
        steps.append(_plain(step))
        if step[2] or step[3]:
            break
    return steps


def _plain(value: Any) -> Any:
    """``value`` as something that ``==`` compares; of a verdict not the seconds that it took."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, _plain(value.tolist())]
    if is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in fields(value) if not (isinstance(value, Verdict) and f.name == "seconds")]
        return [type(value).__name__, *(_plain(getattr(value, name)) for name in names)]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


CHECKS: tuple[Callable[[Subject], None], ...] = (
    spaces,
    global_random_state,
    seeds,
    determinism,
    rewards,
    any_action,
    groups,
    vector_form,
    render,
    gymnasium_checker,
)
"""The checks in their order."""
