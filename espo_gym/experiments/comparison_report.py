"""The report of a comparison: scores, pairs and checks, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .comparison import METRICS, TUNING, Comparison
from .fairness import Check, fairness_checks
from .pairs import compare_pairs, estimate_as_json, pair_sentences, pair_table, pairs_as_json
from .statistics import iqm, matrix, paired_difference, performance_profile

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the performance profile, in AUC."""


def comparison_results(comparison: Comparison) -> dict[str, Any]:
    """All numbers of the report, for results.json; null where a number is not finite."""
    auc = comparison.scores("auc")
    values = {
        "setting": comparison.setting,
        "entries": comparison.entries,
        "seeds": comparison.seeds,
        "scores": {m: {e: s.tolist() for e, s in comparison.scores(m).items()} for m in comparison.metrics()},
        "iqm": {entry: estimate_as_json(iqm(scores)) for entry, scores in auc.items()},
        "profile": {
            entry: {
                str(threshold): estimate_as_json(share)
                for threshold, share in zip(THRESHOLDS, performance_profile(scores, THRESHOLDS), strict=True)
            }
            for entry, scores in auc.items()
        },
        "pairs": pairs_as_json(compare_pairs(auc)),
        "audit": [{"ok": check.ok, "found": check.finding} for check in fairness_checks(comparison)],
    }
    return cast(dict[str, Any], finite(values))


def finite(value: Any) -> Any:
    """``value`` with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


# -- Markdown ----------------------------------------------------------------------------------------------------------


def comparison_report(comparison: Comparison) -> str:
    """The report of ``comparison``, as Markdown."""
    if not comparison.runs:
        return "# Comparison\n\nNo run has finished yet.\n"
    auc = comparison.scores("auc")
    pairs = compare_pairs(auc)
    parts = [
        f"# {', '.join(comparison.entries)}",
        _setting(comparison),
        "## In words",
        "On the mean reward over training (AUC), seed against seed, with Student's 95 % interval of each mean"
        " difference"
        + (f", and p after Holm over the {len(pairs)} pairs" if len(pairs) > 1 else "")
        + ". No difference detected does not mean no difference: the interval shows how large one may still be.",
        pair_sentences(pairs),
        "## Scores",
        table(*score_table(comparison)),
        _legend(comparison),
        "## Pairs",
        table(*pair_table(pairs)),
        "## Performance profile",
        profile(auc),
        "## Audit",
        "\n".join(map(_check_line, fairness_checks(comparison))),
    ]
    return "\n\n".join(parts) + "\n"


def _setting(comparison: Comparison) -> str:
    s = comparison.setting
    arguments = "".join(f", {name} = {value}" for name, value in s["env_args"].items())
    shared = ", ".join(f"{name} = {value}" for name, value in s["hyperparameters"].items()) or "none but the preset"
    budget = f"{s['timesteps']:,} completions" if s["seconds"] is None else f"{s['seconds']:g} seconds"
    starts = Counter(s["policies"])
    return (
        f"{s['env']}{arguments}; {len(comparison.seeds)} seeds from {len(starts)} "
        f"{'policy' if len(starts) == 1 else 'policies'}, {budget} per run. Hyperparameters of all entries: {shared}. "
        + tuning_summary(comparison)
    )


def _check_line(check: Check) -> str:
    return f"- {'' if check.ok is None else 'ok: ' if check.ok else '**NOT OK**: '}{check.finding}"


def _legend(comparison: Comparison) -> str:
    lines = [f"- {name.replace('@k', f'@{comparison.k}')}: {text}" for name, text in METRICS.items()]
    return "Means over seeds; rollouts_to_0.8 is a median.\n\n" + "\n".join(lines)


def tuning_summary(comparison: Comparison) -> str:
    """How many configurations were tried, and which were chosen."""
    n, path = len(comparison.entries), (comparison.folder or Path()) / TUNING
    if comparison.folder is None or not path.is_file():
        return f"Configurations tried: {n}, one for each entry; none was tuned."
    tuning = json.loads(path.read_text())
    counts = {record["entry"]["name"]: len(record["cells"]) for record in tuning["entries"]}
    untuned = [entry for entry in comparison.entries if entry not in counts]
    each = f"{min(counts.values())} to {max(counts.values())}" if len({*counts.values()}) > 1 else max(counts.values())
    chosen = "; ".join(
        f"{record['entry']['name']}: "
        + ", ".join(f"{k} = {v:g}" for k, v in _chosen(record).items() if isinstance(v, int | float))
        for record in tuning["entries"]
    )
    return (
        f"Configurations tried: {sum(counts.values()) + len(untuned)}, {each} for each tuned entry, judged by the mean "
        f"AUC on the seeds {', '.join(map(str, tuning['seeds']))}, then frozen. Chosen: {chosen}."
        + (f" Not tuned: {', '.join(untuned)}." if untuned else "")
    )


def _chosen(record: dict[str, Any]) -> dict[str, Any]:
    return next(cell["hyperparameters"] for cell in record["cells"] if cell["cell"] == record["chosen"])


def score_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table with every metric of every entry that has a score."""
    metrics = comparison.metrics()
    scores = {metric: comparison.scores(metric) for metric in metrics}
    header = ["", "AUC", "IQM of AUC", "worst seed", *(m for m in metrics if m != "auc")]
    rows = []
    for entry in comparison.entries:
        known = {metric: values[entry][~np.isnan(values[entry])] for metric, values in scores.items()}
        auc = known.pop("auc")
        if len(auc):
            row = [entry, mean_interval(auc), str(iqm(auc)), f"{auc.min():.3f}"]
            rows.append(row + [_summary(metric, values) for metric, values in known.items()])
    return header, rows


def _summary(metric: str, values: NDArray[np.float64]) -> str:
    """``metric`` over seeds, (n,)."""
    if metric == "rollouts_to_0.8":
        never = int(np.isinf(values).sum())
        median = f"{np.median(values):g}" if np.isfinite(np.median(values)) else "never"
        return median + (f" ({never} of {len(values)} never)" if never else "")
    if metric == "collapsed":
        return f"{int(values.sum())} of {len(values)}"
    return f"{values.mean():.3f}"


def mean_interval(values: NDArray[np.float64]) -> str:
    """The mean of ``values`` (n,) over seeds with Student's 95 % interval."""
    d = paired_difference(values, np.zeros_like(values))
    return f"{d.mean:.3f}" if isnan(d.low) else f"{d.mean:.3f} [{d.low:.3f}, {d.high:.3f}]"


def profile(scores: dict[str, NDArray[np.float64]]) -> str:
    """A table of the shares of runs above each threshold that separates some of the runs.

    Args:
        scores: entry -> (n,) or (n, tasks).
    """
    values = {entry: matrix(entry_scores) for entry, entry_scores in scores.items()}
    everything = np.concatenate([entry_values.ravel() for entry_values in values.values()])
    separating = [t for t in THRESHOLDS if len(np.unique(everything > t)) > 1]
    if not separating:
        return f"Every AUC lies between two of the thresholds {', '.join(map(str, THRESHOLDS))}: nothing to show."
    rows = [[entry, *map(str, performance_profile(entry_values, separating))] for entry, entry_values in values.items()]
    return "Shares of runs with an AUC above a threshold.\n\n" + table(["", *(f"> {t}" for t in separating)], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
