"""One sum for every algorithm, and its four choices.

    loss = - sum_{i,t} weight[i,t] * surrogate(ratio[i,t], advantage[i,t], clip[i,t])

An :class:`Objective` holds the hyper-parameters of that sum and nothing else: no policy, no environment. The
optimizers are objectives that also collect rollouts and take steps; the pure functions (``espo_loss`` and its
siblings) are objectives without that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from espo_gym.rollout import Rollout

from .terms import Clip, clipped_surrogate, kl_estimate


@dataclass
class LossBatch:
    """What a loss sees. B responses, T tokens, padded on the right.

    A response without a verdict leaves ``mask`` as the batch is made, and with it every mean, sum and denominator, so
    no formula has to remember it. Values under a masked position are never read and may be anything, NaN included.
    """

    logps: Tensor
    """(B, T) log pi(y_t), nats, at the sampling temperature; carries the gradient."""
    old_logps: Tensor
    """(B, T) the same under the behaviour policy."""
    mask: Tensor
    """(B, T) bool: the policy's own tokens, end token included."""
    advantages: Tensor
    """(B,) or (B, T); kept as (B, T)."""
    entropies: Tensor | None = None
    """(B, T) nats, behaviour policy, whole vocabulary. ESPO needs it."""
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
    """(B, T) the same under the behaviour policy."""
    returns: Tensor | None = None
    """(B, T) what the value head should have said."""

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
        """The field ``name``, or an error that says who wants it."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"this loss needs LossBatch.{name}, which is None")
        return value


@dataclass
class LossOutput:
    """What a loss says."""

    loss: Tensor
    """Scalar."""
    ratio: Tensor
    """(B, T) the importance ratio that the surrogate used; no gradient."""
    clipped: Tensor
    """(B, T) bool: the clip cuts this token's gradient."""
    weights: Tensor
    """(B, T) what each token counts for."""
    batch: LossBatch
    """What the loss was taken of."""
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


SWITCHES = {
    "kl_estimator": "kl_coef",
    "kl_in": "kl_coef",
    "kl_target": "kl_coef",
    "kl_horizon": "kl_target",
    "sampler_cap": "sampler_correction",
    "max_resamples": "dynamic_sampling",
}
"""Options that say how, and the one each of them needs that says whether."""


