"""The curves of a run as one picture."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANELS = (
    ("Accuracy", (("rollout/accuracy", "sampled, training"), ("eval/greedy", "greedy, held out"))),
    ("Entropy (nats per token)", (("rollout/entropy", "policy"),)),
    (
        "Share of tokens",
        (("train/clip_fraction_active", "clipped, of the active"), ("train/gradient_token_share", "with a gradient")),
    ),
    ("Gradient norm", (("train/grad_norm", "before clipping"),)),
)


def read_progress(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Metric -> ``[(timesteps, value), ...]`` of a run; where it was resumed, the later file wins.

    Raises FileNotFoundError: no metrics in ``run``.
    """
    files = sorted(run.glob("progress*.csv"), key=lambda p: int(p.stem.partition("_")[2] or 0))
    if not files:
        raise FileNotFoundError(f"no progress.csv in {run}: it is not the folder of a run")
    rows: dict[int, dict[str, str]] = {}
    for path in files:
        with path.open(newline="") as file:
            rows |= {int(row["time/timesteps"]): row for row in csv.DictReader(file)}
    curves: dict[str, list[tuple[int, float]]] = {}
    for step in sorted(rows):
        for name, value in rows[step].items():
            if value:
                curves.setdefault(name, []).append((step, float(value)))
    return curves


def plot_run(run: Path) -> Path:
    """Draw ``curves.png`` into the folder of a run and return its path."""
    curves = read_progress(run)
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: a library must not pick a backend or keep figures alive
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for name, label in lines:
            if name in curves:
                axes.plot(
                    *zip(*curves[name], strict=True), label=label, marker="o" if name.startswith("eval/") else None
                )
        axes.set_title(title, loc="left")
        axes.set_xlabel("completions")
        axes.grid(alpha=0.3)
        if len(lines) > 1 and axes.lines:
            axes.legend(frameon=False)
        if title.startswith(("Accuracy", "Share")):
            axes.set_ylim(0, 1.03)
    path = run / "curves.png"
    figure.savefig(path, dpi=120)
    return path
