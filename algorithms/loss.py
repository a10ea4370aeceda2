"""One sum for every algorithm, and its four choices.

    loss = - sum_{i,t} weight[i,t] * surrogate(ratio[i,t], advantage[i,t], clip[i,t])

An :class:`Objective` holds the hyperparameters of that sum and nothing else: no policy, no environment. The optimizers
are objectives that also collect rollouts and take steps; the pure functions (``espo_loss`` and its siblings) are
objectives alone, and need nothing but torch.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from espo_gym.rollout import Rollout

from .hyperparameters import Hyperparameters
from .terms import Clip, clipped_surrogate, kl_estimate


@dataclass
class LossBatch:
    """What a loss sees. B completions, T tokens, padded on the right.

    A completion without a verdict leaves ``mask`` as the batch is made, and with it every mean, sum and denominator, so
    no formula has to remember it. Values under a masked position are never read and may be anything, NaN included.
    """

    logps: Tensor
    """(B, T) log pi(y_t), nats, at the sampling temperature; carries the gradient."""
    old_logps: Tensor
    """(B, T) the same under the behavior policy."""
    mask: Tensor
    """(B, T) bool: the policy's own tokens, end token included."""
    advantages: Tensor
    """(B,) or (B, T); kept as (B, T)."""
    entropies: Tensor | None = None
    """(B, T) nats, behavior policy, whole vocabulary. ESPO needs it."""
    vocab_size: int | None = None
    """Entries of the vocabulary. ESPO needs it."""
    token_groups: Tensor | None = None
    """(B, T) long: ESPO's entropy groups, where they have been made on a larger batch; None: made on this one."""
    ref_logps: Tensor | None = None
    """(B, T) log-probs under the frozen reference policy. A KL term needs it."""
    has_verdict: Tensor | None = None
    """(B,) bool; None: all have one."""
    values: Tensor | None = None
    """(B, T) predictions of the value head; carries gradient. PPO needs it, ``old_values``, ``returns``."""
    new_entropies: Tensor | None = None
    """(B, T) nats, new policy; carries gradient. An entropy bonus needs it."""
    sampler_logps: Tensor | None = None
    """(B, T) log-probs as the sampler saw them, where ``old_logps`` are the trainer's."""
    old_values: Tensor | None = None
    """(B, T) the same under the behavior policy."""
    returns: Tensor | None = None
    """(B, T) targets of the value head."""

    def __post_init__(self) -> None:
        shape = self.logps.shape
        if len(shape) != 2:
            raise ValueError(f"logps must be (B, T), not of shape {tuple(shape)}")
        self.mask = self.mask.bool()
        if self.has_verdict is not None:
            if self.has_verdict.shape != shape[:1]:
                raise ValueError(f"has_verdict must be (B,) = ({shape[0]},), not {tuple(self.has_verdict.shape)}")
            self.mask = self.mask & self.has_verdict.bool()[:, None]
        if self.advantages.dim() == 1:
            self.advantages = self.advantages[:, None].expand(-1, shape[1])
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor) and f.name != "has_verdict":
                if value.shape != shape:
                    raise ValueError(f"{f.name} must be (B, T) = {tuple(shape)} like logps, not {tuple(value.shape)}")
                if f.name != "mask":
                    setattr(self, f.name, value.masked_fill(~self.mask, 0))

    def need(self, name: str) -> Any:
        """The field ``name``; ValueError where it is missing."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"this loss needs LossBatch.{name}, which is None")
        return value


@dataclass
class LossOutput:
    """What a loss returns."""

    loss: Tensor
    """Scalar."""
    ratio: Tensor
    """(B, T) the importance ratio that the surrogate used; no gradient."""
    clipped: Tensor
    """(B, T) bool: the clip cuts this token's gradient."""
    weights: Tensor
    """(B, T) what each token counts for."""
    batch: LossBatch
    """The batch that the loss was computed on."""
    terms: dict[str, float] = field(default_factory=dict)
    """Scalars of this algorithm alone, such as PPO's value loss."""

    @property
    def metrics(self) -> dict[str, float]:
        """Scalars: those of :func:`update_metrics`, and ``terms``."""
        return update_metrics([self]) | self.terms

    def detach(self) -> LossOutput:
        """The same without the graph."""
        batch = replace(self.batch, logps=self.batch.logps.detach(), values=None, new_entropies=None)
        return replace(self, loss=self.loss.detach(), batch=batch)


