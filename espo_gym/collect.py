"""Play episodes: environment and policy in turn, until every row is done, into one :class:`Rollout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from espo_gym.envs import MathVectorEnv, Verdict

from .environment import task_of
from .policy import Policy
from .policy.sampler import left_pad
from .rollout import Rollout
from .sampling import Sampling

StepResult = tuple[Sequence[str], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]
"""What a step returns: observations, rewards, terminations, truncations, infos."""

TRUNCATED = Verdict("no_answer", reason="truncated")


@dataclass
class _Episode:
    prompt: str
    prompt_ids: list[int]
    ids: list[int] = field(default_factory=list)  # what followed the prompt
    own: list[bool] = field(default_factory=list)  # chosen by the policy, not written by the environment
    logps: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    text: str = ""
    reward: float = 0.0
    verdict: Verdict = TRUNCATED
    truncated: bool = False
    done: bool = False

    @property
    def context(self) -> list[int]:
        return self.prompt_ids + self.ids

    def write(self, ids: list[int], logps: list[float] | None = None, entropies: list[float] | None = None) -> None:
        """Append tokens: the policy's with their scores, the environment's without."""
        self.ids += ids
        self.own += [logps is not None] * len(ids)
        self.logps += logps or [0.0] * len(ids)
        self.entropies += entropies or [0.0] * len(ids)


def collect(
    env: VectorEnv,
    policy: Policy,
    problem_seeds: Sequence[int],
    sample_seeds: Sequence[int],
    sampling: Sampling,
    *,
    options: dict[str, Any] | None = None,
) -> Rollout:
    """N episodes of ``env``.

    Args:
        env: any number of rows; it is reset as often as the N episodes need.
        problem_seeds: (N,) the ``reset`` seed of each episode. Equal seeds are one group.
        sample_seeds: (N,) the seed of each episode's sampling.
        options: passed to ``reset``, e.g. ``{"split": "test"}``.

    A completion that was cut off has not answered: the episode ends, with reward 0 and the verdict ``no_answer``, and
    the verifier is not asked about the fragment.
    """
    parts = [
        (problem_seeds[start : start + env.num_envs], sample_seeds[start : start + env.num_envs])
        for start in range(0, len(problem_seeds), env.num_envs)
    ]
    seconds = {"generate": 0.0, "verify": 0.0}
    if len(parts) > 1 and _overlaps(env):
        episodes = _play_overlapped(env, policy, parts, sampling, options, seconds)
    else:
        episodes = _play(env, policy, parts, sampling, options, seconds)
    return _rollout(episodes, problem_seeds, policy, seconds)


Part = tuple[Sequence[int], Sequence[int]]
"""Problem seeds and sample seeds of at most ``env.num_envs`` episodes; rows of ``env`` that are not needed idle."""


def _play(
    env: VectorEnv,
    policy: Policy,
    parts: Sequence[Part],
    sampling: Sampling,
    options: dict[str, Any] | None,
    seconds: dict[str, float],
) -> list[_Episode]:
    """The episodes of all parts, one part after the other."""
    played: list[_Episode] = []
    ours = isinstance(env.unwrapped, MathVectorEnv)
    must_reset = env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED and not ours
    for problem_seeds, sample_seeds in parts:
        episodes = _reset(env, policy, problem_seeds, options)
        turn = 0
        while active := [i for i, e in enumerate(episodes) if not e.done]:
            seeds = [_turn_seed(sample_seeds[i], turn) for i in active]
            actions = _act(env, policy, episodes, active, seeds, sampling, seconds)
            _receive(policy, episodes, active, _timed(partial(env.step, actions), seconds))
            if must_reset:
                _reset_finished(env, episodes, problem_seeds)
            turn += 1
        played += episodes
    return played


def _play_overlapped(
    env: MathVectorEnv,
    policy: Policy,
    parts: Sequence[Part],
    sampling: Sampling,
    options: dict[str, Any] | None,
    seconds: dict[str, float],
) -> list[_Episode]:
    """As :func:`_play`, for episodes of one turn: a part is verified in a thread while the next one is generated.

    There is one thread, so the verifier sees the parts in their order. Its error comes up before any of the generation
    that has gone on meanwhile.
    """
    played: list[_Episode] = []
    waiting: list[_Episode] = []
    with ThreadPoolExecutor(1, "verify") as thread:
        result: Future[StepResult] | None = None
        for problem_seeds, sample_seeds in parts:
            try:
                episodes = _reset(env, policy, problem_seeds, options)
                actions = _act(env, policy, episodes, range(len(episodes)), sample_seeds, sampling, seconds)
            finally:
                if result is not None:
                    _receive(policy, waiting, range(len(waiting)), result.result())
            result, waiting = thread.submit(_timed, env.begin_step(actions), seconds), episodes
            played += episodes
        if result is not None:
            _receive(policy, waiting, range(len(waiting)), result.result())
    return played


def _overlaps(env: VectorEnv[Any, Any, Any]) -> TypeGuard[MathVectorEnv]:
    """Whether the next episodes of ``env`` can begin while a thread verifies the last ones, with the same results.

    Not so in a wrapper or a subclass, which may do anything between a reset and a step.
    """
    task = task_of(env)
    return (
        type(env) is MathVectorEnv
        and task is not None
        and task.max_turns == 1
        and env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
        and getattr(task.verify, "any_thread", False)
    )


def _reset(
    env: VectorEnv, policy: Policy, problem_seeds: Sequence[int], options: dict[str, Any] | None
) -> list[_Episode]:
    """Begin at most ``env.num_envs`` episodes."""
    seeds = [int(s) for s in problem_seeds] + [int(problem_seeds[0])] * (env.num_envs - len(problem_seeds))
    observations, _ = env.reset(seed=cast(Any, seeds), options=options)  # Gymnasium's annotation forgets the lists
    system_prompt = getattr(task_of(env), "system_prompt", None)
    known: dict[str, list[int]] = {}  # the members of a group share their prompt
    for text in observations:
        if text not in known:
            known[text] = policy.encode_prompt(text, system_prompt)
    return [_Episode(text, known[text]) for text in observations[: len(problem_seeds)]]


def _act(
    env: VectorEnv,
    policy: Policy,
    episodes: Sequence[_Episode],
    active: Sequence[int],
    seeds: Sequence[int],
    sampling: Sampling,
    seconds: dict[str, float],
) -> tuple[str, ...]:
    """Generate the next turn of the rows ``active``; returns the actions of all rows of ``env``."""
    began = perf_counter()
    completions = policy.generate([episodes[i].context for i in active], [int(seed) for seed in seeds], sampling)
    actions = [""] * env.num_envs
    lengths = completions.mask.sum(1).tolist()
    rows = zip(
        completions.tokens.tolist(), completions.logps.tolist(), completions.entropies.tolist(), lengths, strict=True
    )
    for i, (ids, logps, entropies, length), text, truncated in zip(
        active, rows, completions.texts, completions.truncated.tolist(), strict=True
    ):
        episode = episodes[i]
        episode.write(ids[:length], logps[:length], entropies[:length])
        episode.text, episode.truncated = text, truncated
        actions[i] = "" if truncated else text
    seconds["generate"] += perf_counter() - began
    return tuple(actions)


def _timed(step: Callable[[], StepResult], seconds: dict[str, float]) -> StepResult:
    began = perf_counter()
    result = step()
    seconds["verify"] += perf_counter() - began
    return result


def _receive(policy: Policy, episodes: Sequence[_Episode], active: Sequence[int], result: StepResult) -> None:
    """Record the result of a step for the rows ``active``."""
    observations, rewards, terminations, truncations, infos = result
    for i in active:
        _finish(episodes[i], i, observations[i], rewards[i], bool(terminations[i] or truncations[i]), infos)
        if not episodes[i].done:
            _reply(episodes[i], observations[i], policy)


def _finish(episode: _Episode, row: int, observation: str, reward: float, over: bool, infos: dict[str, Any]) -> None:
    """Record reward, verdict and end of row ``row``."""
    if episode.truncated:
        episode.reward, episode.verdict, episode.done = 0.0, TRUNCATED, True
        return
    episode.reward += float(reward)
    episode.verdict = _verdict(infos, row, episode)
    episode.done = over


def _verdict(infos: dict[str, Any], row: int, episode: _Episode) -> Verdict:
    """The environment's verdict, or one made from its ``is_success`` or its reward if it gives none."""
    success = episode.reward > 0
    for info in (infos, infos.get("final_info", {})):  # with autoreset on the same step, the end stands in the latter
        if "verdict" in info and isinstance(info["verdict"][row], Verdict):
            return cast(Verdict, info["verdict"][row])
        if "is_success" in info:
            success = bool(info["is_success"][row])
    return Verdict("correct" if success else "incorrect", answer=episode.text.strip(), tier="environment")


