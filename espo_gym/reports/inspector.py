"""One batch as every algorithm sees it, token by token.

A policy that has not moved since it sampled has ratio 1 everywhere, and no clip cuts anything. So the batch is
inspected as training meets it at the end of an update: a rollout is collected, a copy of the policy takes the
algorithm's own optimizer steps on all minibatches but the last, and the last is passed to the loss of every algorithm.
The gradient of a token is autograd's ``d loss / d logp``; no formula is implemented a second time.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor

from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
from espo_gym.algorithms.registry import name_of
from espo_gym.policy import Policy, TokenScores
from espo_gym.rollout import Rollout

from .loss_view import LossView, view_loss

MOST = 256
"""Default for the maximum number of completions in a rollout that is collected for inspection."""


@dataclass
class Inspection:
    """A minibatch within an update, and every algorithm's view of it."""

    rollout: Rollout
    """B completions."""
    tokens: list[list[str]]
    """B lists: the text of each token."""
    logps: Tensor
    """(B, T) under the policy after ``steps`` optimizer steps."""
    views: dict[str, LossView]
    """By the algorithm's name, the run's own first."""
    steps: int
    """Optimizer steps taken before the inspection."""
    total_steps: int
    """Optimizer steps of an update."""
    timesteps: int
    """Completions that the policy had been trained on."""
    vocab_size: int
    preset: str
    """Hyperparameters of all algorithms but the run's own."""


def inspect_batch(
    algorithm: PolicyOptimizer,
    rollout: Rollout | None = None,
    *,
    steps: int | None = None,
    completions: int | None = None,
) -> Inspection:
    """One minibatch within an update, and the loss of every algorithm on it. ``algorithm`` is not changed.

    Its own loss has its own hyperparameters, the others those of its preset. For PPO without a value head, the mean
    reward takes the place of the values, which is what a new value head returns.

    Args:
        algorithm: whose policy, environment and optimizer are used.
        rollout: source of the minibatch; None collects the next rollout of the run.
        steps: optimizer steps to take first; None: all of an update but the last one. If an update has one step only,
            or all are taken, the minibatch of the last one is inspected again.
        completions: maximum size of the collected rollout (rounded to whole groups). None: as in training, up to 256.

    Raises ValueError: steps or completions out of range.
    """
    twin = copy.copy(algorithm)
    # One memo for both, so that the copied optimizer steps on the copied parameters.
    twin.policy, twin.optimizer = copy.deepcopy((algorithm.policy, algorithm.optimizer))
    twin.set_logger(Logger(None, []))
    total = twin.n_epochs * twin.n_minibatches
    steps = max(1, total - 1) if steps is None else steps
    if not 0 <= steps <= total:
        raise ValueError(
            f"an update of this run has {total} optimizer steps: steps must be from 0 to {total}, not {steps}"
        )
    if rollout is None:
        wanted = min(MOST, twin.rollout_size) if completions is None else min(completions, twin.rollout_size)
        if wanted < max(twin.group_size, twin.n_minibatches):
            raise ValueError(
                f"{wanted} completions are too few for groups of {twin.group_size} and {twin.n_minibatches} "
                "minibatches: inspect more completions"
            )
        twin.rollout_size = wanted // twin.group_size * twin.group_size
        rollout = twin.collect_rollout()
    annotated = twin.annotate(rollout)
    advantages = twin.advantages(annotated)
    minibatches = list(twin.minibatches(len(rollout)))
    for rows in minibatches[:steps]:
        twin.step(annotated, advantages, rows)
    rows = minibatches[min(steps, total - 1)]
    rows = rows[rollout.groups[rows].argsort(stable=True)]

    objectives = _objectives(algorithm, twin)
    scores = _scores(twin, rollout, rows)
    views = {}
    for name, objective in objectives.items():
        own_rollout = rollout
        if objective.needs_values and own_rollout.values is None:
            mean = float(own_rollout.rewards[own_rollout.has_verdict].mean())
            own_rollout = replace(own_rollout, values=torch.full_like(own_rollout.old_logps, mean))
        own_rollout = objective.annotate(own_rollout)
        own_advantages = objective.advantages(own_rollout)
        batch = twin.loss_batch(own_rollout.rows(rows), own_advantages[rows], scores)
        if objective.needs_values and batch.values is None:
            batch.values = batch.old_values
        views[name] = view_loss(objective, batch)
    minibatch = rollout.rows(rows)
    return Inspection(
        rollout=minibatch,
        tokens=_token_texts(twin.policy, minibatch),
        logps=scores.logps,
        views=views,
        steps=steps,
        total_steps=total,
        timesteps=algorithm.num_timesteps,
        vocab_size=twin.policy.vocab_size,
        preset=str(twin.preset),
    )