@dataclass(kw_only=True, eq=False)
class Objective(Hyperparameters):
    """A loss: its hyperparameters and its four choices. A subclass overrides what differs."""

    kl_coef: float = 0.0
    """Weight of the KL divergence to the reference policy in the loss (0 = no such term)."""
    kl_estimator: str = "k3"
    """Estimator of that divergence: k1, k2 or k3."""
    kl_in: str = "loss"
    """Where it is applied: "loss", or "reward" (PPO: to each token; RLOO: to the completion)."""
    dual_clip: float | None = None
    """Bound, above 1, on how far the ratio can raise the loss of a bad completion (arXiv:1912.09729; verl uses 3)."""
    entropy_coef: float = 0.0
    """Weight of the entropy of the new policy, which the loss then rewards (0 = no such term)."""
    sampler_correction: str | None = None
    """Weigh by pi_old / pi_sampler where the sampler's log-probs are not the trainer's: per "token" or "sequence"."""
    sampler_cap: float = 2.0
    """That weight is cut off above this."""

    kl_in_reward: ClassVar[bool] = False
    """``advantages`` takes the divergence off the rewards where ``kl_in`` says so."""

    # -- the four choices --------------------------------------------------------------------------------------------

    def annotate(self, rollout: Rollout) -> Rollout:
        """``rollout`` with what the choices below share, such as ESPO's token groups; called once, before them.

        It returns a copy (``dataclasses.replace``) and leaves its argument as it is.
        """
        return rollout

    def advantages(self, rollout: Rollout) -> Tensor:
        """(N,) or (N, T): what a completion, or each of its tokens, is credited with."""
        raise NotImplementedError

    def ratios(self, batch: LossBatch) -> Tensor:
        """(B, T) importance ratio of new to old policy; carries the gradient."""
        raise NotImplementedError

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        """``(low, high)``: the ratio counts within [1 - low, 1 + high]. Each a number or (B, T)."""
        raise NotImplementedError

    def token_weights(self, batch: LossBatch) -> Tensor:
        """(B, T) what each token counts for; computed once over the whole optimizer batch."""
        raise NotImplementedError

    def ratio_bounds(self, batch: LossBatch) -> tuple[Clip, Clip]:
        """``(lowest, highest)`` ratio that the clip lets count, each a number or (B, T); for showing it."""
        low, high = self.clip_range(batch)
        return 1 - low, 1 + high

    def surrogate(self, batch: LossBatch) -> tuple[Tensor, Tensor, Tensor]:
        """``(surrogate, ratio, clipped)``, each (B, T): what is maximized, and what it was made of."""
        ratio = self.ratios(batch)
        low, high = self.clip_range(batch)
        surrogate, clipped = clipped_surrogate(ratio, batch.advantages, low, high, self.dual_clip)
        return surrogate, ratio.detach(), clipped & batch.mask

    # -- the sum -----------------------------------------------------------------------------------------------------

    def loss(self, batch: LossBatch, weights: Tensor | None = None) -> LossOutput:
        """The loss of ``batch``.

        ``weights`` (B, T) are the rows of ``token_weights`` of the whole optimizer batch that ``batch`` is a part of.
        Since they are fixed before the batch is cut, the gradients of the parts add up to that of the whole.
        """
        if weights is None:
            weights = self.token_weights(batch)
        surrogate, ratio, clipped = self.surrogate(batch)
        if self.sampler_correction:
            surrogate = surrogate * self.sampler_weights(batch)
        loss = -(weights * surrogate).sum()
        if self.entropy_coef:
            loss = loss - self.entropy_coef * (weights * batch.need("new_entropies")).sum()
        if self.kl_coef and self.kl_in == "loss":
            divergence = kl_estimate(batch.logps - batch.need("ref_logps"), self.kl_estimator)
            loss = loss + self.kl_coef * (weights * divergence).sum()
        return LossOutput(loss, ratio, clipped, weights, batch)

    def kl_penalty(self, rollout: Rollout) -> Tensor:
        """(N, T) what the divergence from the reference takes off the rewards; 0 unless ``kl_in`` is "reward"."""
        if not self.kl_coef or self.kl_in != "reward" or rollout.ref_logps is None:
            return torch.zeros_like(rollout.old_logps)
        penalty = self.kl_coef * kl_estimate(rollout.old_logps - rollout.ref_logps, self.kl_estimator)
        return penalty.masked_fill(~rollout.mask, 0.0)

    def sampler_weights(self, batch: LossBatch) -> Tensor:
        """Truncated importance weights pi_old / pi_sampler, (B, T) or (B, 1); no gradient."""
        log_weight = (batch.old_logps - batch.need("sampler_logps")).detach()
        if self.sampler_correction == "sequence":
            log_weight = log_weight.sum(1, keepdim=True)
        weight: Tensor = log_weight.exp()
        return weight.clamp(max=self.sampler_cap)

    def denominator(self, mask: Tensor) -> Tensor:
        """Scalar: what the weights of a batch with ``mask`` (B, T) are divided by.

        It is the number of completions with a token, the number of tokens, or 1, whichever ``token_weights`` of this
        algorithm averages over (up to a constant factor). A trainer that sees an optimizer batch in parts, by
        micro-batch or by rank, multiplies each part's own weights by ``denominator(part) / denominator(whole)``, the
        latter being the sum over parts, and has the weights of the whole. Rows without a verdict must be masked.

        Raises:
            ValueError: ``token_weights`` averages over something else; the algorithm then has to override this.
        """
        share = self._first_token_weight(lengths=[1]) / self._first_token_weight(lengths=[1, 2])
        if share == 2:
            return mask.any(1).sum()
        if share == 3:
            return mask.sum()
        if share == 1:
            return torch.ones((), dtype=torch.long, device=mask.device)
        raise ValueError(
            f"token_weights of {type(self).__name__} averages neither over completions nor over tokens: override "
            "denominator(mask)"
        )

    def _first_token_weight(self, lengths: list[int]) -> float:
        """What ``token_weights`` gives the first token of completions of these lengths."""
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        zeros = torch.zeros(mask.shape, dtype=torch.float64)
        batch = LossBatch(zeros, zeros, mask, zeros, entropies=zeros, vocab_size=2)
        return float(self.token_weights(batch)[0, 0])

    def validate(self) -> None:
        self.check(("kl_coef", "entropy_coef"), lambda x: 0 <= x < inf, ">= 0 and finite")
        self.check(("clip_low", "clip_high"), lambda x: x is None or 0 <= x < inf, ">= 0 and finite")
        self.check(("dual_clip",), lambda x: x is None or 1 < x < inf, "above 1, or None")
        self.check(("sampler_cap",), lambda x: x > 0, "> 0")
        self.check(("sampler_correction",), lambda x: x in (None, "token", "sequence"), "'token', 'sequence' or None")
        self.check(("kl_in",), lambda x: x in ("loss", "reward"), "'loss' or 'reward'")
        kl_estimate(torch.zeros(1), self.kl_estimator)
        if self.kl_in == "reward" and not self.kl_in_reward:
            raise ValueError(f"kl_in='reward' has no effect for {type(self).__name__}: its divergence is in the loss")
        super().validate()


