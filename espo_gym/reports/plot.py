"""The curves of runs as one figure: PNG for a page, PDF for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from espo_gym.experiments.run_folder import CURVES, Run
from espo_gym.files import partial_file

from .curves import COLORS, DASHES, Group, group_runs

TITLES = {
    "rollout/reward_mean": "Reward",
    "rollout/accuracy": "Accuracy, sampled in training",
    "eval/greedy": "Accuracy, greedy on held-out",
    "rollout/entropy": "Entropy (nats per token)",
    "train/clip_fraction_active": "Clipped, of the active tokens",
    "train/gradient_token_share": "Tokens with a gradient",
    "train/grad_norm": "Gradient norm before clipping",
    "rollout/completion_length": "Tokens per completion",
    "rollout/zero_variance_groups": "Groups of equal rewards",
    "train/kl_k3": "KL(old || new), nats per token",
}
"""Titles of metrics; other metrics are shown by their name."""
PANELS = (
    "rollout/accuracy",
    "eval/greedy",
    "rollout/entropy",
    "train/clip_fraction_active",
    "train/gradient_token_share",
    "train/grad_norm",
)
SHARES = ("accuracy", "eval/", "gradient_token_share", "zero_variance", "verdict_")
"""The axis of metrics with one of these in their name is from 0 to 1."""
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # TrueType: publishers refuse the default, Type 3
}
WIDTHS = {1: 3.35, 2: 5.0, 3: 6.9}
"""Panels in a row -> width in inches: one column of a two-column page, up to the whole page."""


def draw(groups: Sequence[Group], metrics: Sequence[str] = PANELS) -> Figure:
    """A panel for each of ``metrics``, with a line for each group and its interval over seeds.

    Raises ValueError: no run has one of the metrics, which is not in ``PANELS``.
    """
    for metric in metrics:
        if all(group.curve(metric) is None for group in groups):
            known = ", ".join(sorted(set().union(*(group.metrics() for group in groups))))
            if metric not in PANELS:
                raise ValueError(f"no run has recorded the metric {metric!r}; there are {known or 'none yet'}")
    columns = min(3, len(metrics))
    rows = ceil(len(metrics) / columns)
    # As many names in a row as fit: at 7 points a letter takes about 0.055 inches.
    widest = max((len(group.label) for group in groups), default=0)
    per_row = max(1, min(len(groups), int(WIDTHS[columns] / (0.6 + 0.055 * widest))))
    legend_rows = ceil(len(groups) / per_row) if len(groups) > 1 else 0
    with matplotlib.rc_context(STYLE):
        size = (WIDTHS[columns], 1.95 * rows + 0.17 * legend_rows)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)  # no pyplot: a library must not pick a backend or keep figures alive
        axes = figure.subplots(rows, columns, squeeze=False)
        handles: dict[str, Line2D] = {}
        for panel, metric in zip(axes.flat, metrics, strict=False):
            _panel(panel, groups, metric, handles)
        for spare in axes.flat[len(metrics) :]:
            spare.remove()
        if legend_rows:
            labels = [group.label for group in groups if group.label in handles]
            lines = [handles[label] for label in labels]
            figure.legend(lines, labels, loc="outside upper center", ncols=per_row, frameon=False)
    return figure


def _panel(axes: Axes, groups: Sequence[Group], metric: str, handles: dict[str, Line2D]) -> None:
    lowest = 0.0
    for i, group in enumerate(groups):
        curve = group.curve(metric)
        if curve is None:
            continue
        lowest = min(lowest, curve.mean.min())
        color, dashes = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
        style = (0, dashes) if dashes else "-"
        marker = "o" if len(curve.x) < 9 else None
        (line,) = axes.plot(curve.x, curve.mean, color=color, linestyle=style, marker=marker, markersize=2.5)
        handles.setdefault(group.label, line)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
    axes.set_title(TITLES.get(metric, metric), loc="left")
    axes.set_xlabel("completions")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3, linewidth=0.4)
    if any(word in metric for word in SHARES):
        axes.set_ylim(0, 1.03)
    elif lowest >= 0:
        axes.set_ylim(bottom=0)  # what is never negative has no interval below 0


def save(figure: Figure, out: Path) -> list[Path]:
    """Write ``figure`` to ``out``, as PNG or PDF by its extension; both if it has none. Returns the files.

    Raises ValueError: another extension.
    """
    if out.suffix not in ("", ".png", ".pdf"):
        raise ValueError(f"a figure is written as .png or .pdf, or as both without an extension, not as {out.name}")
    paths = [out] if out.suffix else [out.with_name(out.name + ending) for ending in (".png", ".pdf")]
    out.parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        # Without a date, the same curves are the same file.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
        with partial_file(path) as part, matplotlib.rc_context(STYLE):
            figure.savefig(part, format=path.suffix[1:], dpi=200, metadata=metadata)
    return paths


def plot_run(run: Path) -> Path:
    """Draw curves.png into the folder of a run; returns its path. Raises like ``Run.read``."""
    return save(draw(group_runs([Run.read(run)])), run / CURVES)[0]