@torch.no_grad()
def _scores(twin: PolicyOptimizer, rollout: Rollout, rows: Tensor) -> TokenScores:
    """Scores of ``rows`` (B,) under the current policy, in micro-batches as in training."""
    pieces = twin.policy.micro_batches(
        rollout.rows(rows),
        tokens=twin.micro_batch_tokens,
        temperature=twin.temperature,
        entropies=twin.entropy_coef > 0,
    )
    return TokenScores.concat(list(pieces))


def _objectives(algorithm: PolicyOptimizer, twin: PolicyOptimizer) -> dict[str, PolicyOptimizer]:
    """The algorithm itself, by its registered name if it has one, and the formulas of all others."""
    own = name_of(type(algorithm)).rpartition(":")[2]
    others = {name: cls.formula(preset=twin.preset) for name, cls in ALGORITHMS.items() if name != own}
    return {own: twin, **others}


def _token_texts(policy: Policy, rollout: Rollout) -> list[list[str]]:
    """The text of each completion token, of each row."""
    tokenizer = policy.tokenizer
    known: dict[int, str] = {}
    texts = []
    for ids, mask in zip(rollout.completion_ids.tolist(), rollout.completion_mask.tolist(), strict=True):
        row = [token for token, own in zip(ids, mask, strict=True) if own]
        for token in row:
            if token not in known:
                text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
                # Part of a character has no text: show its name in the vocabulary.
                known[token] = str(tokenizer.convert_ids_to_tokens(token)) if not text or "\ufffd" in text else text
        texts.append([known[token] for token in row])
    return texts


# -- for the page ------------------------------------------------------------------------------------------------------


def as_json(inspection: Inspection, source: str, show: int = 16) -> dict[str, Any]:
    """The page's data about an inspection, for JSON: at most ``show`` completions, those with an advantage first."""
    rollout, views = inspection.rollout, inspection.views
    own = next(iter(views))
    has_advantage = (views[own].advantages != 0).any(1)
    shown = sorted(has_advantage.logical_not().long().argsort(stable=True)[:show].tolist())
    lengths = rollout.completion_mask.sum(1).tolist()

    def column(tensor: Tensor | None, row: int) -> Any:
        """A row to 5 digits: one number if all are equal; None for infinite values and a missing tensor."""
        if tensor is None:
            return None
        values = [_number(value) for value in tensor[row, : lengths[row]].tolist()]
        return values[0] if values and all(value == values[0] for value in values) else values

    names = ("ratio", "low", "high", "advantages", "weights", "gradient", "unclipped_gradient", "groups")
    return {
        "source": source,
        "own": own,
        "preset": inspection.preset,
        "timesteps": inspection.timesteps,
        "steps": inspection.steps,
        "total_steps": inspection.total_steps,
        "vocab_size": inspection.vocab_size,
        "completions": len(rollout),
        "tokens": int(rollout.mask.sum()),
        "rows": [
            {
                "prompt": rollout.prompts[i],
                "verdict": rollout.verdicts[i].status,
                "reason": rollout.verdicts[i].reason,
                "reward": _number(float(rollout.rewards[i])),
                "group": int(rollout.groups[i]),
                "truncated": bool(rollout.truncated[i]),
                "tokens": inspection.tokens[i],
                "own": column(rollout.mask & rollout.has_verdict[:, None], i),
                "entropy": column(rollout.entropies, i),
                "logp": column(inspection.logps, i),
                "old_logp": column(rollout.old_logps, i),
            }
            for i in shown
        ],
        "algorithms": [
            {
                "name": name,
                "about": (ALGORITHMS[name].__doc__ or "").strip().splitlines()[0] if name in ALGORITHMS else "",
                "loss": _number(view.loss),
                "summary": {key: _number(value) for key, value in view.summary().items()},
                "rows": [
                    {key: column(getattr(view, key), i) for key in names} | {"cut": column(view.clipped, i)}
                    for i in shown
                ],
            }
            for name, view in views.items()
        ],
    }


def _number(value: float) -> float | int | bool | None:
    if isinstance(value, bool | int):
        return value
    return float(f"{value:.5g}") if isfinite(value) else None
