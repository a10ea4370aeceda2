"""One batch as every algorithm sees it, token by token.

A policy that has not moved since it sampled has ratio 1 everywhere, and no clip cuts anything. So the batch is looked
at as training meets it at the end of an update: a rollout is collected, a copy of the policy takes the algorithm's own
optimizer steps on all minibatches but the last, and the last is handed to the loss of every algorithm. What is shown as
a token's gradient is autograd's ``d loss / d logp``; nothing is computed a second time by hand.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor

from espo_gym import checkpoint
from espo_gym.algorithms import ALGORITHMS, LossBatch, Objective, PolicyOptimizer
from espo_gym.policy import Policy, TokenScores
from espo_gym.rollout import Rollout

MOST = 256
"""Completions of a rollout that is collected for inspection, at most, where not said otherwise."""


@dataclass
class LossView:
    """What one algorithm makes of each token of a batch. (B, T) tensors without gradient, 0 where masked."""

    loss: float
    ratio: Tensor
    """The importance ratio that the surrogate uses."""
    low: Tensor
    """Smallest ratio that the clip lets count; -inf where there is no bound."""
    high: Tensor
    """Largest ratio that the clip lets count; inf where there is no bound."""
    advantages: Tensor
    weights: Tensor
    """What each token counts for in the sum that the loss is."""
    gradient: Tensor
    """d loss / d logp of the token, by autograd."""
    unclipped_gradient: Tensor
    """The same for the same loss with a clip of infinite width."""
    clipped: Tensor
    """Bool: the clip cuts this token's gradient."""
    groups: Tensor | None
    """Long: the group whose ratio and clip the token shares, for an algorithm that makes groups; 0 the most certain."""
    mask: Tensor
    """Bool: the policy's own tokens of responses with a verdict, which are all that count."""

    def summary(self) -> dict[str, float]:
        """Shares of tokens and of gradient over the batch.

        - ``active``: tokens with a non-zero advantage, as a share of all
        - ``cut``: tokens whose gradient the clip cuts, as a share of the active ones
        - ``lost``: ``sum |g0 - g| / sum |g0|`` with g the gradient and g0 that without the clip: the gradient (L1)
          thrown away
        - ``ratio_min``, ``ratio_max``; ``width``: mean of half the distance between the bounds, inf without
        """
        active = self.mask & (self.advantages != 0)
        whole = self.unclipped_gradient.abs().sum()
        ratio = self.ratio[self.mask] if self.mask.any() else torch.ones(1)
        width = ((self.high - self.low) / 2)[self.mask]
        return {
            "active": float(active.sum() / self.mask.sum().clamp(min=1)),
            "cut": float(self.clipped.sum() / active.sum().clamp(min=1)),
            "lost": float((self.unclipped_gradient - self.gradient).abs().sum() / whole) if whole > 0 else 0.0,
            "ratio_min": float(ratio.min()),
            "ratio_max": float(ratio.max()),
            "width": float(width.mean()) if len(width) else inf,
        }


def view_loss(objective: Objective, batch: LossBatch) -> LossView:
    """The loss of ``objective`` on ``batch``, and what it makes of each token."""
    loss, gradient, out = _gradient(objective, batch)
    no_clip = copy.copy(objective)
    vars(no_clip).update(dual_clip=None, clip_range=lambda batch: (inf, inf))
    _, unclipped_gradient, _ = _gradient(no_clip, batch)
    try:
        bounds = objective.ratio_bounds(batch)
    except NotImplementedError:  # neither clip_range nor ratio_bounds: a surrogate of its own without bounds
        bounds = -inf, inf
    zeros = torch.zeros_like(out.ratio)
    make_groups = getattr(objective, "groups", None)  # ESPO's; a new algorithm may have its own
    return LossView(
        loss=float(loss),
        ratio=out.ratio.masked_fill(~batch.mask, 0),
        low=zeros + bounds[0],
        high=zeros + bounds[1],
        advantages=batch.advantages,
        weights=out.weights.detach(),
        gradient=gradient,
        unclipped_gradient=unclipped_gradient,
        clipped=out.clipped,
        groups=None if make_groups is None else make_groups(batch),
        mask=batch.mask,
    )


def _gradient(objective: Objective, batch: LossBatch) -> tuple[Tensor, Tensor, Any]:
    logps = batch.logps.detach().requires_grad_()
    out = objective.loss(replace(batch, logps=logps))
    (gradient,) = torch.autograd.grad(out.loss, logps, allow_unused=True, materialize_grads=True)
    return out.loss.detach(), gradient, out


@dataclass
class Inspection:
    """A minibatch within an update, and every algorithm's view of it."""

    rollout: Rollout
    """B completions."""
    tokens: list[list[str]]
    """B lists: the text of each token."""
    logps: Tensor
    """(B, T) under the policy as it is now, after ``steps`` optimizer steps."""
    views: dict[str, LossView]
    """By the algorithm's name, the run's own first."""
    steps: int
    total_steps: int
    """Optimizer steps of an update."""
    timesteps: int
    """Completions that the policy had been trained on."""
    vocab_size: int
    preset: str


