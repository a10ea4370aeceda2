"""The report of a comparison: what is resolved and what is not, in words, tables, and an audit of the budgets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from math import isfinite, isnan
from pathlib import Path
from typing import Any, cast

import numpy as np

from espo_gym.evaluation import Estimate

from .comparison import METRICS, Comparison
from .statistics import (
    Difference,
    holm,
    iqm,
    matrix,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)

LEVEL = 0.05
ENOUGH_SIGNS = 6
"""Seeds from which on the sign-flip test can come below LEVEL at all."""
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the performance profile, in AUC."""


@dataclass(frozen=True)
class Pair:
    """Two entries set against each other on one metric."""

    a: str
    b: str
    difference: Difference
    """Of a - b."""
    p_holm: float
    """p after Holm, over all pairs."""
    pairs: int
    """How many pairs there are."""
    improvement: Estimate
    """P(a run of a has a higher score than a run of b)."""

    @property
    def resolved(self) -> bool:
        return resolved(self.difference, self.p_holm)

    def __str__(self) -> str:
        d, of = self.difference, f" among {self.pairs} pairs" if self.pairs > 1 else ""
        if d.n < 2:
            told = f", {d.mean:+.3f}, " if d.n else ": "
            return f"{self.a} and {self.b}{told}{'one seed' if d.n else 'no seed'} in common: nothing can be said"
        if d.mean == d.low == d.high == 0:
            return f"{self.a} and {self.b}: the same on every seed"
        if d.mean == d.low == d.high:  # no variance, so no interval
            return f"{self.a} and {self.b}: {d.mean:+.3f} on each of {d.n} seeds" + (
                "" if self.resolved else ", too few to say"
            )
        if self.resolved:
            better, worse = (self.a, self.b) if d.mean > 0 else (self.b, self.a)
            shown = d if d.mean > 0 else replace(d, mean=-d.mean, low=-d.high, high=-d.low)
            return f"{better} is better than {worse}, {shown} ({_p(self.p_holm)}{of})"
        sentence = f"{self.a} and {self.b}: no difference detected, {d}"
        if d.p >= LEVEL:
            return sentence
        why = f"{_p(self.p_holm)}{of}" if self.p_holm >= LEVEL else f"{_p(d.p_signs)} by flips of signs"
        return f"{sentence} ({_p(d.p)} alone, {why})"


def resolved(difference: Difference, p_holm: float) -> bool:
    """A difference is called one if Student's test finds it, after Holm, and the signs do not contradict.

    With six seeds or more the second makes sure, whatever the distribution, that an algorithm against itself is told
    apart in at most 5 % of comparisons.
    """
    return p_holm < LEVEL and (difference.n < ENOUGH_SIGNS or difference.p_signs < LEVEL)


def compare_pairs(scores: dict[str, np.ndarray]) -> list[Pair]:
    """Every pair of entries, given their scores, (n,) or (n, tasks) each with the same seeds in the same order."""
    names = list(combinations(scores, 2))
    differences = [paired_difference(scores[a], scores[b]) for a, b in names]
    return [
        Pair(a, b, difference, adjusted, len(names), probability_of_improvement(scores[a], scores[b]))
        for (a, b), difference, adjusted in zip(names, differences, holm([d.p for d in differences]), strict=True)
    ]