def update_metrics(outputs: Sequence[LossOutput]) -> dict[str, float]:
    """Metrics of the batches that ``outputs`` are about, taken together; the same definitions for every algorithm.

    Everything is over the policy's own tokens of completions with a verdict; *active* tokens are those with a non-zero
    advantage, the only ones that a clip can cut.

    - ``ratio_min``, ``ratio_mean``, ``ratio_max``: of active tokens
    - ``clip_fraction_low``: share of tokens cut because a bad completion got less likely than 1 - low;
      ``clip_fraction_high``: share cut because a good one got more likely than 1 + high;
      ``clip_fraction_active``: both, as a share of active tokens
    - ``gradient_token_share``: share of tokens that are active and not cut
    - ``kl_k1``, ``kl_k3``: KL(old || new), at active tokens; ``ref_kl_k1``, ``ref_kl_k3``: KL(new || reference), if
      there is one, at all tokens
    """

    def tokens(name: str) -> Tensor:
        parts = [out if name in ("ratio", "clipped") else out.batch for out in outputs]
        return torch.cat([getattr(p, name).detach()[out.batch.mask] for p, out in zip(parts, outputs, strict=True)])

    n = sum(int(out.batch.mask.sum()) for out in outputs)
    if n == 0:
        return {}
    ratio, cut, advantages = tokens("ratio"), tokens("clipped"), tokens("advantages")
    active = advantages != 0
    metrics = {
        "clip_fraction_low": (cut & (advantages < 0)).sum() / n,
        "clip_fraction_high": (cut & (advantages > 0)).sum() / n,
        "clip_fraction_active": cut.sum() / active.sum().clamp(min=1),
        "gradient_token_share": (active & ~cut).sum() / n,
    }
    if active.any():  # the others need not have been computed
        ratio, moved = ratio[active], (tokens("old_logps") - tokens("logps"))[active]
        metrics |= {"ratio_min": ratio.min(), "ratio_mean": ratio.mean(), "ratio_max": ratio.max()}
        metrics |= {"kl_k1": moved.mean(), "kl_k3": kl_estimate(moved, "k3").mean()}
    if outputs[0].batch.ref_logps is not None:
        away = tokens("logps") - tokens("ref_logps")
        metrics |= {"ref_kl_k1": away.mean(), "ref_kl_k3": kl_estimate(away, "k3").mean()}
    return {name: float(value) for name, value in metrics.items()}


