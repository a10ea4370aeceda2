"""results.md and results.json: what was run, what was measured, and the verdicts."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espo_gym.experiments.setting import Entry

from .calibration import SEEDS, Calibration
from .claims import Judged
from .plan import Scale
from .quantities import ACCURACY, CLIPPED, ENTROPY, LAST, MARGINS, Curves, final, over_training
from .verdicts import NOT_REPRODUCED, NOT_RESOLVED, REPRODUCED, Interval, interval

PACKAGES = ("torch", "transformers", "numpy", "scipy")


@dataclass(frozen=True)
class Outcome:
    """The results of one regime."""

    judged: tuple[Judged, ...]
    entries: tuple[Entry, ...]
    curves: Curves
    calibration: Calibration


@dataclass(frozen=True)
class Header:
    """What a reader needs to run it again."""

    command: str
    scale: str
    seeds: int
    proof_only: bool
    """Whether this is the smallest version, whose numbers say nothing about the claims."""


def as_json(header: Header, scale: Scale, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Everything on the page, for results.json."""
    regimes: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        claims = []
        for judged in outcome.judged:
            parts = [
                asdict(measured) | {"quantity": part.label, "margin": part.margin, "verdict": v}
                for part, measured, v in judged.parts
            ]
            claim = judged.claim
            claims.append(
                {"figure": claim.figure, "claim": claim.text, "control": claim.control}
                | {"verdict": judged.verdict, "parts": parts}
            )
        entries = {
            entry.name: {
                "algo": entry.algo,
                "hyperparameters": entry.hyperparameters,
                "accuracy": over_training(outcome.curves, entry.name, ACCURACY).tolist(),
                "final_accuracy": final(outcome.curves, entry.name).tolist(),
                "clip_fraction": over_training(outcome.curves, entry.name, CLIPPED).tolist(),
                "entropy": over_training(outcome.curves, entry.name, ENTROPY).tolist(),
            }
            for entry in outcome.entries
        }
        regimes[name] = {"claims": claims, "entries": entries, "calibration": outcome.calibration.as_json()}
    return {"header": asdict(header) | {"commit": commit(), "versions": versions()}, "scale": asdict(scale)} | {
        "regimes": regimes
    }


def page(header: Header, scale: Scale, outcomes: Mapping[str, Outcome], images: Mapping[str, str]) -> str:
    """The page in Markdown. ``images`` maps ``FIGURE-REGIME`` to the address of the image."""
    lines = ["# The claims of the ESPO paper", ""]
    lines += _what_was_run(header, scale, outcomes) + _how_verdicts_come_about() + _overview(outcomes)
    figures = dict.fromkeys(judged.claim.figure for outcome in outcomes.values() for judged in outcome.judged)
    for figure in figures:
        lines += [f"## {title(figure)}", ""]
        for regime in outcomes:
            if (key := f"{figure}-{regime}") in images:
                lines += [f"![{title(figure)}, {regime}]({images[key]})", ""]
        lines += _claims(figure, outcomes)
    lines += _entries(outcomes) + _calibrations(outcomes)
    return "\n".join(lines).rstrip() + "\n"


def title(figure: str) -> str:
    """``Figure 3`` for ``fig3``."""
    return f"{'Figure' if figure.startswith('fig') else 'Table'} {figure[-1]}"


def _what_was_run(header: Header, scale: Scale, outcomes: Mapping[str, Outcome]) -> list[str]:
    tuned = sum(outcome.calibration.configurations for outcome in outcomes.values())
    n = sum(len(outcome.entries) for outcome in outcomes.values())
    size = None if scale.warm_start is None else scale.warm_start.size.upper()
    policy = "the bundled policy" if size is None else f"a Llama of about {size} parameters"
    if scale.siblings > 1:
        n_s = scale.siblings
        policy += f" and {n_s - 1} made in the same way from other seeds (seed s starts from policy s modulo {n_s}),"
    arguments = ", ".join(f"{k}={v!r}" for k, v in scale.env_args.items())
    lines = [
        "ESPO: Entropy Importance Sampling Policy Optimization, arXiv:2512.00499v2, tested claim by claim, on a",
        "task and a policy that this project makes from scratch. This page is the output of",
        "",
        "```",
        header.command,
        "```",
        "",
        f"Commit {commit()}; " + ", ".join(f"{name} {v}" for name, v in versions().items()) + ".",
        "",
        f"- Scale `{header.scale}`: {policy} on `{scale.env}`" + (f" ({arguments})" if arguments else "") + ".",
        f"- {header.seeds} seeds (0 to {header.seeds - 1}), paired: at each seed, all entries have the same "
        "initial weights, problems and sampling streams.",
    ]
    for name in outcomes:
        regime = scale.regimes[name]
        settings = ", ".join(f"{k} {v:g}" for k, v in regime.hyperparameters.items())
        lines.append(f"- *{name}*: {regime.rollouts} rollouts of {scale.rollout_size} completions, {settings}.")
    lines += [
        f"- {n} entries over all regimes, {n * header.seeds} runs. No entry was tuned for accuracy; {tuned} settings "
        f"were tried on seeds {', '.join(map(str, SEEDS))} to match clip ranges (see the end of the page).",
        "- Budgets are in completions. DAPO, which replaces groups with equal rewards, takes fewer steps for the same "
        "number.",
        "",
    ]
    if header.proof_only:
        lines += [
            "**This is the smallest version, which only shows that everything runs. Its numbers say nothing about "
            "the claims.**",
            "",
        ]
    return lines