def audit(comparison: Comparison) -> list[tuple[bool | None, str]]:
    """What was checked: (as it must be, or None where that is for the reader to judge; what was found)."""
    runs = comparison.runs
    found: list[tuple[bool | None, str]] = []
    total, missing = len(comparison.entries) * len(comparison.seeds), len(comparison.missing)
    found.append(
        (not missing, f"{total - missing} of {total} runs are over" + (", the rest is missing" * bool(missing)))
    )
    failed = [run for run in runs.values() if run.failure]
    for run in failed:
        found.append((None, f"{run.entry}, seed {run.seed}, failed after {run.timesteps:,} completions: {run.failure}"))
    for key, what in (
        ("initial_weights", "initial weights"),
        ("problems", "problems of the first rollout"),
        ("completions", "completions of the first rollout, sampled from equal weights with equal streams"),
    ):
        prints = {
            seed: {run.pairing.get(key) for run in runs.values() if run.seed == seed} for seed in comparison.seeds
        }
        bad = [str(seed) for seed, values in prints.items() if len(values) > 1 or None in values]
        found.append((not bad, f"{what}: " + (f"different at seed {', '.join(bad)}" if bad else "equal at every seed")))
    budget, clock = comparison.budget
    whole = [run for run in runs.values() if not run.failure]
    if clock == "time/timesteps":
        found.append(
            (all(run.timesteps == budget for run in whole), f"budget: {budget:,.0f} completions; {_used(comparison)}")
        )
    else:
        unit = "CPU seconds" if clock == "time/cpu_seconds" else "seconds of the clock"
        used = [run.cpu_seconds if clock == "time/cpu_seconds" else run.wall_seconds for run in whole]
        longest = max((float(np.diff(run.rows[clock], prepend=0.0).max()) for run in whole), default=0.0)
        fair = all(budget <= seconds <= budget + longest for seconds in used)
        found.append((fair, f"budget: {budget:g} {unit} of training and the rollout then begun; {_used(comparison)}"))
    steps = {entry: {run.updates for run in comparison.of(entry) if not run.failure} for entry in comparison.entries}
    if clock == "time/timesteps" and len({n for values in steps.values() for n in values}) > 1:
        few = ", ".join(f"{entry} {_range(sorted(values))}" for entry, values in steps.items() if values)
        found.append(
            (
                None,
                f"optimizer steps differ ({few}): dynamic sampling spends completions on groups that it throws away,"
                " and a divergence limit ends a rollout's steps early; what is equal is the completions",
            )
        )
    versions = {json.dumps(run.config.get("versions"), sort_keys=True) for run in runs.values()}
    found.append((len(versions) <= 1, f"versions of Python and packages: {len(versions)} over all runs"))
    return found


def _used(comparison: Comparison) -> str:
    used = []
    for entry in comparison.entries:
        runs = [run for run in comparison.of(entry) if not run.failure]
        if runs:
            completions, seconds = sorted({r.timesteps for r in runs}), np.mean([r.cpu_seconds for r in runs])
            used.append(f"{entry} {_range(completions)} in {seconds:.1f} CPU seconds")
    return "used on average: " + ", ".join(used)


def _range(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,} to {values[-1]:,}"


def results(comparison: Comparison) -> dict[str, Any]:
    """All numbers of the report, for a program to read."""
    auc = comparison.scores("auc")
    values = {
        "setting": comparison.setting,
        "entries": comparison.entries,
        "seeds": comparison.seeds,
        "scores": {m: {e: s.tolist() for e, s in comparison.scores(m).items()} for m in comparison.metrics()},
        "iqm": {entry: _as_list(iqm(scores)) for entry, scores in auc.items()},
        "profile": {
            entry: {str(t): _as_list(e) for t, e in zip(THRESHOLDS, performance_profile(s, THRESHOLDS), strict=True)}
            for entry, s in auc.items()
        },
        "pairs": pairs_as_json(compare_pairs(auc)),
        "audit": [{"ok": ok, "found": text} for ok, text in audit(comparison)],
    }
    return cast(dict[str, Any], finite(values))


def pairs_as_json(pairs: list[Pair]) -> list[dict[str, Any]]:
    return [
        {"a": pair.a, "b": pair.b, **asdict(pair.difference), "p_holm": pair.p_holm, "resolved": pair.resolved}
        | {"probability_of_improvement": _as_list(pair.improvement), "sentence": str(pair)}
        for pair in pairs
    ]


def _as_list(e: Estimate) -> list[float]:
    return [e.value, e.low, e.high]


