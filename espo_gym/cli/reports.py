"""The commands that show runs: ``espo-gym report``, ``inspect`` and ``plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .errors import USER_ERRORS, in_words, report_errors
from .options import ALLOW_IMPORT, TRUST_REMOTE_CODE

PATHS = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
STEPS = click.option(
    "--steps", type=click.IntRange(0), help="Optimizer steps taken before the look.  [default: all but the last]"
)
COMPLETIONS = click.option(
    "--completions",
    type=click.IntRange(1),
    help="Completions of the inspected rollout.  [default: as in training, up to 256]",
)
SHOW = click.option("--show", default=16, type=click.IntRange(1), help="Completions shown token by token.")


@click.command("report")
@PATHS
@click.option("--out", type=click.Path(path_type=Path), default=Path("report.html"), help="The HTML file.")
@click.option("--inspector/--no-inspector", default=True, help="With the tokens of the first run with a checkpoint.")
@STEPS
@COMPLETIONS
@SHOW
@ALLOW_IMPORT
@TRUST_REMOTE_CODE
@report_errors
def report_command(runs: tuple[Path, ...], out: Path, inspector: bool, show: int, **where: Any) -> None:
    """Curves, times, completions, tokens and configs of RUNS in one HTML file.

    RUNS are folders of runs, or folders that hold some at any depth. Runs that differ in their seed alone are one
    curve with a 95 % interval. Of a comparison the report has the scores, sentences and audit, too.
    """
    from espo_gym.reports.curves import find_runs, group_runs
    from espo_gym.reports.html import page, write
    from espo_gym.reports.html.findings import find_comparisons

    found = find_runs(runs)
    inspection, note = None, ""
    source = next((run for run in found if run.checkpoint), None)
    if inspector and source is None:
        note = "No run has a checkpoint, so there is no policy whose tokens could be shown."
    elif inspector and source is not None:
        click.echo(f"inspecting {source.folder} (--no-inspector leaves it out)")
        try:
            inspection = _inspection(source.folder, show, **where)
        except USER_ERRORS as error:  # the curves are worth having all the same
            note = f"{source.folder} could not be inspected: {in_words(error)}"
            click.echo(f"Warning: {note}", err=True)
    groups, comparisons = group_runs(found), find_comparisons(runs)
    write(out, page("espo_gym report", groups=groups, comparisons=comparisons, inspection=inspection, note=note))
    click.echo(f"{len(found)} run{'s' if len(found) > 1 else ''} in {out}")


@click.command("inspect")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("inspect.html"), help="The HTML file.")
@STEPS
@COMPLETIONS
@SHOW
@ALLOW_IMPORT
@TRUST_REMOTE_CODE
@report_errors
def inspect_command(run: Path, out: Path, show: int, **where: Any) -> None:
    """The tokens of one batch of RUN as the loss of every algorithm sees them.

    RUN is the folder of a run, or a checkpoint. The policy takes some optimizer steps of its next update first, since
    without any all ratios are 1 and no clip acts.
    """
    from espo_gym.reports.html import page, write

    inspection = _inspection(run, show, **where)
    write(out, page(f"Tokens of {run}", inspection=inspection))
    click.echo(f"{len(inspection['rows'])} completions in {out}")


def _inspection(
    path: Path, show: int, allow_import: tuple[str, ...], trust_remote_code: bool, **where: Any
) -> dict[str, Any]:
    from espo_gym.algorithms import PolicyOptimizer
    from espo_gym.reports.inspector import as_json, inspect_batch

    algorithm = PolicyOptimizer.load(path, allow_import=allow_import, trust_remote_code=trust_remote_code)
    return as_json(inspect_batch(algorithm, **where), str(path), show)


@click.command("plot")
@PATHS
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("curves"), help="Figure, .png or .pdf; without ending, both."
)
@click.option("--metric", "metrics", multiple=True, help="A panel of this metric.  [default: six of the usual ones]")
@report_errors
def plot_command(runs: tuple[Path, ...], out: Path, metrics: tuple[str, ...]) -> None:
    """The curves of RUNS as a figure for a paper. RUNS as for ``espo-gym report``."""
    from espo_gym.reports import plot
    from espo_gym.reports.curves import find_runs, group_runs

    for path in plot.save(plot.draw(group_runs(find_runs(runs)), metrics or plot.PANELS), out):
        click.echo(path)
