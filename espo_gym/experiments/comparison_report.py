"""The report of a comparison: scores, pairs and checks, as Markdown and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from espo_gym.estimate import over_seeds
from espo_gym.files import read_object

from .comparison import METRICS, TUNING, Comparison
from .fairness import Check, fairness_checks
from .health import Health, headline, warnings
from .pairs import Pair, compare_pairs, estimate_as_json, pair_sentences, pair_table, pairs_as_json
from .statistics import iqm, matrix, performance_profile

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the performance profile, in AUC."""


def comparison_results(comparison: Comparison) -> dict[str, Any]:
    """All numbers of the report, for results.json; null where a number is not finite."""
    auc, runs = comparison.scores("auc"), comparison.health()
    values = {
        "setting": comparison.setting,
        "entries": comparison.entries,
        "seeds": comparison.seeds,
        "headline": headline(runs),
        "warnings": warnings(runs),
        "health": {
            entry: {str(run.seed): {"trouble": run.health.name, "learned": run.health.learned} for run in members}
            for entry, members in ((entry, comparison.of(entry)) for entry in comparison.entries)
        },
        "scores": {m: {e: s.tolist() for e, s in comparison.scores(m).items()} for m in comparison.metrics()},
        "iqm": {entry: estimate_as_json(iqm(scores)) for entry, scores in auc.items()},
        "profile": {
            entry: {
                str(threshold): estimate_as_json(share)
                for threshold, share in zip(THRESHOLDS, performance_profile(scores, THRESHOLDS), strict=True)
            }
            for entry, scores in auc.items()
        },
        "pairs": pairs_as_json(auc_pairs(comparison)),
        "audit": [{"ok": check.ok, "found": check.finding} for check in fairness_checks(comparison)],
    }
    return cast(dict[str, Any], finite(values))


def auc_pairs(comparison: Comparison) -> list[Pair]:
    """Every pair of entries, compared on their AUC."""
    return compare_pairs(comparison.scores("auc"), share=comparison.is_share("auc"), runs=comparison.health())


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
    pairs = auc_pairs(comparison)
    parts = [
        f"# {', '.join(comparison.entries)}",
        _setting(comparison),
        *read_first(comparison.health(), "## Read this first"),
        "## In words",
        in_words(pairs, "On the mean reward over training (AUC), seed against seed", comparison.is_share("auc")),
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


def read_first(runs: Mapping[str, Sequence[Health]], heading: str) -> list[str]:
    """What a reader must know before any difference, with its heading; nothing if every run trained as it should."""
    first = headline(runs)
    return [heading, f"**{first}**", "\n".join(f"- {sentence}" for sentence in warnings(runs))] if first else []


def in_words(pairs: list[Pair], what: str, share: bool) -> str:
    """How the sentences about ``pairs`` were made."""
    holm = f", and p after Holm over the {len(pairs)} pairs" if len(pairs) > 1 else ""
    bounds = ", which cannot leave [-1, 1]" if share else ""
    return (
        f"{what}, with Student's 95 % interval of each mean difference{bounds}{holm}. No difference detected does not "
        "mean no difference: the interval shows how large one may still be."
    )


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
    return (
        f"Means over seeds; rollouts_to_0.8 is a median. {interval_method(comparison.is_share('auc'))}\n\n"
        + "\n".join(lines)
    )


def interval_method(share: bool) -> str:
    """Which intervals a table of scores has."""
    method = "Wilson's with Student's quantile, which stays in [0, 1]" if share else "Student's"
    return (
        f"In brackets 95 % intervals over seeds: of the AUC {method}; of the IQM, the profile and P(improvement) the "
        "percentile bootstrap's. There is none where there is one seed, or where all seeds or resamples agree: "
        "nothing is known then about how much seeds differ."
    )


def tuning_summary(comparison: Comparison) -> str:
    """How many configurations were tried, and which were chosen."""
    n, path = len(comparison.entries), (comparison.folder or Path()) / TUNING
    if comparison.folder is None or not path.is_file():
        return f"Configurations tried: {n}, one for each entry; none was tuned."
    tuning = read_object(path, "a tuning")
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
            row = [entry, mean_interval(auc, comparison.is_share("auc")), str(iqm(auc)), f"{auc.min():.3f}"]
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


def mean_interval(values: NDArray[np.float64], share: bool) -> str:
    """The mean of ``values`` (n,) over the seeds that have one, with its 95 % interval, or why there is none.

    Args:
        share: they lie in [0, 1]; see :func:`espo_gym.estimate.over_seeds`.
    """
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return "-"
    mean, low, high = map(float, over_seeds(known, share=share))
    none = "one seed" if len(known) == 1 else f"equal on {len(known)} seeds"
    return f"{mean:.3f} ({none})" if isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


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