def _reply(episode: _Episode, observation: str, policy: Policy) -> None:
    """Append the environment's next words, or end the episode where the context has no room for them."""
    reply = policy.encode_reply(observation, ended=episode.ids[-1] in policy.eos_token_ids.tolist())
    if len(episode.context) + len(reply) >= policy.context_length:
        episode.truncated = episode.done = True
    else:
        episode.write(reply)


def _reset_finished(env: VectorEnv, episodes: Sequence[_Episode], problem_seeds: Sequence[int]) -> None:
    """Gymnasium's own vector classes, autoreset disabled, refuse to step a row that is over: reset those rows."""
    done = np.array([e.done for e in episodes] + [True] * (env.num_envs - len(episodes)))
    if done.any() and not done.all():
        seeds = [int(problem_seeds[0])] * env.num_envs
        env.reset(seed=cast(Any, seeds), options={"reset_mask": done})


def _turn_seed(seed: int, turn: int) -> int:
    return int(seed) if turn == 0 else int(np.random.SeedSequence([int(seed), turn]).generate_state(1, np.uint64)[0])


def _rollout(
    episodes: list[_Episode], problem_seeds: Sequence[int], policy: Policy, seconds: dict[str, float]
) -> Rollout:
    device, pad, width = policy.device, policy.pad_token_id, max(len(e.ids) for e in episodes)
    prompt_ids, prompt_mask = left_pad([e.prompt_ids for e in episodes], pad, device)

    def padded(rows: list[list[Any]], fill: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=dtype, device=device)  # (N, T)

    seeds = torch.tensor([int(s) for s in problem_seeds])
    return Rollout(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask.bool(),
        completion_ids=padded([e.ids for e in episodes], pad, torch.long),
        completion_mask=padded([[True] * len(e.ids) for e in episodes], False, torch.bool),
        mask=padded([e.own for e in episodes], False, torch.bool),
        old_logps=padded([e.logps for e in episodes], 0.0, torch.float32),
        entropies=padded([e.entropies for e in episodes], 0.0, torch.float32),
        rewards=torch.tensor([e.reward for e in episodes], dtype=torch.float32, device=device),
        has_verdict=torch.tensor([e.verdict.has_verdict for e in episodes], device=device),
        groups=seeds.unique(return_inverse=True)[1].to(device),
        truncated=torch.tensor([e.truncated for e in episodes], device=device),
        prompts=[e.prompt for e in episodes],
        texts=[e.text for e in episodes],
        verdicts=[e.verdict for e in episodes],
        seconds=dict(seconds),
    )
