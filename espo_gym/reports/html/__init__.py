"""One self-contained HTML file: the curves, times, completions and configs of runs, and the token inspector.

The page needs no network, and its Content-Security-Policy only lets its own script and style run or load. Data from
runs (completions are written by a model) is JSON in which no tag can begin; the script turns it into text nodes, never
into HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from math import isfinite
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espo_gym import __version__
from espo_gym.estimate import over_seeds
from espo_gym.experiments.comparison import Comparison
from espo_gym.experiments.run_folder import Run
from espo_gym.files import write_text
from espo_gym.reports.curves import COLORS, DASHES, Curve, Group

from .findings import comparison_data, warnings_about

POINTS = 300
"""Maximum number of points in a curve; a longer one is drawn as means of neighboring points."""
PROBLEMS, SAMPLES, CHARACTERS = 8, 2, 2000
"""For the first run of each curve: problems shown, sampled completions of each besides the greedy one, and characters
after which they are cut off."""

SECTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Learning": (
        ("rollout/reward_mean", "Reward", "mean of a rollout, sampled in training"),
        ("rollout/accuracy", "Accuracy in training", "share correct, sampled at the training temperature"),
        ("eval/greedy", "Accuracy on held-out problems", "greedy decoding"),
    ),
    "Policy": (
        ("rollout/entropy", "Entropy", "nats per token"),
        ("rollout/completion_length", "Length", "mean tokens per completion"),
        ("rollout/completion_length_max", "Maximum length", "tokens of the longest completion of a rollout"),
        ("rollout/truncated", "Truncated", "share of completions cut off before they ended"),
    ),
    "Update": (
        ("train/clip_fraction_active", "Clip fraction", "tokens cut, as a share of those with an advantage"),
        (
            "train/clip_fraction_high",
            "Clip fraction, high",
            "tokens cut in good completions, of all tokens",
        ),
        (
            "train/clip_fraction_low",
            "Clip fraction, low",
            "tokens cut in bad completions, of all tokens",
        ),
        ("train/gradient_token_share", "Tokens with a gradient", "share that has an advantage and is not cut"),
        ("train/kl_k3", "KL(old || new)", "nats per token (k3): how far a rollout moves the policy"),
        ("train/grad_norm", "Gradient norm", "before it is scaled down to max_grad_norm"),
    ),
    "Groups and verdicts": (
        (
            "rollout/zero_variance_groups",
            "Groups of equal rewards",
            "share that group-based methods cannot learn from",
        ),
        ("rollout/verdict_correct", "Verdict: correct", "share of completions"),
        ("rollout/verdict_incorrect", "Verdict: incorrect", "share of completions"),
        ("rollout/verdict_no_answer", "Verdict: no answer", "share of completions that have none or are truncated"),
        ("rollout/verdict_no_verdict", "Verdict: none", "share on which the verifier failed"),
    ),
}
"""Charts: metric, title, note."""
AXES = {
    "share": {
        *("rollout/accuracy", "eval/greedy", "rollout/zero_variance_groups", "train/gradient_token_share"),
        *("rollout/verdict_correct", "rollout/verdict_incorrect"),
    },
    "small": {
        *("train/clip_fraction_active", "train/clip_fraction_high", "train/clip_fraction_low"),
        *("rollout/truncated", "rollout/verdict_no_answer", "rollout/verdict_no_verdict"),
    },
}
"""Metrics whose axis goes from 0 to 1, and from 0 to at least 0.05."""
PHASES = ("generate", "verify", "score", "update", "tokens_per_second")


def page(
    title: str,
    *,
    groups: Sequence[Group] = (),
    comparisons: Sequence[Comparison] = (),
    inspection: dict[str, Any] | None = None,
    note: str = "",
) -> str:
    """The HTML of a report.

    Args:
        title: of the page.
        groups: curves, none to leave them out.
        comparisons: those that the runs are of, whose findings are shown before the curves.
        inspection: from ``inspector.as_json``, None to leave it out.
        note: shown in place of the inspector, to say why it is missing.
    """
    data = {"report": report_data(groups, comparisons) if groups else None, "inspection": inspection, "note": note}
    style = _asset("page.css")
    scripts = ("page.js", "findings.js", "charts.js", "inspector.js")
    script = '"use strict";\n' + "\n".join(map(_asset, scripts))
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_asset("page.html")).substitute(
        title=html.escape(DIRECTIONS.sub(_escape, title)),
        policy=policy,
        style=style,
        script=script,
        data=embed(data),
        footer=html.escape(f"Made by espo_gym {__version__}. This file needs no network."),
    )


def embed(value: Any) -> str:
    """``value`` as JSON that is safe in a ``<script>`` element: no tag, comment or entity can begin in it.

    A lone surrogate, which cannot be encoded, becomes a question mark; a character that would change the direction of
    the text after it becomes its escape sequence, so that no text is displayed in another order than it has.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text = DIRECTIONS.sub(lambda match: f"\\{_escape(match)}", text.encode(errors="replace").decode())
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that do nothing but change the direction of the text around them."""


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in a new folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _asset(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The source expression that allows exactly this inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# -- data for the page -------------------------------------------------------------------------------------------------


def report_data(groups: Sequence[Group], comparisons: Sequence[Comparison] = ()) -> dict[str, Any]:
    """Everything that the page shows about ``groups`` and ``comparisons``, for JSON."""
    return {
        "warnings": warnings_about(groups),
        "comparisons": [comparison_data(comparison) for comparison in comparisons],
        "groups": [
            {
                "label": group.label,
                "colour": COLORS[i % len(COLORS)],
                "dashes": DASHES[i % len(DASHES)],
                "seeds": [run.seed for run in group.runs],
                "timesteps": [f([run.timesteps for run in group.runs]) for f in (min, max)],
                "figures": _figures(group),
            }
            for i, group in enumerate(groups)
        ],
        "sections": [
            {"title": title, "charts": drawn}
            for title, charts in SECTIONS.items()
            if (drawn := [chart for row in charts if (chart := _chart(groups, *row))])
        ],
        "phases": [{"group": i} | seconds for i, group in enumerate(groups) if (seconds := _phases(group))],
        "samples": [samples for group in groups if (samples := _samples(group.runs[0]))],
        "configs": [
            {"run": str(run.folder), "text": json.dumps(run.config, indent=2)} for group in groups for run in group.runs
        ],
    }


def _chart(groups: Sequence[Group], metric: str, title: str, note: str) -> dict[str, Any] | None:
    series = []
    for i, group in enumerate(groups):
        curve = group.curve(metric)
        if curve is not None:
            series.append({"group": i} | _series(curve))
    axis = next((axis for axis, metrics in AXES.items() if metric in metrics), None)
    chart = {"metric": metric, "title": title, "note": note, "axis": axis, "series": series}
    return chart if series else None


def _series(curve: Curve) -> dict[str, Any]:
    bins = min(POINTS, len(curve.x))

    def thin(values: NDArray[np.float64]) -> list[float]:
        return [float(f"{part.mean():.6g}") for part in np.array_split(values, bins)]

    x = [round(value) for value in thin(curve.x)] if bins < len(curve.x) else [int(value) for value in curve.x]
    series: dict[str, Any] = {"x": x, "y": thin(curve.mean), "n": curve.n}
    if curve.low is not None and curve.high is not None:
        series |= {"low": thin(curve.low), "high": thin(curve.high)}
    return series


def _phases(group: Group) -> dict[str, float]:
    """Seconds of each phase, mean over rollouts and seeds."""
    values = {name: np.concatenate([run.points(f"time/{name}")[1] for run in group.runs]) for name in PHASES}
    return {name: float(seconds.mean()) for name, seconds in values.items() if len(seconds)}


def _figures(group: Group) -> dict[str, Any]:
    """Held-out accuracy before and after training: over seeds, or of one seed with the interval of its evaluation.

    Figures that are not numbers are left out.
    """
    figures: dict[str, Any] = {}
    for when in ("before", "after"):
        rows: dict[str, list[dict[str, Any]]] = {}
        for run in group.runs:
            evaluation = run.evaluation.get(when)
            for name, row in evaluation.items() if isinstance(evaluation, dict) else ():
                if isinstance(row, dict) and _number(row.get("value")) is not None:
                    rows.setdefault(name, []).append(row)
        for name, found in rows.items():
            figures.setdefault(name, {})[when] = _figure(found)
    return figures


def _figure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of a share over ``rows``, each of the evaluation of a seed, or the one figure, with its interval."""
    if len(rows) == 1:
        return {key: _number(rows[0].get(key)) for key in ("value", "low", "high")}
    values = [float(row["value"]) for row in rows]
    ends = map(float, over_seeds(np.array(values), share=True))
    return dict(zip(("value", "low", "high"), map(_number, ends), strict=True)) | {"seeds": values}