def _how_verdicts_come_about() -> list[str]:
    accuracy, clipped, correlation = MARGINS.values()
    return [
        "Each claim states that one or more quantities are above 0. A quantity is one number per seed, and its",
        "interval is Student's over the seeds, at 95 % for all parts of a claim together (Bonferroni).",
        "*Reproduced*: every interval is above 0. *Not reproduced*: at least one interval lies below the smallest",
        "effect that counts, which rules out an effect of that size. *Not resolved*: neither. The smallest",
        f"effects that count are our choice: {accuracy:g} in accuracy, {clipped:g} in clip fraction and "
        f"{correlation:g} in a correlation. A",
        "*control* is not a claim of the paper, but something that must hold if its explanation is right.",
        "",
        "Clip fraction: the share of tokens with a nonzero advantage whose gradient the clip cuts, excluding the",
        "first two rollouts. Accuracy: of sampled training completions, over all rollouts; at the end: over the",
        f"last {LAST}. In Figure 5, the quantity is the negative of Spearman's rank correlation between clip fraction",
        "and entropy over rollouts.",
        "",
        "A verdict is about this task, this policy and these learning rates. An effect that is not seen here may",
        "well exist for the paper's models, which are far larger, and an effect that is seen here need not.",
        "",
    ]


def _overview(outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = ["## Outcome", ""]
    for regime, outcome in outcomes.items():
        for control, what in ((False, "claims of the paper"), (True, "controls")):
            of_kind = [judged for judged in outcome.judged if judged.claim.control == control]
            counts = [f"{sum(j.verdict == v for j in of_kind)} {v}" for v in (REPRODUCED, NOT_REPRODUCED, NOT_RESOLVED)]
            lines += [f"*{regime}*: of {len(of_kind)} {what} {', '.join(counts)}.", ""]
            for v in (REPRODUCED, NOT_REPRODUCED, NOT_RESOLVED):
                lines += [f"- {v}: {title(j.claim.figure)}. {j.claim.text}" for j in of_kind if j.verdict == v]
            lines.append("")
    return lines


def _claims(figure: str, outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = ["| | regime | verdict | quantities claimed to be above 0 |", "|---|---|---|---|"]
    rows: dict[str, list[str]] = {}
    for regime, outcome in outcomes.items():
        for judged in outcome.judged:
            if judged.claim.figure == figure:
                parts = "<br>".join(
                    f"{part.label}: {_measured(m)}" + (f" ({v})" if len(judged.parts) > 1 else "")
                    for part, m, v in judged.parts
                )
                text = ("*Control.* " if judged.claim.control else "") + judged.claim.text
                rows.setdefault(text, []).append(f"{regime} | {judged.verdict} | {parts} |")
    for text, cells in rows.items():
        lines += [f"| {text if i == 0 else ''} | {row}" for i, row in enumerate(cells)]
    return [*lines, ""]


def _measured(m: Interval) -> str:
    if m.n == 0:
        return "without a value on any seed"
    bounds = f"[{m.low:+.3f}, {m.high:+.3f}]" if np.isfinite(m.low) else "without an interval"
    return f"{m.mean:+.3f} {bounds}, {m.n} seeds"


def _entries(outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = [
        "## Every entry",
        "",
        "What each entry is, and its mean over seeds with Student's 95 % interval, not paired, cut off where no value "
        "can be.",
        "",
    ]
    lines += ["| | regime | what | accuracy | at the end | clip fraction | entropy (nats) |", "|---" * 7 + "|"]
    for regime, outcome in outcomes.items():
        for entry in outcome.entries:
            options = ", ".join(f"{name} {_plain(value)}" for name, value in entry.hyperparameters.items())
            what = entry.algo.rpartition(":")[2] + (f": {options}" if options else "")
            shares = [over_training(outcome.curves, entry.name, ACCURACY), final(outcome.curves, entry.name)]
            shares.append(over_training(outcome.curves, entry.name, CLIPPED))
            figures = [_mean(values, 1.0) for values in shares]
            figures.append(_mean(over_training(outcome.curves, entry.name, ENTROPY), np.inf))
            lines.append(f"| {entry.name} | {regime} | {what} | " + " | ".join(figures) + " |")
    return [*lines, ""]


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + " ".join(map(_plain, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mean(values: NDArray[np.float64], most: float) -> str:
    """The mean of values that lie between 0 and ``most``, and its interval, which is cut off there."""
    m = interval(values)
    return f"{m.mean:.3f}" + (f" [{max(m.low, 0):.3f}, {min(m.high, most):.3f}]" if np.isfinite(m.low) else "")


def _calibrations(outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = ["## Matched clip ranges", ""]
    lines += [
        "Short runs on the tuning seeds over a grid of widths; the width whose clip fraction came closest to the",
        "target was chosen. A width is alpha, or the lower side of a fixed clip, whose upper side is 4/3 of it.",
        "",
        "| | regime | widths tried | chosen | clip fraction: target | tuning seeds | result seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for regime, outcome in outcomes.items():
        for name, tried in outcome.calibration.tried.items():
            width, aim = outcome.calibration.ranges[name], outcome.calibration.targets[name]
            has_runs = name in {entry.name for entry in outcome.entries}
            seen = _mean(over_training(outcome.curves, name, CLIPPED), 1.0) if has_runs else ""
            edge = " (the edge)" if width in (min(tried), max(tried)) else ""
            lines.append(
                f"| {name} | {regime} | {min(tried):g} to {max(tried):g} | {width:g}{edge} | {aim:.3f} "
                f"| {tried[width]:.3f} | {seen} |"
            )
    return [*lines, ""]


def commit() -> str:
    """The commit of the checkout, and whether it has uncommitted changes."""

    def git(*arguments: str) -> str:
        command: Sequence[str] = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Versions of Python and the packages that affect the results."""
    return {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