def inspect_batch(
    algorithm: PolicyOptimizer,
    rollout: Rollout | None = None,
    *,
    steps: int | None = None,
    completions: int | None = None,
) -> Inspection:
    """One minibatch within an update, and the loss of every algorithm on it. ``algorithm`` stays as it is.

    Its own loss has its own hyper-parameters, the others have those of its preset. PPO without a value head is given
    what a fresh one says: the mean reward.

    Args:
        rollout: where to take the minibatch from; None collects the next rollout of the run.
        steps: optimizer steps to take before; None: all of an update but the last one. If there is but one step, or
            after all of them, the minibatch of the last one is looked at again.
        completions: of the rollout that is collected, at most (rounded to whole groups). None: as in training, up to
            256.

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
                "minibatches: inspect more of them"
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
        seen = rollout
        if objective.needs_values and seen.values is None:
            mean = float(seen.rewards[seen.has_verdict].mean())
            seen = replace(seen, values=torch.full_like(seen.old_logps, mean))
        seen = objective.annotate(seen)
        credited = objective.advantages(seen)
        batch = twin.loss_batch(seen.rows(rows), credited[rows], scores)
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
    """Of ``rows`` (B,) under the policy as it is now, in micro-batches as in training."""
    pieces = twin.policy.micro_batches(
        rollout.rows(rows),
        tokens=twin.micro_batch_tokens,
        temperature=twin.temperature,
        entropies=twin.entropy_coef > 0,
    )
    return TokenScores.concat(list(pieces))


def _objectives(algorithm: PolicyOptimizer, twin: PolicyOptimizer) -> dict[str, PolicyOptimizer]:
    """The algorithm itself, under the name it is registered by if it is, and the formulas of all others."""
    own = next((n for n, cls in ALGORITHMS.items() if cls is type(algorithm)), type(algorithm).__name__)
    others = {name: cls.formula(preset=twin.preset) for name, cls in ALGORITHMS.items() if name != own}
    return {own: twin, **others}


def _token_texts(policy: Policy, rollout: Rollout) -> list[list[str]]:
    tokenizer = policy.tokenizer
    known: dict[int, str] = {}
    texts = []
    for ids, mask in zip(rollout.completion_ids.tolist(), rollout.completion_mask.tolist(), strict=True):
        row = [token for token, own in zip(ids, mask, strict=True) if own]
        for token in row:
            if token not in known:
                text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
                # A part of a character has no text of its own: its name in the vocabulary then.
                known[token] = str(tokenizer.convert_ids_to_tokens(token)) if not text or "\ufffd" in text else text
        texts.append([known[token] for token in row])
    return texts


def load(path: Path) -> PolicyOptimizer:
    """The algorithm of a checkpoint, or of the folder of a run.

    Raises FileNotFoundError, ValueError: there is none, or it is of an algorithm that is not registered.
    """
    path = path / "checkpoint.zip" if path.is_dir() else path
    with checkpoint.opened(path) as (state, _, _):
        name = state["class"]
    classes = {cls.__name__: cls for cls in ALGORITHMS.values()}
    if name not in classes:
        raise ValueError(f"{path} is a checkpoint of {name}, which is not among {', '.join(classes)}")
    return classes[name].load(path)


# -- for the page ------------------------------------------------------------------------------------------------------


def as_json(inspection: Inspection, source: str, show: int = 16) -> dict[str, Any]:
    """What the page needs of an inspection, for JSON: at most ``show`` completions, those with an advantage first."""
    rollout, views = inspection.rollout, inspection.views
    own = next(iter(views))
    lively = (views[own].advantages != 0).any(1)
    picked = sorted(lively.logical_not().long().argsort(stable=True)[:show].tolist())
    lengths = rollout.completion_mask.sum(1).tolist()

    def column(tensor: Tensor | None, row: int) -> Any:
        """A row's numbers to 5 digits; one number where all are equal, null for what is infinite or not there."""
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
            for i in picked
        ],
        "algorithms": [
            {
                "name": name,
                "about": (ALGORITHMS[name].__doc__ or "").strip().splitlines()[0] if name in ALGORITHMS else "",
                "loss": _number(view.loss),
                "summary": {key: _number(value) for key, value in view.summary().items()},
                "rows": [
                    {key: column(getattr(view, key), i) for key in names} | {"cut": column(view.clipped, i)}
                    for i in picked
                ],
            }
            for name, view in views.items()
        ],
    }


def _number(value: float) -> float | int | bool | None:
    if isinstance(value, bool | int):
        return value
    return float(f"{value:.5g}") if isfinite(value) else None
