"""What is run: the entries behind the claims, the scales and their two regimes.

*calm* is a learning rate at which everything learns; *stress* has three times that rate and three epochs, so that
ratios move far and clips matter. Entries of a regime differ only in what their name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from espo_gym.algorithms import ESPO
from espo_gym.experiments.setting import Entry

from .warm_start import ENV, WarmStart

TARGET = 0.1
"""Clip fraction to which base ranges are calibrated at a scale without given ones."""
TEACHING = {"espo": 0.5, "gspo": 0.03}
"""Base ranges of the preset "teaching": ESPO's alpha, and the lower side of GSPO's clip."""
RANDOM, REWEIGHTED = (f"benchmarks.espo_paper.controls:{name}" for name in ("RandomGroups", "GSPOWithESPOWeights"))


@dataclass(frozen=True)
class Regime:
    """How hard each rollout is trained on."""

    rollouts: int
    hyperparameters: dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """A task, a policy, and how it is trained."""

    env: str
    env_args: dict[str, Any]
    regimes: dict[str, Regime]
    warm_start: WarmStart | None = None
    """None: the bundled policy and its siblings; seed s starts from number s modulo their number."""
    siblings: int = 1
    """Number of policies, the bundled one included."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Of every regime; the rest is the preset "teaching"."""
    ranges: dict[str, float] = field(default_factory=dict)
    """Base ranges, like TEACHING; empty: calibrated to TARGET."""
    tuning_rollouts: int = 5
    grid: int = 8
    """Number of widths to try."""
    rollout_size: int = 256

    def timesteps(self, rollouts: int) -> int:
        """Completions in ``rollouts`` rollouts."""
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
    """``scale`` with almost no training: it proves that everything runs and says nothing about the claims."""
    warm_start = scale.warm_start
    env_args = scale.env_args
    if warm_start is not None:
        env_args = warm_start.env_args | {"terms": 3, "digits": 2}
        warm_start = replace(warm_start, env_args=env_args, size="0.1m", context=64, steps=500, learning_rate=3e-3)
    return replace(
        scale,
        env_args=env_args,
        warm_start=warm_start,
        hyperparameters=scale.hyperparameters | {"n_minibatches": 2, "max_completion_tokens": 48},
        regimes={name: replace(regime, rollouts=5) for name, regime in scale.regimes.items()},
        siblings=1,
        tuning_rollouts=3,
        grid=3,
        rollout_size=32,
    )


def fixed(width: float) -> dict[str, float]:
    """A fixed clip with sides in the ratio 3 to 4, like GSPO's (arXiv:2507.18071: 3e-4 and 4e-4)."""
    return {"clip_low": width, "clip_high": float(f"{width * 4 / 3:.4g}")}


def entry(name: str, ranges: Mapping[str, float]) -> Entry:
    """The entry called ``name``. ``ranges`` has a base range for "espo" and "gspo", and one for each matched entry."""
    alpha = ranges["espo"]
    if name.endswith("-matched"):
        return candidate(name, ranges[name])
    if name == "gspo-espo-weights":
        return Entry(name, REWEIGHTED, fixed(ranges["gspo-matched"]))
    entries: dict[str, tuple[str, dict[str, Any]]] = {
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
    algo, hyperparameters = entries[name]
    return Entry(name, algo, hyperparameters)


def candidate(name: str, width: float) -> Entry:
    """The entry ``name``, whose clip is to be matched, at ``width``: the lower side of a fixed clip, or alpha."""
    entries: dict[str, tuple[str, dict[str, Any]]] = {
        "espo": ("espo", {"alpha": width}),
        "gspo": ("gspo", fixed(width)),
        "gspo-matched": ("gspo", fixed(width)),
        "fixed-clip-matched": ("espo", fixed(width)),
        "no-groups-matched": ("espo", {"alpha": width} | ESPO.ablation("no_grouping")),
        "random20-matched": (RANDOM, {"alpha": width}),
    }
    algo, hyperparameters = entries[name]
    return Entry(name, algo, hyperparameters)


def to_match(names: list[str]) -> list[str]:
    """The entries in ``names`` whose range is calibrated; GSPO with ESPO's weights has that of the matched GSPO."""
    wanted = [*names, *(["gspo-matched"] if "gspo-espo-weights" in names else [])]
    return list(dict.fromkeys(name for name in wanted if name.endswith("-matched")))


SPANS = {"espo": (-10, 4), "gspo": (-10, 4), "no-groups-matched": (-5, 2), "random20-matched": (-1, 6)}
"""Widths are tried between these powers of two times the base range, and between -4 and 3 for other entries. A base
range at a new scale may lie anywhere; a clip per token must be narrower than ESPO's, one for random groups wider."""


def grid(name: str, base: Mapping[str, float], size: int) -> list[float]:
    """``size`` widths to try for the entry ``name``, evenly spaced over its span on a logarithmic scale."""
    low, high = SPANS.get(name, (-4, 3))
    center = base["gspo"] if name in ("gspo", "gspo-matched", "fixed-clip-matched") else base["espo"]
    return [float(f"{center * 2**e:.4g}") for e in np.linspace(low, high, size)]
