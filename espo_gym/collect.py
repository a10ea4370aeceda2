"""Play episodes: environment and policy in turn, until every row is done, into one :class:`Rollout`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from espo_gym.envs import MathVectorEnv, Verdict

from .environment import task_of
from .policy import Policy
from .rollout import Rollout
from .sampling import Sampling, left_pad

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
    episodes: list[_Episode] = []
    seconds = {"generate": 0.0, "verify": 0.0}
    for start in range(0, len(problem_seeds), env.num_envs):
        part = slice(start, start + env.num_envs)
        episodes += _play(env, policy, problem_seeds[part], sample_seeds[part], sampling, options, seconds)
    return _rollout(episodes, problem_seeds, policy, seconds)


def _play(
    env: VectorEnv,
    policy: Policy,
    problem_seeds: Sequence[int],
    sample_seeds: Sequence[int],
    sampling: Sampling,
    options: dict[str, Any] | None,
    seconds: dict[str, float],
) -> list[_Episode]:
    """At most ``env.num_envs`` episodes; rows of ``env`` that are not needed idle."""
    idle = env.num_envs - len(problem_seeds)
    seeds = [int(s) for s in problem_seeds] + [int(problem_seeds[0])] * idle
    observations, _ = env.reset(seed=cast(Any, seeds), options=options)  # Gymnasium's annotation forgets the lists
    task = task_of(env)
    system_prompt = getattr(task, "system_prompt", None)
    known: dict[str, list[int]] = {}  # the members of a group share their prompt
    for text in observations:
        if text not in known:
            known[text] = policy.encode_prompt(text, system_prompt)
    episodes = [_Episode(text, known[text]) for text in observations[: len(problem_seeds)]]

    turn = 0
    while active := [i for i, e in enumerate(episodes) if not e.done]:
        began = perf_counter()
        said = policy.generate(
            [episodes[i].context for i in active], [_turn_seed(sample_seeds[i], turn) for i in active], sampling
        )
        actions = [""] * env.num_envs
        lengths = said.mask.sum(1).tolist()
        rows = zip(said.tokens.tolist(), said.logps.tolist(), said.entropies.tolist(), lengths, strict=True)
        for i, (ids, logps, entropies, length), text, truncated in zip(
            active, rows, said.texts, said.truncated.tolist(), strict=True
        ):
            episode = episodes[i]
            episode.write(ids[:length], logps[:length], entropies[:length])
            episode.text, episode.truncated = text, truncated
            actions[i] = "" if truncated else text
        seconds["generate"] += perf_counter() - began

        began = perf_counter()
        observations, rewards, terminations, truncations, infos = env.step(tuple(actions))
        seconds["verify"] += perf_counter() - began
        for i in active:
            _conclude(episodes[i], i, observations[i], rewards[i], bool(terminations[i] or truncations[i]), infos)
            if not episodes[i].done:
                _reply(episodes[i], observations[i], policy)
        if env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED and not isinstance(
            env.unwrapped, MathVectorEnv
        ):
            _park(env, np.array([e.done for e in episodes] + [True] * idle), problem_seeds)
        turn += 1
    return episodes


def _conclude(episode: _Episode, row: int, observation: str, reward: float, over: bool, infos: dict[str, Any]) -> None:
    """Take in what the environment said of row ``row``."""
    if episode.truncated:
        episode.reward, episode.verdict, episode.done = 0.0, TRUNCATED, True
        return
    episode.reward += float(reward)
    episode.verdict = _verdict(infos, row, episode)
    episode.done = over


def _verdict(infos: dict[str, Any], row: int, episode: _Episode) -> Verdict:
    """The environment's verdict or, where it gives none, what its ``is_success`` or its reward amounts to."""
    success = episode.reward > 0
    for info in (infos, infos.get("final_info", {})):  # with autoreset on the same step, the end stands in the latter
        if "verdict" in info and isinstance(info["verdict"][row], Verdict):
            return info["verdict"][row]
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


def _park(env: VectorEnv, done: np.ndarray, problem_seeds: Sequence[int]) -> None:
    """Gymnasium's own vector classes, autoreset disabled, refuse to step a row that is over: reset those rows."""
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