def finite(value: Any) -> Any:
    """``value`` with null for NaN and infinity, which JSON does not know."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


# -- Markdown ----------------------------------------------------------------------------------------------------------


def report(comparison: Comparison) -> str:
    """The report of a comparison, as Markdown."""
    if not comparison.runs:
        return "# Comparison\n\nNo run is over yet.\n"
    auc = comparison.scores("auc")
    pairs = compare_pairs(auc)
    parts = [
        f"# {', '.join(comparison.entries)}",
        _what(comparison),
        "## In words",
        "On the mean reward over training (AUC), seed against seed, with Student's 95 % interval of each mean"
        " difference"
        + (f", and p after Holm over the {len(pairs)} pairs" if len(pairs) > 1 else "")
        + ". No difference detected does not mean none: the interval says how large one may still be.",
        "\n".join(f"- {pair}." for pair in pairs),
        "## Scores",
        table(*score_table(comparison)),
        _legend(comparison),
        "## Pairs",
        table(*pair_table(pairs)),
        "## Performance profile",
        profile(auc),
        "## Audit",
        "\n".join(
            f"- {'' if ok is None else 'ok: ' if ok else '**NOT OK**: '}{text}" for ok, text in audit(comparison)
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _what(comparison: Comparison) -> str:
    s = comparison.setting
    arguments = "".join(f", {name} = {value}" for name, value in s["env_args"].items())
    shared = ", ".join(f"{name} = {value}" for name, value in s["hyperparameters"].items()) or "none but the preset"
    budget = f"{s['timesteps']:,} completions" if s["seconds"] is None else f"{s['seconds']:g} seconds"
    starts = Counter(s["policies"])
    return (
        f"{s['env']}{arguments}; {len(comparison.seeds)} seeds from {len(starts)} "
        f"{'policy' if len(starts) == 1 else 'policies'}, {budget} a run. Hyper-parameters given for all: {shared}. "
        + tried(comparison)
    )


def tried(comparison: Comparison) -> str:
    """How many configurations were tried, and how the entries came by theirs."""
    n, path = len(comparison.entries), (comparison.folder or Path()) / "tuning.json"
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
    """Header and rows: every metric of every entry."""
    metrics = comparison.metrics()
    scores = {metric: comparison.scores(metric) for metric in metrics}
    header = ["", "AUC", "IQM of AUC", "worst seed", *(m for m in metrics if m != "auc")]
    rows = []
    for entry in comparison.entries:
        auc = scores["auc"][entry]
        auc = auc[~np.isnan(auc)]
        if not len(auc):
            continue
        row = [entry, mean_interval(auc), str(iqm(auc)), f"{auc.min():.3f}"]
        for metric in metrics[1:]:
            values = scores[metric][entry]
            values = values[~np.isnan(values)]
            if metric == "rollouts_to_0.8":
                never = int(np.isinf(values).sum())
                median = f"{np.median(values):g}" if np.isfinite(np.median(values)) else "never"
                row.append(median + (f" ({never} of {len(values)} never)" if never else ""))
            elif metric == "collapsed":
                row.append(f"{int(values.sum())} of {len(values)}")
            else:
                row.append(f"{values.mean():.3f}")
        rows.append(row)
    return header, rows


def mean_interval(values: np.ndarray) -> str:
    """Mean over seeds with Student's interval."""
    d = paired_difference(values, np.zeros_like(values))
    return f"{d.mean:.3f}" if isnan(d.low) else f"{d.mean:.3f} [{d.low:.3f}, {d.high:.3f}]"


def _legend(comparison: Comparison) -> str:
    lines = [f"- {name.replace('@k', f'@{comparison.k}')}: {text}" for name, text in METRICS.items()]
    return "Means over seeds; rollouts_to_0.8 is a median.\n\n" + "\n".join(lines)


def pair_table(pairs: list[Pair]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row for each pair."""
    header = ["", "difference of AUC", "p", "p after Holm", "p of signs", "P(improvement)", ""]
    rows = [
        [
            f"{pair.a} - {pair.b}",
            str(pair.difference),
            *(
                _p(p).removeprefix("p ").removeprefix("= ")
                for p in (pair.difference.p, pair.p_holm, pair.difference.p_signs)
            ),
            str(pair.improvement),
            "resolved" if pair.resolved else "not resolved",
        ]
        for pair in pairs
    ]
    return header, rows


def profile(scores: dict[str, np.ndarray]) -> str:
    """Shares of runs above each threshold that some runs are above and some are not."""
    values = {entry: matrix(made) for entry, made in scores.items()}
    told = [t for t in THRESHOLDS if len({above for made in values.values() for above in np.unique(made > t)}) > 1]
    if not told:
        return f"Every AUC lies between two of the thresholds {', '.join(map(str, THRESHOLDS))}: nothing to show."
    rows = [[entry, *map(str, performance_profile(made, told))] for entry, made in values.items()]
    return "Shares of runs with an AUC above a threshold.\n\n" + table(["", *(f"> {t}" for t in told)], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
