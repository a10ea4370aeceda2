"""What the page says in words: what became of the runs, which diagnoses held, and what their comparisons found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from espo_gym.diagnostics import DIAGNOSES
from espo_gym.experiments.comparison import COMPARISON, Comparison, failure
from espo_gym.experiments.comparison_report import auc_pairs, in_words, interval_method, score_table
from espo_gym.experiments.fairness import fairness_checks
from espo_gym.experiments.health import Health, headline, health, warnings
from espo_gym.experiments.run_folder import Run

from ..curves import Group


def find_comparisons(paths: Iterable[str | Path]) -> list[Comparison]:
    """The comparisons at or below ``paths`` in which a run has finished, each once.

    Raises ValueError: one cannot be read.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        for file in sorted(path.rglob(COMPARISON)):
            folders.setdefault(file.parent.resolve(), file.parent)
    return [comparison for folder in folders.values() if (comparison := Comparison.read(folder)).runs]


def warnings_about(groups: Sequence[Group]) -> list[str]:
    """A sentence for each trouble that runs of ``groups`` had as a whole, and for each diagnosis that held."""
    return warnings({group.label: _health(group) for group in groups}) + _diagnosed(groups)


def _health(group: Group) -> list[Health]:
    return [
        health(run.rows, _rollout_size(run), reason)
        for run in group.runs
        if (reason := failure(run.folder)) or len(run.rows.get("time/timesteps", ()))
    ]


def _rollout_size(run: Run) -> int:
    """Completions in a rollout: as configured, or else those of the first."""
    configured = run.hyperparameters.get("rollout_size")
    timesteps = run.rows.get("time/timesteps", [1])
    return configured if isinstance(configured, int) and configured > 0 else max(int(timesteps[0]), 1)


def _diagnosed(groups: Sequence[Group]) -> list[str]:
    sentences = []
    for diagnosis in DIAGNOSES:
        metric = f"diagnostics/{diagnosis.name}"
        held = {group.label: sum(int((run.points(metric)[1] == 1).sum()) for run in group.runs) for group in groups}
        total = {group.label: sum(len(run.rows.get("time/timesteps", ())) for run in group.runs) for group in groups}
        where = [f"{n} of {total[label]} rollouts of {label}" for label, n in held.items() if n]
        if where:
            sentences.append(f"{diagnosis.name}: {diagnosis.message}. It was so in {' and '.join(where)}.")
    return sentences


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """What a comparison found, for JSON: its headline, sentences, scores and audit."""
    share, pairs = comparison.is_share("auc"), auc_pairs(comparison)
    head, rows = score_table(comparison)
    return {
        "folder": str(comparison.folder),
        "headline": headline(comparison.health()),
        "method": in_words(pairs, "On the mean reward over training (AUC), seed against seed", share),
        "sentences": [f"{pair}." for pair in pairs],
        "head": head,
        "rows": rows,
        "intervals": interval_method(share),
        "audit": [{"ok": check.ok, "found": check.finding} for check in fairness_checks(comparison)],
    }