def loss_function(algorithm: type[Objective]) -> Callable[..., LossOutput]:
    """The loss of ``algorithm`` as a pure function of tensors: ``f(batch, **hyperparameters) -> LossOutput``.

    It runs the class's own code without policy and environment, for another trainer and for parity tests. Its signature
    is made from the class's fields, so that ``help(espo_loss)`` shows the hyperparameters that the loss has; those
    that only a trainer uses are left out.
    """

    def of_the_loss(level: type) -> bool:
        return issubclass(Objective, level) or getattr(level, "token_weights", None) is not Objective.token_weights

    levels = [c for c in algorithm.__mro__ if issubclass(c, Hyperparameters) and of_the_loss(c)]
    names = {name for level in levels for name in inspect.get_annotations(level)}
    own = [f for f in fields(algorithm) if f.name in names and f.init]

    def loss(batch: LossBatch, **hyperparameters: Any) -> LossOutput:
        return algorithm.formula(**hyperparameters).loss(batch)

    keyword = inspect.Parameter.KEYWORD_ONLY
    loss.__name__ = loss.__qualname__ = f"{algorithm.__module__.rpartition('.')[2]}_loss"
    loss.__module__ = algorithm.__module__
    loss.__doc__ = (
        f"The loss of :class:`{algorithm.__name__}` on ``batch``.\n\n{sys.modules[algorithm.__module__].__doc__}"
    )
    vars(loss)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter("batch", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=LossBatch),
            *(inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in own),
        ],
        return_annotation=LossOutput,
    )
    return loss
