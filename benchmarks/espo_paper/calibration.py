"""Clip ranges matched by clip fraction, on seeds that are not used for any result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from espo_gym.experiments.setting import Entry

from .plan import TARGET, TEACHING, Scale, candidate, entry, grid
from .quantities import CLIPPED, Curves, over_training

SEEDS = (100, 101)
"""Of the tuning runs."""

TrainEntries = Callable[[Sequence[Entry]], Curves]
"""Trains entries in short runs on SEEDS."""


@dataclass
class Calibration:
    """Ranges that were tried, and those that were chosen."""

    ranges: dict[str, float] = field(default_factory=dict)
    """Entry -> alpha, or lower side of a fixed clip."""
    targets: dict[str, float] = field(default_factory=dict)
    """Entry -> the clip fraction to match."""
    tried: dict[str, dict[float, float]] = field(default_factory=dict)
    """Entry -> width -> clip fraction."""

    def choose(self, name: str, target: float, fractions: Mapping[float, float]) -> None:
        """Record ``fractions``, width -> clip fraction, and the width that comes closest to ``target``."""
        self.targets[name], self.tried[name] = target, dict(fractions)
        self.ranges[name] = closest(fractions, target)

    @property
    def configurations(self) -> int:
        """Number of settings that were tried."""
        return sum(map(len, self.tried.values()))

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        return asdict(self) | {"seeds": SEEDS}


def closest(fractions: Mapping[float, float], target: float) -> float:
    """The width whose clip fraction is closest to ``target``; of two equally close ones the narrower.

    Raises ValueError: no clip fraction is known.
    """
    known = {width: fraction for width, fraction in fractions.items() if np.isfinite(fraction)}
    if not known:
        raise ValueError(f"no clip fraction was measured at any of the widths {', '.join(map(str, fractions))}")
    return min(sorted(known), key=lambda width: abs(known[width] - target))


def calibrate(scale: Scale, names: Sequence[str], train: TrainEntries) -> Calibration:
    """Ranges for the base entries, if the scale has none, and for ``names``, which should clip as much as ESPO."""
    result = Calibration(ranges=dict(scale.ranges))
    if not scale.ranges:
        for name, fractions in _fractions(("espo", "gspo"), TEACHING, scale.grid, train).items():
            result.choose(name, TARGET, fractions)
    if names:
        espo = entry("espo", result.ranges)
        target = float(np.nanmean(over_training(train([espo]), "espo", CLIPPED)))
        for name, fractions in _fractions(names, result.ranges, scale.grid, train).items():
            result.choose(name, target, fractions)
    return result


def _fractions(
    names: Sequence[str], base: Mapping[str, float], size: int, train: TrainEntries
) -> dict[str, dict[float, float]]:
    """Entry -> width -> clip fraction, mean over the tuning seeds."""
    candidates = {(name, width): candidate(name, width) for name in names for width in grid(name, base, size)}
    entries = [Entry(f"{name}_{width:g}", e.algo, e.hyperparameters) for (name, width), e in candidates.items()]
    curves = train(entries)
    fractions: dict[str, dict[float, float]] = {name: {} for name in names}
    for (name, width), e in zip(candidates, entries, strict=True):
        fractions[name][width] = float(np.nanmean(over_training(curves, e.name, CLIPPED)))
    return fractions
