"""One optimizer step on one minibatch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from espo_gym.rollout import Rollout

from .loss import LossOutput
from .streams import shuffled
from .training_state import TrainingState


def minibatches(state: TrainingState, n: int) -> Iterator[Tensor]:
    """The rows of each minibatch of a rollout of ``n``, (B,) long, shuffled anew in each epoch."""
    for epoch in range(state.n_epochs):
        order = shuffled(state.seed, state.n_rollouts, epoch, n)
        for rows in torch.from_numpy(order).tensor_split(state.n_minibatches):
            yield rows.to(state.policy.device)


def step(
    state: TrainingState, rollout: Rollout, advantages: Tensor, rows: Tensor
) -> tuple[list[LossOutput], dict[str, float]]:
    """One optimizer step on ``rows`` (B,) of ``rollout``; the gradients of its micro-batches add up to that of all.

    Returns what the loss returned for each micro-batch, and the metrics of the step. Both are empty, and no step is
    taken, where no completion has a verdict: nothing is known then, so nothing is learned.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; no step was taken.
    """
    minibatch, advantages = rollout.rows(rows), advantages[rows]
    weights = state.token_weights(state.loss_batch(minibatch, advantages))  # (B, T)
    if not weights.any():
        return [], {}
    live, idle = _live(state, minibatch, advantages, weights)
    outputs = [] if idle is None else [idle]
    _zero_grad(state)
    pieces = state.policy.micro_batches(
        minibatch.rows(live),
        tokens=state.micro_batch_tokens,
        temperature=state.temperature,
        entropies=state.entropy_coef > 0,
        checkpointing=state.activation_checkpointing,
    )
    for part, scores in pieces if len(live) else ():
        micro = live[part]
        out = state.loss(state.loss_batch(minibatch.rows(micro), advantages[micro], scores), weights[micro])
        _check_finite(state, "loss", out.loss)
        out.loss.backward()
        outputs.append(out.detach())
    groups = state.optimizer.param_groups
    norm, *others = (torch.nn.utils.clip_grad_norm_(group["params"], state.max_grad_norm) for group in groups)
    for value in (norm, *others):
        _check_finite(state, "gradient", value)
    for group in groups:
        group["lr"] = group["initial_lr"] * state.warmup
    state.optimizer.step()
    metrics = {"grad_norm": float(norm), "loss": sum(float(out.loss) for out in outputs)}
    return outputs, metrics | {name: sum(out.terms[name] for out in outputs) for name in outputs[0].terms}


def _live(
    state: TrainingState, minibatch: Rollout, advantages: Tensor, weights: Tensor
) -> tuple[Tensor, LossOutput | None]:
    """The rows (B',) long of a minibatch that have a gradient, and the loss of those that count and have none.

    A completion without a verdict weighs nothing. One with advantage 0 has no gradient either, unless the loss holds
    something other than a multiple of the advantage: the loss itself, evaluated at log-probs that are not the old ones,
    tells.
    """
    everything = torch.arange(len(minibatch), device=weights.device)
    if not state.policy.shortcuts:
        return everything, None
    counts = weights.any(1)  # (B,)
    flat = counts & (advantages.view(len(counts), -1) == 0).all(1)
    if not flat.any() or state.needs_values or state.entropy_coef or state.reference is not None:
        return everything[counts], None
    idle = state.loss_batch(minibatch.rows(everything[flat]), advantages[flat])
    with torch.enable_grad():
        idle.logps = (idle.logps - 0.01 * idle.mask).requires_grad_()
        out = state.loss(idle, weights[flat])
        slope = torch.autograd.grad(out.loss, idle.logps, allow_unused=True)[0] if out.loss.requires_grad else None
    if slope is not None and slope.any():
        return everything[counts], None
    return everything[counts & ~flat], out.detach()


def _zero_grad(state: TrainingState) -> None:
    """Gradients of 0, not None: where no row of a minibatch has one, AdamW still moves by its momentum.

    None for what is frozen, or AdamW would move that too, by a momentum from before.
    """
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()
            else:
                parameter.grad = torch.zeros_like(parameter)


def _check_finite(state: TrainingState, what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        state.optimizer.zero_grad()
        raise FloatingPointError(
            f"the {what} is {float(value.detach())} at update {state.n_updates} (timestep {state.num_timesteps}); "
            "no step was taken. Look at train/grad_norm, train/ratio_max and train/logp_gap_token of the rollouts "
            f"before: a learning rate too large (now {state.current_learning_rate:g}) or a dtype too narrow "
            f"(now {state.policy.compute_dtype}) are the usual causes. Earlier checkpoints are untouched"
        )