def _number(value: Any) -> float | None:
    """``value`` if it is a finite number, else None, which JSON has."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _samples(run: Run) -> dict[str, Any] | None:
    """The first problems in samples.jsonl with the greedy completion and some samples, before and after training.

    ``unreadable`` counts the rows that are no rows of samples.
    """
    problems: dict[str, dict[str, Any]] = {}
    unreadable = 0
    for row in run.samples():
        if not _is_sample(row):
            unreadable += 1
            continue
        if row["prompt"] not in problems and len(problems) == PROBLEMS:
            continue
        problem = problems.setdefault(row["prompt"], {"prompt": _cut(row["prompt"]), "before": [], "after": []})
        here = problem[row["when"]]
        if len(here) < 1 + SAMPLES:
            kept = {key: row.get(key) for key in ("kind", "verdict", "reason")}
            here.append(kept | {"completion": _cut(row["completion"])})
    if not problems and not unreadable:
        return None
    return {"run": str(run.folder), "problems": list(problems.values()), "unreadable": unreadable}


def _is_sample(row: Any) -> bool:
    texts = ("when", "prompt", "kind", "completion", "verdict")
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in texts)
        and row["when"] in ("before", "after")
        and isinstance(row.get("reason"), str | None)
    )


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} ... ({len(text) - CHARACTERS} characters more)"
