"""The command line's ``espo-gym verify``."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import report_errors
from .tables import make_table, print_table

if TYPE_CHECKING:
    from espo_gym.envs import Verdict

BATCH = 64
"""Completions that are verified together, between two steps of the progress bar."""
MAX_DISAGREEMENTS, SLOWEST = 20, 5
"""How many of them are printed."""


@click.command("verify")
@click.argument("completion", required=False)
@click.argument("reference", required=False)
@click.option("--jsonl", type=click.Path(path_type=Path), help="Grade a file of JSON lines instead.")
@click.option("--completion-field", default="completion", help="Its field with the output of a model.")
@click.option("--reference-field", default="reference", help="Its field with the right answer.")
@click.option("--grade-field", help="Its field with a grade to compare with: true or false, 1 or 0.")
@click.option("--source-field", help="Its field by which accuracies are told apart.")
@click.option("--conventions", default="strict", help="What is accepted besides an equal answer: strict, lenient, ...")
@report_errors
def verify_command(
    completion: str | None,
    reference: str | None,
    jsonl: Path | None,
    completion_field: str,
    reference_field: str,
    grade_field: str | None,
    source_field: str | None,
    conventions: str,
) -> None:
    """Is the final answer of COMPLETION equal to REFERENCE, and why? Or grade a whole file with --jsonl."""
    from espo_gym.envs import verify

    if jsonl is not None:
        if completion is not None:
            raise click.UsageError("give a completion and a reference, or --jsonl, not both")
        rows = list(_rows(jsonl, completion_field, reference_field, grade_field, source_field))
        if not rows:
            raise ValueError(f"{jsonl} is empty; each line is an object with a completion and its reference")
        _report(rows, _verdicts(rows, conventions), graded=grade_field is not None)
        return
    if completion is None or reference is None:
        raise click.UsageError("give a completion and its reference, in quotes, or a file with --jsonl")
    click.echo(verify([completion], [reference], conventions=conventions)[0].explain())


@dataclass(frozen=True)
class Row:
    """A line of the file: what is graded, and what is said about it."""

    line: int
    completion: str
    reference: str
    grade: bool | None
    source: str


def _rows(path: Path, completion: str, reference: str, grade: str | None, source: str | None) -> Iterator[Row]:
    """The rows of a file. Raises ValueError that names the line for a malformed one."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            where = f"{path}, line {line}"
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where} must be an object with the fields {completion!r} and {reference!r}")
            yield Row(
                line,
                _text(row, completion, where, "--completion-field"),
                _text(row, reference, where, "--reference-field"),
                None if grade is None else _grade(row, grade, where),
                "" if source is None else str(_field(row, source, where, "--source-field")),
            )


def _field(row: dict[str, Any], name: str, where: str, option: str) -> Any:
    if name not in row:
        others = ", ".join(map(repr, islice(row, 20))) or "none"
        raise ValueError(f"{where} has no field {name!r}; its fields: {others}. Name the right one with {option}")
    return row[name]


def _text(row: dict[str, Any], name: str, where: str, option: str) -> str:
    value = _field(row, name, where, option)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(
            f"{where}: {name!r} must be a text, not {type(value).__name__}. Name another field with {option}"
        )
    return value


def _grade(row: dict[str, Any], name: str, where: str) -> bool | None:
    """A recorded grade; None if the row has none. Raises ValueError if it is neither yes nor no."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise ValueError(f"{where}: the grade {name!r} must be true, false, 1, 0 or null, not {repr(value)[:80]}")


def _verdicts(rows: list[Row], conventions: str) -> list[Verdict]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from espo_gym.envs import verify

    columns = TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    waiting = iter(rows)
    verdicts: list[Verdict] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(rows))
        while batch := list(islice(waiting, BATCH)):
            completions, references = [row.completion for row in batch], [row.reference for row in batch]
            verdicts += verify(completions, references, conventions=conventions)
            progress.advance(bar, len(batch))
    return verdicts


def _report(rows: list[Row], verdicts: list[Verdict], *, graded: bool) -> None:
    from rich.markup import escape

    from espo_gym.envs.verifier.explain import printable
    from espo_gym.estimate import Estimate

    groups: dict[str, list[Verdict]] = defaultdict(list)
    for row, verdict in zip(rows, verdicts, strict=True):
        if row.source:
            groups[row.source].append(verdict)
    groups["all"] = verdicts
    table = make_table("", "correct", "of", "accuracy, 95 % interval", "no verdict")
    for name, found in groups.items():
        known = [v.correct for v in found if v.has_verdict]
        accuracy = escape(str(Estimate.of(known)))
        table.add_row(escape(printable(name)), f"{sum(known)}", f"{len(known)}", accuracy, f"{len(found) - len(known)}")
    print_table(table, "Accuracy")

    table = make_table("status", "reason", "completions")
    for (status, reason), n in Counter((v.status, v.reason or "") for v in verdicts).most_common():
        table.add_row(status, escape(printable(reason)), str(n))
    print_table(table, "\nVerdicts")

    if graded:
        both = [(row, v) for row, v in zip(rows, verdicts, strict=True) if row.grade is not None and v.has_verdict]
        apart = [(row, v) for row, v in both if row.grade != v.correct]
        title = f"\nDisagreements with the recorded grade: {len(apart)} of {len(both)}"
        some = f", of which the first {MAX_DISAGREEMENTS}" if len(apart) > MAX_DISAGREEMENTS else ""
        _print_items(title + some, apart[:MAX_DISAGREEMENTS])
    slowest = sorted(zip(rows, verdicts, strict=True), key=lambda pair: -pair[1].seconds)[:SLOWEST]
    _print_items("\nSlowest", slowest)


def _print_items(title: str, items: list[tuple[Row, Verdict]]) -> None:
    from rich.markup import escape

    from espo_gym.envs.verifier.explain import printable

    table = make_table("line", "verdict", "tier", "ms", "answer", "reference")
    for row, verdict in items:
        cells = (
            printable(verdict.status + (f" ({verdict.reason})" if verdict.reason else "")),
            verdict.tier or "",
            f"{1000 * verdict.seconds:.1f}",
            printable(verdict.answer or "", 40),
            printable(verdict.reference or row.reference, 40),
        )
        table.add_row(str(row.line), *map(escape, cells))
    print_table(table, title)
