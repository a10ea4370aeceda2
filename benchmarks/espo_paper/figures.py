"""The figures: curves (Fig. 5: entropy against clip fraction) next to the quantities of the claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .claims import Judged
from .quantities import ACCURACY, CLIPPED, ENTROPY, WARMUP, Curves
from .report import title
from .verdicts import NOT_REPRODUCED, NOT_RESOLVED, REPRODUCED

COLORS = {REPRODUCED: "tab:green", NOT_REPRODUCED: "tab:red", NOT_RESOLVED: "tab:gray"}
NAMES = {ACCURACY: "sampled accuracy", CLIPPED: "clip fraction of active tokens", ENTROPY: "entropy (nats)"}


def draw(figure: str, regime: str, judged: Sequence[Judged], curves: Curves, path: Path) -> Path:
    """Draw ``figure`` in ``regime`` with its claims ``judged`` as PNG; returns ``path``."""
    entries = list(dict.fromkeys(name for j in judged for part in j.claim.parts for name in part.entries))
    n_parts = sum(len(j.parts) for j in judged)
    picture = Figure(figsize=(12, max(4.0, 1.5 + 0.3 * n_parts)), layout="constrained")
    FigureCanvasAgg(picture)  # no pyplot: no backend is picked and no figure kept alive
    left, right = picture.subplots(1, 2)
    picture.suptitle(f"{title(figure)}, {regime}")
    if figure == "fig5":
        _scatter(left, entries, curves)
    else:
        _lines(left, entries, curves, CLIPPED if figure == "fig4" else ACCURACY)
    _forest(right, judged)
    picture.savefig(path, dpi=110)
    return path


def _lines(axes: Any, entries: Sequence[str], curves: Curves, metric: str) -> None:
    for i, name in enumerate(entries):
        curve = curves(metric)[name]  # (seeds, rollouts)
        x, mean = range(1, curve.shape[1] + 1), curve.mean(0)
        half = curve.std(0, ddof=1) / len(curve) ** 0.5 if len(curve) > 1 else 0 * mean
        (line,) = axes.plot(x, mean, label=name, linestyle=("-", "--", ":")[i // 10 % 3])
        axes.fill_between(x, mean - half, mean + half, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("rollout")
    axes.set_ylabel(f"{NAMES[metric]}: mean and standard error")
    axes.legend(frameon=False, fontsize="small")


def _scatter(axes: Any, entries: Sequence[str], curves: Curves) -> None:
    for name in entries:
        x, y = (curves(metric)[name][:, WARMUP:].ravel() for metric in (ENTROPY, CLIPPED))
        axes.scatter(x, y, label=name, s=6, alpha=0.5)
    axes.set_xlabel(NAMES[ENTROPY])
    axes.set_ylabel(NAMES[CLIPPED])
    axes.legend(frameon=False, fontsize="small")


def _forest(axes: Any, judged: Sequence[Judged]) -> None:
    labels: list[str] = []
    for j in judged:
        for part, m, v in j.parts:
            y = -len(labels)
            bounded = m.high - m.low < float("inf")
            axes.errorbar(
                m.mean, y, xerr=(m.high - m.low) / 2 if bounded else None, fmt="o", color=COLORS[v], capsize=3
            )
            axes.plot([part.margin] * 2, [y - 0.3, y + 0.3], color="black", linewidth=0.8)
            labels.append(part.label + (" (control)" if j.claim.control else ""))
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks([-i for i in range(len(labels))], labels, fontsize="small")
    axes.set_xlabel("the claim says: above 0 (tick: least effect that counts)")
    for v, color in COLORS.items():
        axes.plot([], [], "o", color=color, label=v)
    axes.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(COLORS))
