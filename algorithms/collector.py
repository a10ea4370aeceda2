"""The next rollout of a run: played, filled up by dynamic sampling, and scored by the training forward pass.

What is drawn is a function of the seed and the counters alone, so a resumed run draws the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import nan
from time import perf_counter
from typing import cast

import torch

from espo_gym.collect import collect
from espo_gym.metrics import informative, logp_gap, rollout_metrics
from espo_gym.policy import Policy, TokenScores
from espo_gym.rollout import Rollout

from .streams import SAMPLES, problem_seeds, sample_seeds
from .training_state import TrainingState


@dataclass
class Collected:
    """A rollout and what was measured on the way."""

    rollout: Rollout
    """What is trained on."""
    played: Rollout
    """Everything that was sampled for it, in the order of sampling; the same object without dynamic sampling."""
    metrics: dict[str, float]
    """By the keys of the logs: ``rollout/...``, ``train/...``, ``time/...``."""


def collect_rollout(state: TrainingState) -> Collected:
    """The next rollout of ``state``.

    Raises:
        ValueError, TypeError: the environment returned what cannot be learned from; see ``espo_gym.collect``.
        RuntimeError: the verifier failed on more than ``max_no_verdict`` of what was played.
    """
    rollout = played = _play(state, state.num_timesteps)
    if state.dynamic_sampling:
        kept = informative(played)
        while len(kept) < state.rollout_size and len(played) <= _max_resamples(state) * state.rollout_size:
            more = _play(state, state.num_timesteps + len(played))
            played, kept = Rollout.concat([played, more]), Rollout.concat([kept, informative(more)])
        # If no group is left, all of them as they are: their advantages are 0, and so is the gradient.
        rollout = kept if len(kept) else played
        rollout = rollout.rows(torch.arange(min(len(rollout), state.rollout_size), device=state.policy.device))
    rollout.n_generated = len(played)
    gap = _score(state, rollout)
    metrics = rollout_metrics(played)
    if rollout is not played and not state.policy.captures.entropies:  # then only what is trained on has entropies
        metrics["entropy"] = rollout_metrics(rollout)["entropy"]
    seconds = played.seconds | rollout.seconds
    generating = played.seconds["generate"]  # 0 with a clock too coarse for a tiny rollout
    seconds["tokens_per_second"] = int(played.mask.sum()) / generating if generating > 0 else nan
    failed = 1 - float(played.has_verdict.float().mean())
    if failed > state.max_no_verdict:
        reasons = Counter(v.reason for v in played.verdicts if not v.has_verdict)
        raise RuntimeError(
            f"the verifier failed on {failed:.0%} of a rollout ({dict(reasons)}), more than max_no_verdict = "
            f"{state.max_no_verdict:.0%}: the rest would be a biased sample to learn from. Look at the references and "
            f"at the deadline of the environment's verifier{_details(played)}"
        )
    sections = {"rollout": metrics, "train": gap, "time": seconds}
    named = {f"{section}/{name}": value for section, part in sections.items() for name, value in part.items()}
    return Collected(rollout, played, named)


def _details(played: Rollout) -> str:
    """What the verdicts say about failures, each once."""
    details = dict.fromkeys(v.detail for v in played.verdicts if v.detail)
    return "".join(f". It reports: {detail}" for detail in details)


def _max_resamples(state: TrainingState) -> int:
    """Further rollouts that dynamic sampling may draw."""
    if state.max_timesteps is None:
        return state.max_resamples
    left = (state.max_timesteps - state.num_timesteps) // state.rollout_size
    return min(state.max_resamples, max(left - 1, 0))


def _play(state: TrainingState, timestep: int) -> Rollout:
    """``rollout_size`` episodes, as they are drawn after ``timestep`` completions."""
    n = state.rollout_size
    problems = problem_seeds(state.seed, timestep, n, state.group_size)
    samples = sample_seeds(state.seed, SAMPLES, timestep, n)
    return collect(state.env, state.policy, problems, samples, state.sampling, truncated_reward=state.truncated_reward)


@torch.no_grad()
def _score(state: TrainingState, rollout: Rollout) -> dict[str, float]:
    """Fill in what the training forward pass computes of ``rollout``, where the algorithm needs it.

    Returns the gap between the sampler's log-probs and the recomputed ones, if they were recomputed.
    """
    began, gap = perf_counter(), {}
    differs = not state.policy.captures.training_logps or state.sampler_correction is not None
    recompute = state.old_logps == "recomputed" or (state.old_logps == "auto" and differs)
    if state.needs_values and state.n_updates == 0 and rollout.has_verdict.any():
        # From 0 the critic would spend its first steps finding the mean reward.
        assert state.policy.value_head is not None
        state.policy.value_head.bias.fill_(float(rollout.rewards[rollout.has_verdict].mean()))
    if recompute or state.needs_values:
        scores = _scores(state, state.policy, rollout, entropies=recompute)
        rollout.values = scores.values if state.needs_values else None
        if recompute:
            gap = logp_gap(rollout.old_logps, scores.logps, rollout.mask)
            rollout.sampler_logps = rollout.old_logps
            rollout.old_logps, rollout.entropies = scores.logps, cast(torch.Tensor, scores.entropies)
    if state.reference is not None:
        rollout.ref_logps = _scores(state, state.reference, rollout).logps
    rollout.seconds["score"] = perf_counter() - began
    return gap


def _scores(state: TrainingState, policy: Policy, rollout: Rollout, *, entropies: bool = False) -> TokenScores:
    """Scores of all of ``rollout``, one micro-batch at a time."""
    pieces = policy.micro_batches(
        rollout, tokens=state.micro_batch_tokens, temperature=state.temperature, entropies=entropies
    )
    return TokenScores.concat(list(pieces))
