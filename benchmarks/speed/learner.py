"""G8: one optimizer step on a rollout, beside the same on one padded batch."""

from __future__ import annotations

import torch

from espo_gym.algorithms.grpo import GRPO
from espo_gym.policy import TokenScores
from espo_gym.rollout import Rollout

from . import workload
from .goals import Interval, Row
from .measure import against, alternate, ratio
from .workload import SMALL


def measure_g8(repeats: int) -> list[Row]:
    ours, peer = workload.grpo(SMALL), workload.grpo(SMALL)
    rollout = ours.collect_rollout()
    ours.train(rollout)
    padded_step(peer, rollout)
    error = _distance(ours, peer)
    mine, theirs = alternate(lambda: ours.train(rollout), lambda: padded_step(peer, rollout), repeats)
    lengths = rollout.mask.sum(1).float()
    case = f"{len(rollout)} completions, prompts of {rollout.prompt_ids.shape[1]} tokens"
    detail = f"{against(mine, theirs, 'ms')}; completions of {lengths.mean():.1f} tokens, at most {int(lengths.max())}"
    return [
        Row("G8", case, ratio(mine, theirs), detail),
        Row("G8 error", case, Interval.exactly(error), "L2 norm over all weights"),
    ]


def padded_step(algorithm: GRPO, rollout: Rollout) -> None:
    """The step as it is usually written: the rectangle of all prompts and completions, logits of every position."""
    ids = torch.cat([rollout.prompt_ids, rollout.completion_ids], 1)
    attention = torch.cat([rollout.prompt_mask, rollout.completion_mask], 1).long()
    algorithm.optimizer.zero_grad()
    logits = algorithm.policy.model(
        input_ids=ids, attention_mask=attention, position_ids=(attention.cumsum(1) - 1).clamp(min=0), use_cache=False
    ).logits
    width = rollout.completion_ids.shape[1]
    logprobs = logits[:, -width - 1 : -1].log_softmax(-1)  # (N, T, V)
    logps = logprobs.gather(-1, rollout.completion_ids[..., None]).squeeze(-1)
    scores = TokenScores(logps.masked_fill(~rollout.mask, 0.0), None, None)
    rollout = algorithm.annotate(rollout)
    batch = algorithm.loss_batch(rollout, algorithm.advantages(rollout), scores)
    algorithm.loss(batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(algorithm.policy.parameters(), algorithm.max_grad_norm)
    algorithm.optimizer.step()


def _distance(one: GRPO, other: GRPO) -> float:
    a, b = (
        torch.cat([p.grad.double().flatten() for p in side.policy.parameters() if p.grad is not None])
        for side in (one, other)
    )
    return float((a - b).norm() / b.norm())
