"""What is run: the entries behind the claims, the scales and their two regimes.

*calm* is a learning rate at which everything learns, *stress* three times as much and three epochs, where the ratios go
far and clips matter. Entries of a regime differ in what their name says and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from espo_gym.algorithms import ESPO
from espo_gym.experiments.compare import Entry

from .warm_start import ENV, WarmStart

TARGET = 0.1
"""Clip fraction that base ranges are calibrated to at a scale that has none."""
TEACHING = {"espo": 0.5, "gspo": 0.03}
"""Base ranges, alpha of ESPO and lower side of GSPO's clip, of the preset "teaching"."""
RANDOM, REWEIGHTED = (f"benchmarks.espo_paper.controls:{name}" for name in ("RandomGroups", "GSPOWithESPOWeights"))


@dataclass(frozen=True)
class Regime:
    """How hard the policy is pushed."""

    rollouts: int
    hyperparameters: dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """A task, a policy, and how long and how it is trained."""

    env: str
    env_args: dict[str, Any]
    regimes: dict[str, Regime]
    warm_start: WarmStart | None = None
    """None: the bundled policy and its siblings, so many in all; seed s starts from number s modulo that."""
    siblings: int = 1
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """In every regime; the rest is the preset "teaching"."""
    ranges: dict[str, float] = field(default_factory=dict)
    """Base ranges, like TEACHING; empty: calibrated to TARGET."""
    tuning_rollouts: int = 5
    grid: int = 8
    """Widths that are tried."""
    rollout_size: int = 256

    def timesteps(self, rollouts: int) -> int:
        return rollouts * self.rollout_size


SCALES = {
    "small": Scale(
        env="espo_gym/Addition-v0",
        env_args={},
        siblings=3,
        ranges=TEACHING,
        regimes={
            "calm": Regime(30, {"learning_rate": 1e-4}),
            "stress": Regime(20, {"learning_rate": 3e-4, "n_epochs": 3}),
        },
    ),
    "gpu": Scale(
        env=ENV,
        env_args={"terms": 10, "digits": 3, "operators": "+"},
        warm_start=WarmStart({"terms": 10, "digits": 3, "operators": "+"}, "26m", context=512, steps=6000),
        hyperparameters={"max_completion_tokens": 448},
        regimes={
            "calm": Regime(60, {"learning_rate": 3e-5}),
            "stress": Regime(40, {"learning_rate": 1e-4, "n_epochs": 3}),
        },
    ),
}


def smallest(scale: Scale) -> Scale:
    """The same with almost no training: it proves the path and says nothing about the claims."""
    made = scale.warm_start
    env_args = scale.env_args
    if made is not None:
        env_args = made.env_args | {"terms": 3, "digits": 2}
        made = replace(made, env_args=env_args, size="0.1m", context=64, steps=500, learning_rate=3e-3)
    return replace(
        scale,
        env_args=env_args,
        warm_start=made,
        hyperparameters=scale.hyperparameters | {"n_minibatches": 2, "max_completion_tokens": 48},
        regimes={name: replace(regime, rollouts=5) for name, regime in scale.regimes.items()},
        siblings=1,
        tuning_rollouts=3,
        grid=3,
        rollout_size=32,
    )


def fixed(width: float) -> dict[str, float]:
    """A fixed clip whose two sides are as 3 to 4, those of GSPO (arXiv:2507.18071: 3e-4 and 4e-4)."""
    return {"clip_low": width, "clip_high": float(f"{width * 4 / 3:.4g}")}


def entry(name: str, ranges: Mapping[str, float]) -> Entry:
    """The entry of this name. ``ranges`` holds a base range for "espo" and "gspo", and one for each matched entry."""
    alpha = ranges["espo"]
    if name.endswith("-matched"):
        return candidate(name, ranges[name])
    if name == "gspo-espo-weights":
        return Entry(name, REWEIGHTED, fixed(ranges["gspo-matched"]))
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "espo": ("espo", {"alpha": alpha}),
        "gspo": ("gspo", fixed(ranges["gspo"])),
        "espo-printed": ("espo", {"alpha": 0.02}),
        "gspo-printed": ("gspo", {"clip_low": 3e-4, "clip_high": 4e-4}),
        "espo-top10": ("espo", {"alpha": alpha, "quantiles": (0.9,)}),
        "espo-top40": ("espo", {"alpha": alpha, "quantiles": (0.6,)}),
        "random10": (RANDOM, {"alpha": alpha, "quantiles": (0.9,)}),
        "random20": (RANDOM, {"alpha": alpha}),
        "random40": (RANDOM, {"alpha": alpha, "quantiles": (0.6,)}),
        "fixed-clip": ("espo", ESPO.ablation("no_adaptive_clip") | fixed(ranges["gspo"])),
        "fixed-clip-wide": ("espo", ESPO.ablation("no_adaptive_clip_wide")),
        "no-groups": ("espo", {"alpha": alpha} | ESPO.ablation("no_grouping")),
        "espo-token-weights": ("espo", {"alpha": alpha} | ESPO.ablation("token_weighting")),
        **{f"alpha-x{factor:g}": ("espo", {"alpha": alpha * factor}) for factor in (0.5, 2.5, 5)},
        **{algo: (algo, {}) for algo in ("grpo", "dapo", "gmpo", "cispo")},
    }
    algo, hyperparameters = made[name]
    return Entry(name, algo, hyperparameters)


def candidate(name: str, width: float) -> Entry:
    """The entry ``name``, whose clip is to be matched, at this width: of a fixed clip the lower side, else alpha."""
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "espo": ("espo", {"alpha": width}),
        "gspo": ("gspo", fixed(width)),
        "gspo-matched": ("gspo", fixed(width)),
        "fixed-clip-matched": ("espo", fixed(width)),
        "no-groups-matched": ("espo", {"alpha": width} | ESPO.ablation("no_grouping")),
        "random20-matched": (RANDOM, {"alpha": width}),
    }
    algo, hyperparameters = made[name]
    return Entry(name, algo, hyperparameters)


def to_match(names: list[str]) -> list[str]:
    """Those of the entries whose range is calibrated; GSPO with ESPO's weights has that of the matched GSPO."""
    wanted = [*names, *(["gspo-matched"] if "gspo-espo-weights" in names else [])]
    return list(dict.fromkeys(name for name in wanted if name.endswith("-matched")))


SPANS = {"espo": (-10, 4), "gspo": (-10, 4), "no-groups-matched": (-5, 2), "random20-matched": (-1, 6)}
"""Powers of two, around the base range, between which widths are tried; of the others from -4 to 3. A base range of
another scale may lie anywhere; a clip for each token has to be narrower, one of random groups wider than ESPO's."""


def grid(name: str, base: Mapping[str, float], size: int) -> list[float]:
    """``size`` widths to try for this entry, evenly spread over its span on a logarithmic scale."""
    low, high = SPANS.get(name, (-4, 3))
    centre = base["gspo"] if name in ("gspo", "gspo-matched", "fixed-clip-matched") else base["espo"]
    return [float(f"{centre * 2**e:.4g}") for e in np.linspace(low, high, size)]
