"""``check_algorithm``: what every policy optimizer promises about its loss. Its training is in ``training.py``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from espo_gym.algorithms import PolicyOptimizer
from espo_gym.rollout import Rollout

from .failure import Fault, run
from .hyperparameters import documented, out_of_range
from .rollouts import Outcome, difference, logps_near, make, outcome, padded, random_rollout
from .training import learning, metric_names, resuming

CLOSE = 1e-9  # of float64 sums in another order
Chosen = dict[str, Any]
WRITTEN = ("old_logps", "entropies", "values", "ref_logps", "sampler_logps")
EXTRAS = ("kl_coef", "kl_estimator", "kl_in", "kl_target", "kl_horizon", "sampler_correction", "sampler_cap")
SURROGATE_ALONE: Chosen = {name: PolicyOptimizer.hyperparameters()[name] for name in EXTRAS}


def check_algorithm(cls: type[PolicyOptimizer], **hyperparameters: Any) -> None:
    """Check that ``cls`` is a sound policy optimizer, in a few seconds.

    ``hyperparameters`` are those to check it with; all others have the values of the preset "paper".

    Raises:
        ConformanceError: naming the first check that failed. The checks, in this order, are the functions of
            :data:`CHECKS`; the docstring of each says what must hold.
    """
    run(cls.__name__, CHECKS, cls, hyperparameters)


def finite(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """Advantages, weights, loss, gradient and metrics are finite on every batch that can occur: one-token completions,
    empty ones, no verdicts at all, equal or zero entropies, equal rewards, a single completion, ratios from e^-30 to
    e^30.
    """
    algo = make(cls, chosen)
    for name, (rollout, noise) in _edges().items():
        result = outcome(algo, rollout, logps_near(rollout, noise))
        parts = {"advantage": result.advantages, "weight": result.weights, "gradient": result.gradient}
        metrics = {f"metric {key}": torch.tensor(value) for key, value in result.out.metrics.items()}
        for what, value in (parts | {"loss": result.loss} | metrics).items():
            if not torch.isfinite(value).all():
                raise Fault(
                    f"on a batch with {name}: the {what} is {value[~torch.isfinite(value)][0].item()}",
                    "divisions by a count or a std that can be 0, and inf * 0 in a gradient",
                )


def _edges() -> dict[str, tuple[Rollout, float]]:
    plain = random_rollout(dtype=torch.float32)
    flat = replace(plain, entropies=torch.ones_like(plain.entropies))
    zero = replace(plain, entropies=torch.zeros_like(plain.entropies))
    equal = replace(plain, rewards=torch.ones_like(plain.rewards))
    short = random_rollout(lengths=(1, 1, 1, 1), no_verdict=(), dtype=torch.float32)
    holes = random_rollout(lengths=(0, 3, 0, 2), no_verdict=(), dtype=torch.float32)
    empty = random_rollout(lengths=(0, 0), no_verdict=(), dtype=torch.float32)
    failed = random_rollout(lengths=(2, 3), no_verdict=(0, 1), dtype=torch.float32)
    single = random_rollout(lengths=(3,), no_verdict=(), dtype=torch.float32)
    return {
        "ragged completions": (plain, 0.02),
        "huge and tiny ratios": (plain, 15.0),
        "equal entropies": (flat, 0.02),
        "zero entropy": (zero, 0.02),
        "equal rewards": (equal, 0.02),
        "completions of one token": (short, 0.02),
        "empty completions": (holes, 0.02),
        "nothing but empty completions": (empty, 0.02),
        "no verdict at all": (failed, 0.02),
        "a single completion": (single, 0.02),
    }


def repeatable(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """The same batch gives the same loss and gradient the second time. State that an algorithm learns from its batches
    may be kept in ``train``, not in ``advantages`` or ``loss``.
    """
    algo, rollout = make(cls, chosen), random_rollout()
    logps = logps_near(rollout)
    before = outcome(algo, rollout, logps)
    _same(before, outcome(algo, rollout, logps), "the same batch again", "advantages and loss: attributes, generators")


def masked_tokens(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """A token that the policy did not choose has a gradient of exactly 0, and its values change nothing."""
    algo, rollout = make(cls, chosen), random_rollout()
    logps = logps_near(rollout)
    before = outcome(algo, rollout, logps)
    leak = before.gradient[~rollout.mask]
    if leak.any():
        raise Fault(f"a gradient of {float(leak.abs().max()):g} at a masked token", "loss_batch, surrogate: the mask")

    def other(x: Tensor) -> Tensor:
        return torch.where(rollout.mask, x, x - 0.7)

    changes: dict[str, Any] = {name: other(getattr(rollout, name)) for name in WRITTEN}
    _same(before, outcome(algo, replace(rollout, **changes), other(logps)), "other numbers under the mask", "the mask")


def permutation(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """Permuting the completions leaves the loss the same and permutes their gradients."""
    algo, rollout = make(cls, chosen), random_rollout()
    logps, order = logps_near(rollout), torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])
    before = outcome(algo, rollout, logps)
    after = outcome(algo, rollout.rows(order), logps[order])
    moved = replace(before, gradient=before.gradient[order])
    _same(moved, after, "the rows in another order", "advantages: which rows share a problem is in rollout.groups")


def padding(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """More padding columns change neither loss nor gradient, whatever they contain."""
    algo, rollout = make(cls, chosen), random_rollout()
    logps = logps_near(rollout)
    before = outcome(algo, rollout, logps)
    after = outcome(algo, padded(rollout, 3, 0.9), torch.nn.functional.pad(logps, (0, 3), value=-0.4))
    cut = replace(after, gradient=after.gradient[:, : logps.shape[1]])
    _same(before, cut, "3 more columns of padding", "means and denominators: they are over batch.mask, not over T")


def no_verdict(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """A completion without a verdict has a gradient of exactly 0; neither its reward nor its presence changes anything.

    The verifier failed there, so nothing is known: it counts neither as wrong nor in any mean or denominator.
    """
    algo, rollout = make(cls, chosen), random_rollout()
    logps, judged = logps_near(rollout), rollout.has_verdict
    before = outcome(algo, rollout, logps)
    leak = before.gradient[~judged]
    if leak.any():
        raise Fault(f"a gradient of {float(leak.abs().max()):g} without a verdict", "loss_batch: has_verdict")
    look = "advantages and token_weights: use rollout.has_verdict and batch.mask"
    paid = replace(rollout, rewards=torch.where(judged, rollout.rewards, 5.0))
    _same(before, outcome(algo, paid, logps), "another reward on them", look)
    rows = judged.nonzero().squeeze(1)
    gone = outcome(algo, rollout.rows(rows), logps[rows])
    kept = replace(before, gradient=before.gradient[rows])
    _same(kept, gone, "them left out", look)


def micro_batches(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """The gradients of the micro-batches add up to that of the minibatch, however it is split."""
    algo, rollout = make(cls, chosen), random_rollout()
    logps = logps_near(rollout)
    before = outcome(algo, rollout, logps)
    for size in (1, 3):
        parts = torch.arange(len(rollout)).split(size)
        after = outcome(algo, rollout, logps, parts=[part.tolist() for part in parts])
        look = "loss and surrogate: a normalizer over the batch belongs into token_weights, which sees all of it"
        _same(before, after, f"micro-batches of {size}", look)


def zero_advantage(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """If every advantage is 0, the gradient is exactly 0, except for a divergence from the reference."""
    algo, rollout = make(cls, chosen | SURROGATE_ALONE), random_rollout()
    zero = torch.zeros(len(rollout), dtype=torch.float64)
    gradient = outcome(algo, rollout, logps_near(rollout), advantages=zero).gradient
    if gradient.any():
        found = f"a gradient of up to {float(gradient.abs().max()):g}"
        raise Fault(found, "loss and surrogate: terms without the advantage belong behind a coefficient that is 0")


def ratio_one(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """If the new policy equals the old one, the gradient is the policy gradient implied by the weights: at each token
    -(weight * advantage), which multiplies the gradient of the log-prob. The divergence from the reference and the
    sampler correction are excluded.
    """
    algo, rollout = make(cls, chosen | SURROGATE_ALONE), random_rollout()
    result = outcome(algo, rollout, rollout.old_logps)
    batch = result.out.batch
    promised = -(result.weights * batch.advantages).masked_fill(~batch.mask, 0.0)
    gap = difference(promised, result.gradient)
    if not gap < CLOSE:
        raise Fault(f"a gradient that differs by {gap:.2g} of the largest entry", "surrogate: its slope at ratio 1")
    ratio = result.out.ratio[batch.mask]
    if not float((ratio - 1).abs().max()) < CLOSE:
        raise Fault(
            f"ratios from {float(ratio.min()):g} to {float(ratio.max()):g}, the policies being the same", "ratios"
        )


def gradient_at_all(cls: type[PolicyOptimizer], chosen: Chosen) -> None:
    """A batch of good and bad completions has a gradient, on policy."""
    rollout = random_rollout()
    if not outcome(make(cls, chosen), rollout, rollout.old_logps).gradient.any():
        raise Fault("a gradient of 0 at every token", "advantages, and a detach too many in surrogate")


def _same(before: Outcome, after: Outcome, what: str, look: str) -> None:
    for name in ("loss", "gradient"):
        gap = difference(getattr(before, name), getattr(after, name))
        if not gap < CLOSE:
            raise Fault(f"with {what} the {name} differs by {gap:.2g} of its largest entry", look)


CHECKS = (
    documented,
    out_of_range,
    finite,
    repeatable,
    gradient_at_all,
    masked_tokens,
    permutation,
    padding,
    no_verdict,
    micro_batches,
    zero_advantage,
    ratio_one,
    metric_names,
    resuming,
    learning,
)
"""The checks in their order."""