@dataclass(kw_only=True, eq=False)
class Objective:
    """Hyper-parameters of a loss and the four choices. A subclass overrides what differs."""

    preset: str | None = None
    """Set of defaults: "paper" is for large models at learning rates near 1e-6, "teaching" for the bundled policy,
    whose configuration recommends it. None takes what the policy recommends, else "paper"."""
    kl_coef: float = 0.0
    """Weight of the KL divergence to the reference policy in the loss (0 = no such term)."""
    kl_estimator: str = "k3"
    """Estimator of that divergence: k1, k2 or k3."""
    kl_in: str = "loss"
    """Where it counts: "loss", or "reward" (PPO: of each token; RLOO: of the response)."""
    dual_clip: float | None = None
    """Bound, above 1, on how much the ratio can blow up the loss of a bad response (arXiv:1912.09729; verl uses 3)."""
    entropy_coef: float = 0.0
    """Weight of the entropy of the new policy, which the loss then rewards (0 = no such term)."""
    sampler_correction: str | None = None
    """Weigh by pi_old / pi_sampler where the sampler's log-probs are not the trainer's: per "token" or "sequence"."""
    sampler_cap: float = 2.0
    """That weight is cut off above this."""

    inapplicable: ClassVar[dict[str, str]] = {}
    """Options that mean nothing for this algorithm, and why."""
    kl_in_reward: ClassVar[bool] = False
    """``advantages`` takes the divergence off the rewards where ``kl_in`` says so."""
    _explicit: frozenset[str] = field(default=frozenset(), init=False, repr=False)  # what a preset must leave alone
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "teaching": {}}

    # -- the four choices --------------------------------------------------------------------------------------------

    def advantages(self, rollout: Rollout) -> Tensor:
        """(N,) or (N, T): what a response, or each of its tokens, is credited with."""
        raise NotImplementedError

    def ratios(self, batch: LossBatch) -> Tensor:
        """(B, T) importance ratio of new to old policy; carries the gradient."""
        raise NotImplementedError

    def clip_range(self, batch: LossBatch) -> tuple[Clip, Clip]:
        """``(low, high)``: the ratio counts within [1 - low, 1 + high]. Each a number or (B, T)."""
        raise NotImplementedError

    def token_weights(self, batch: LossBatch) -> Tensor:
        """(B, T) what each token counts for; computed once over the whole optimiser batch."""
        raise NotImplementedError

    def ratio_bounds(self, batch: LossBatch) -> tuple[Clip, Clip]:
        """``(lowest, highest)`` ratio that the clip lets count, each a number or (B, T); for showing it."""
        low, high = self.clip_range(batch)
        return 1 - low, 1 + high

    def surrogate(self, batch: LossBatch) -> tuple[Tensor, Tensor, Tensor]:
        """``(surrogate, ratio, clipped)``, each (B, T): what is maximised, and what it was made of."""
        ratio = self.ratios(batch)
        low, high = self.clip_range(batch)
        surrogate, clipped = clipped_surrogate(ratio, batch.advantages, low, high, self.dual_clip)
        return surrogate, ratio.detach(), clipped & batch.mask

    # -- the sum -----------------------------------------------------------------------------------------------------

    def loss(self, batch: LossBatch, weights: Tensor | None = None) -> LossOutput:
        """The loss of ``batch``.

        ``weights`` (B, T) are the rows of ``token_weights`` of the whole optimiser batch that ``batch`` is a part of.
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
        return log_weight.exp().clamp(max=self.sampler_cap)

    # -- hyper-parameters --------------------------------------------------------------------------------------------

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._explicit = frozenset(kwargs)
        return self

    @classmethod
    def formula(cls, **hyperparameters: Any) -> Self:
        """The algorithm without policy and environment: its hyper-parameters and its loss."""
        unknown = set(hyperparameters) - set(cls.hyperparameters())
        if unknown:
            raise TypeError(
                f"{cls.__name__} has no hyper-parameter {', '.join(sorted(unknown))}; it has "
                + ", ".join(sorted(cls.hyperparameters()))
            )
        self = cls.__new__(cls, **hyperparameters)
        vars(self).update({name: hyperparameters.get(name, value) for name, value in cls.hyperparameters().items()})
        self.apply_preset("paper")
        return self

    @classmethod
    def hyperparameters(cls, preset: str = "paper") -> dict[str, Any]:
        """Everything that can be set by keyword, with the value that ``preset`` gives it."""
        levels = [vars(c).get("presets", {}) for c in reversed(cls.__mro__)]  # parents first
        known = sorted({name for level in levels for name in level})
        if preset not in known:
            raise ValueError(f"preset must be one of {', '.join(known)}, not {preset!r}")
        values = {f.name: f.default for f in fields(cls) if f.kw_only and f.init} | {"preset": preset}
        for level in levels:
            values |= level.get(preset, {})
        return values

    def apply_preset(self, recommended: str) -> None:
        """Take the preset's value for everything that was not given by keyword, and check the whole."""
        self.preset = self.preset or recommended
        chosen = self.hyperparameters(self.preset)
        vars(self).update({name: value for name, value in chosen.items() if name not in self._explicit})
        self.validate()

    def validate(self) -> None:
        """Raise ValueError where a hyper-parameter is out of its range."""
        self.check(("kl_coef", "entropy_coef"), lambda x: 0 <= x < inf, ">= 0 and finite")
        self.check(("clip_low", "clip_high"), lambda x: x is None or 0 <= x < inf, ">= 0 and finite")
        self.check(("dual_clip",), lambda x: x is None or 1 < x < inf, "above 1, or None")
        self.check(("sampler_cap",), lambda x: x > 0, "> 0")
        self.check(("sampler_correction",), lambda x: x in (None, "token", "sequence"), "'token', 'sequence' or None")
        self.check(("kl_in",), lambda x: x in ("loss", "reward"), "'loss' or 'reward'")
        kl_estimate(torch.zeros(1), self.kl_estimator)
        if self.kl_in == "reward" and not self.kl_in_reward:
            raise ValueError(f"kl_in='reward' means nothing for {type(self).__name__}: its divergence is in the loss")
        defaults = {f.name: f.default for f in fields(self)}
        for name, switch in SWITCHES.items():
            if name in defaults and getattr(self, name) != defaults[name] and not getattr(self, switch):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} means nothing without {switch}: set it, or drop {name}"
                )
        for name, reason in self.inapplicable.items():
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} means nothing for {type(self).__name__}: {reason}")

    def check(self, names: Sequence[str], holds: Callable[[Any], bool], what: str) -> None:
        """Raise ValueError unless each of these hyper-parameters that we have ``holds``; of NaN nothing does."""
        for name in names:
            try:
                fine = not hasattr(self, name) or holds(getattr(self, name))
            except TypeError:  # a text where a number belongs
                fine = False
            if not fine:
                raise ValueError(f"{name} must be {what}, not {getattr(self, name)!r}")


def update_metrics(outputs: Sequence[LossOutput]) -> dict[str, float]:
    """Metrics of the batches that ``outputs`` are about, taken together; the same definitions for every algorithm.

    Everything is over the policy's own tokens of responses with a verdict; *active* tokens are those with a non-zero
    advantage, the only ones that a clip can cut.

    - ``ratio_min``, ``ratio_mean``, ``ratio_max``: of active tokens
    - ``clip_fraction_low``: share of tokens cut because a bad response got less likely than 1 - low;
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
