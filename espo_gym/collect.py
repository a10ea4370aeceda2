"""Play episodes: environment and policy in turn, until every row is done, into one :class:`Rollout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from espo_gym.envs import MathVectorEnv, Verdict

from .contract import check_group, check_text, checked_reward
from .conversation import Conversation, speak
from .environment import task_of
from .policy import Policy
from .policy.sampler import left_pad
from .rollout import Rollout
from .sampling import Sampling

StepResult = tuple[Sequence[str], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]
"""What a step returns: observations, rewards, terminations, truncations, infos."""

Part = tuple[Sequence[int], Sequence[int]]
"""Problem seeds and sample seeds of at most ``env.num_envs`` episodes; rows of ``env`` that are not needed idle."""

TRUNCATED = Verdict("no_answer", reason="truncated")


@dataclass
class _Episode(Conversation):
    prompt: str = ""
    reward: float = 0.0
    verdict: Verdict = TRUNCATED
    done: bool = False


def collect(
    env: VectorEnv,
    policy: Policy,
    problem_seeds: Sequence[int],
    sample_seeds: Sequence[int],
    sampling: Sampling,
    *,
    options: dict[str, Any] | None = None,
    truncated_reward: float | None = None,
) -> Rollout:
    """N episodes of ``env``.

    Args:
        env: any number of rows; it is reset as often as the N episodes need.
        problem_seeds: (N,) the ``reset`` seed of each episode. Equal seeds are one group.
        sample_seeds: (N,) the seed of each episode's sampling.
        options: passed to ``reset``, e.g. ``{"split": "test"}``.
        truncated_reward: what a completion that was cut off earns; None: what ``env`` pays for an empty answer.

    A completion that was cut off has not answered: the episode ends with the verdict ``no_answer``, and the verifier is
    not asked about the fragment. The environment is stepped with an empty answer, so that being cut off pays what a
    wrong answer pays, whatever that is; at most 0 if the environment takes an empty answer for a correct one.

    Raises:
        ValueError: the members of a group have different problems, or a reward is not finite or exceeds 1e16.
        TypeError: a reward that is no number, or an observation that is no text.
    """
    parts = [
        (problem_seeds[start : start + env.num_envs], sample_seeds[start : start + env.num_envs])
        for start in range(0, len(problem_seeds), env.num_envs)
    ]
    play = _Play(env, policy, sampling, options, truncated_reward)
    episodes = play.overlapped(parts) if len(parts) > 1 and _overlaps(env) else play.serially(parts)
    return _rollout(episodes, problem_seeds, policy, play.seconds)


@dataclass
class _Play:
    """The episodes of one rollout as they are played."""

    env: VectorEnv[Any, Any, Any]
    policy: Policy
    sampling: Sampling
    options: dict[str, Any] | None
    truncated_reward: float | None
    seconds: dict[str, float] = field(default_factory=lambda: {"generate": 0.0, "verify": 0.0})
    begun: int = 0
    """Episodes so far."""
    asked: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Problem seed -> the first episode with it, and its prompt."""

    def serially(self, parts: Sequence[Part]) -> list[_Episode]:
        """The episodes of all parts, one part after the other."""
        played: list[_Episode] = []
        ours = isinstance(self.env.unwrapped, MathVectorEnv)
        must_reset = self.env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED and not ours
        for problem_seeds, sample_seeds in parts:
            episodes = self.reset(problem_seeds)
            turn = 0
            while active := [i for i, e in enumerate(episodes) if not e.done]:
                actions = self.act(episodes, active, [_turn_seed(sample_seeds[i], turn) for i in active])
                self.receive(episodes, active, self.timed(partial(self.env.step, actions)))
                if must_reset:
                    self.reset_finished(episodes, problem_seeds)
                turn += 1
            played += episodes
        return played

    def overlapped(self, parts: Sequence[Part]) -> list[_Episode]:
        """As :meth:`serially`, for episodes of one turn: a part is verified in a thread while the next is generated.

        There is one thread, so the verifier sees the parts in their order. Its error comes up before any of the
        generation that has gone on meanwhile.
        """
        env = cast(MathVectorEnv, self.env)
        played: list[_Episode] = []
        waiting: list[_Episode] = []
        with ThreadPoolExecutor(1, "verify") as thread:
            result: Future[StepResult] | None = None
            for problem_seeds, sample_seeds in parts:
                try:
                    episodes = self.reset(problem_seeds)
                    actions = self.act(episodes, range(len(episodes)), sample_seeds)
                finally:
                    if result is not None:
                        self.receive(waiting, range(len(waiting)), result.result())
                result, waiting = thread.submit(self.timed, env.begin_step(actions)), episodes
                played += episodes
            if result is not None:
                self.receive(waiting, range(len(waiting)), result.result())
        return played

    def reset(self, problem_seeds: Sequence[int]) -> list[_Episode]:
        """Begin at most ``env.num_envs`` episodes."""
        n = len(problem_seeds)
        seeds = [int(s) for s in problem_seeds] + [int(problem_seeds[0])] * (self.env.num_envs - n)
        # Gymnasium's annotation forgets the lists.
        observations, _ = self.env.reset(seed=cast(Any, seeds), options=self.options)
        prompts = observations[:n]
        for i, (seed, prompt) in enumerate(zip(seeds, prompts, strict=False)):
            check_text(prompt, i, f"after reset(seed={seed})")
            check_group(seed, self.asked.setdefault(seed, (self.begun + i, prompt)), (self.begun + i, prompt))
        self.begun += n
        task = task_of(self.env)
        system_prompt = None if task is None else task.system_prompt
        # The members of a group share their prompt.
        known = {prompt: self.policy.encode_prompt(prompt, system_prompt) for prompt in dict.fromkeys(prompts)}
        return [_Episode(known[prompt], prompt=prompt) for prompt in prompts]

    def act(self, episodes: Sequence[_Episode], active: Sequence[int], seeds: Sequence[int]) -> tuple[str, ...]:
        """Generate the next turn of the rows ``active``; returns the actions of all rows of ``env``."""
        began = perf_counter()
        actions = [""] * self.env.num_envs
        said = speak(self.policy, [episodes[i] for i in active], seeds, self.sampling)
        for i, action in zip(active, said, strict=True):
            actions[i] = action
        self.seconds["generate"] += perf_counter() - began
        return tuple(actions)

    def timed(self, step: Callable[[], StepResult]) -> StepResult:
        """What ``step`` returns; its time counts as verification."""
        began = perf_counter()
        result = step()
        self.seconds["verify"] += perf_counter() - began
        return result

    def receive(self, episodes: Sequence[_Episode], active: Sequence[int], result: StepResult) -> None:
        """Record the result of a step for the rows ``active``."""
        observations, rewards, terminations, truncations, infos = result
        for i in active:
            episode, over = episodes[i], bool(terminations[i] or truncations[i])
            ended = over and "final_obs" in infos  # the row has been reset on the same step
            observation = infos["final_obs"][i] if ended else observations[i]
            check_text(observation, i, f"in the episode of {episode.prompt[:80]!r}")
            if episode.truncated:
                episode.reward += self.reward_of_silence(rewards[i], infos, episode.prompt, i)
                episode.verdict, episode.done = TRUNCATED, True
                continue
            episode.reward += checked_reward(rewards[i], i, episode.prompt)
            episode.verdict = _verdict(infos, i, episode.reward, episode.text)
            if not over:
                episode.hear(self.policy, observation)
            episode.done = over or episode.truncated

    def reward_of_silence(self, reward: Any, infos: dict[str, Any], prompt: str, row: int) -> float:
        """What a turn that was cut off earns, where the environment paid ``reward`` for an empty answer.

        At most 0 if it took the empty answer for a correct one. If it has no verdict on it, it still is no answer.
        """
        if self.truncated_reward is not None:
            return self.truncated_reward
        paid = checked_reward(reward, row, prompt)
        return min(paid, 0.0) if _verdict(infos, row, paid, "").correct else paid

    def reset_finished(self, episodes: Sequence[_Episode], problem_seeds: Sequence[int]) -> None:
        """Gymnasium's own vector classes, autoreset disabled, refuse to step a row that is over: reset those rows."""
        done = np.array([e.done for e in episodes] + [True] * (self.env.num_envs - len(episodes)))
        if done.any() and not done.all():
            seeds = [int(problem_seeds[0])] * self.env.num_envs
            self.env.reset(seed=cast(Any, seeds), options={"reset_mask": done})


def _overlaps(env: VectorEnv[Any, Any, Any]) -> bool:
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


def _verdict(infos: dict[str, Any], row: int, reward: float, text: str) -> Verdict:
    """The environment's verdict, or one made from its ``is_success`` or its reward if it gives none."""
    success = reward > 0
    for info in (infos, infos.get("final_info", {})):  # with autoreset on the same step, the end stands in the latter
        if "verdict" in info and isinstance(info["verdict"][row], Verdict):
            return cast(Verdict, info["verdict"][row])
        if "is_success" in info:
            success = bool(info["is_success"][row])
    return Verdict("correct" if success else "incorrect", answer=text.strip(), tier="environment")


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
