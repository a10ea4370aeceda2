"""The command line's ``espo-gym compare``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from espo_gym.choices import DTYPES, PROTOCOLS
from espo_gym.experiments.config import RunConfig

from .errors import report_errors, stoppable
from .options import (
    ALLOW_IMPORT,
    TRUST_REMOTE_CODE,
    command_with_algorithms,
    env_arguments,
    given_hyperparameters,
    json_or_text,
)
from .tables import make_table, print_table

if TYPE_CHECKING:
    from espo_gym.experiments.comparison import Comparison
    from espo_gym.experiments.health import Health
    from espo_gym.experiments.setting import Entry


def split_entry(text: str) -> tuple[str, str, dict[str, Any]]:
    """Name, algorithm and hyperparameters of ``wide=espo,alpha=1.0``. Values are JSON if they can be, else text."""
    name, equals, rest = text.partition("=")
    algo, *pairs = re.split(r",(?=[A-Za-z_0-9]+=)", rest)
    if not equals or not algo:
        raise click.UsageError(f"--entry takes NAME=ALGORITHM[,KEY=VALUE...], not {text!r}")
    return name, algo, {key: json_or_text(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def parse_entry(text: str) -> Entry:
    """``wide=espo,alpha=1.0`` is the entry "wide": ESPO with alpha 1; see :func:`split_entry`."""
    from espo_gym.experiments.setting import Entry

    return Entry(*split_entry(text))


def _algorithms(values: dict[str, Any]) -> Iterator[str]:
    """The algorithms of --algos and --entry."""
    yield from _names(values["algos"])
    for text in values["more"] or ():
        yield split_entry(text)[1]


def _names(algos: str | None) -> list[str]:
    return [name.strip() for name in (algos or "").split(",") if name.strip()]


@command_with_algorithms("compare", _algorithms)
@click.option(
    "--algos",
    help="Algorithms, with commas between them; your own as module:Class.  [default: espo,gspo,grpo,ppo]",
    show_default=False,
)
@click.option(
    "--entry", "more", multiple=True, metavar="NAME=ALGO[,KEY=VALUE...]", help="One more, with its own options."
)
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="Its tasks and regimes instead of one environment.")
@click.option("--env", default=RunConfig.env, help="Id of the environment (see espo-gym list); your own as module:id.")
@click.option("--env-arg", "env_args", multiple=True, metavar="KEY=VALUE", help="Argument of the environment.")
@click.option(
    "--policy",
    multiple=True,
    default=[RunConfig.policy],
    help="What all start from. Of several, seed s takes number s modulo their number.",
)
@click.option("--dtype", type=click.Choice(DTYPES), default=RunConfig.dtype, help="Of the computation.")
@click.option("--seeds", default=10, type=click.IntRange(1), help="Runs of each entry: seeds 0, 1, ...")
@click.option(
    "--timesteps", type=click.IntRange(1), help="Completions of each run.  [default: 7680, or the protocol's]"
)
@click.option("--seconds", type=float, help="Seconds of training of each run, in place of completions.")
@click.option("--tune", "tuned", is_flag=True, help="Tune learning rate and clip first, on a grid equal for all.")
@click.option("--tune-seeds", default=3, type=click.IntRange(1), help="Seeds of it: 100, ...")
@click.option("--eval-problems", type=int, help="Held-out problems, after training.  [default: 256, or the protocol's]")
@click.option("--eval-k", type=int, help="Completions of each of them.  [default: 8]")
@click.option("--eval-every", default=0, help="Rollouts between greedy evaluations on the way (0: none).")
@click.option("--jobs", type=click.IntRange(1), help="Processes at a time.  [default: the number of cores]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/compare"), help="Folder of the comparison.")
@ALLOW_IMPORT
@TRUST_REMOTE_CODE
@click.pass_context
@report_errors
def compare_command(context: click.Context, /, **options: Any) -> None:
    """Compare algorithms, seed against seed, on equal budgets. Run it again to continue with what is missing.

    Options of algorithms hold for every entry, those of --entry for that one.
    """
    from espo_gym.experiments.compare import compare
    from espo_gym.experiments.tuning import tune

    hyperparameters = given_hyperparameters(context)
    if "seed" in hyperparameters:
        raise click.UsageError("--seeds gives every entry the seeds 0, 1, ...; there is no --seed here")
    entries: list[str | Entry] = [*_names(options["algos"]), *map(parse_entry, options["more"])]
    entries = entries or ["espo", "gspo", "grpo", "ppo"]
    out: Path = options["out"]
    settings: dict[str, Any] = {
        name: options[name]
        for name in ("timesteps", "seconds", "dtype", "eval_problems", "eval_k", "eval_every", "jobs", "allow_import")
        if options[name] is not None
    }
    settings |= {"hyperparameters": hyperparameters, "log": click.echo}
    with stoppable(lambda: "The same command continues with what is missing."):
        if options["protocol"]:
            _protocol(entries, out, settings, options)
        else:
            settings |= {name: options[name] for name in ("policy", "trust_remote_code")}
            settings |= {"env_args": env_arguments(options["env_args"])}
            if options["tuned"]:
                entries = list(tune(entries, options["env"], out=out, seeds=options["tune_seeds"], **settings))
            _show(compare(entries, options["env"], out=out, seeds=options["seeds"], **settings))
        click.echo(f"Everything is in {out}{os.sep}; begin with report.md")


def _protocol(entries: Sequence[str | Entry], out: Path, settings: dict[str, Any], options: dict[str, Any]) -> None:
    from espo_gym.experiments.comparison_report import interval_method, mean_interval
    from espo_gym.experiments.protocol import PROTOCOLS, RegimeResults, run_protocol

    source = click.get_current_context().get_parameter_source
    own = ("env", "env_args", "policy", "trust_remote_code")
    given = [name for name in own if source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        flags = ", ".join(f"--{name.replace('args', 'arg').replace('_', '-')}" for name in given)
        raise click.UsageError(f"--protocol has its own environments and policies: no {flags} with it")
    protocol = PROTOCOLS[options["protocol"]]
    tune_seeds = options["tune_seeds"] if options["tuned"] else None
    made = run_protocol(protocol, entries, out=out, seeds=options["seeds"], tune_seeds=tune_seeds, **settings)
    for regime in protocol.regimes:
        results = RegimeResults.of(protocol, made, regime.name)
        header = ["", *(task.name for task in protocol.tasks), "mean"]
        rows = [
            [entry, *(mean_interval(values, results.share) for values in (*scores.T, scores.mean(1)))]
            for entry, scores in results.auc.items()
        ]
        _read_first(results.health, f"{regime.name}: ")
        _print(header, rows, f"\nAUC, {regime.name}")
        click.echo(interval_method(results.share))
        _sentences([str(pair) for pair in results.pairs])
    for cell, comparison in made.items():
        _audit(comparison, f"{cell}: ")


def _show(comparison: Comparison) -> None:
    from espo_gym.experiments.comparison_report import auc_pairs, interval_method, score_table, tuning_summary

    _read_first(comparison.health())
    header, rows = score_table(comparison)
    shown = [i for i, name in enumerate(header) if name not in ("IQM of AUC", "final", "rollouts_to_0.8")]
    title = f"\n{comparison.setting['env']}, {len(comparison.seeds)} seeds"
    _print([header[i] for i in shown], [[row[i] for i in shown] for row in rows], title)
    click.echo(interval_method(comparison.is_share("auc")))
    click.echo(tuning_summary(comparison))
    _sentences([str(pair) for pair in auc_pairs(comparison)])
    _audit(comparison)


def _read_first(runs: Mapping[str, Sequence[Health]], where: str = "") -> None:
    from espo_gym.experiments.health import headline, warnings

    first = headline(runs)
    if first:
        click.echo(f"\n{where}{first}")
        for sentence in warnings(runs):
            click.echo(f"- {sentence}")


def _sentences(sentences: list[str]) -> None:
    click.echo("\nOn the mean reward over training (AUC), seed against seed, with Student's 95 % intervals:")
    for sentence in sentences:
        click.echo(f"- {sentence}")


def _audit(comparison: Comparison, where: str = "") -> None:
    from espo_gym.experiments.fairness import fairness_checks

    checks = fairness_checks(comparison)
    wrong = [text for ok, text in checks if ok is False]
    for text in wrong:
        click.echo(f"AUDIT: {where}{text}", err=True)
    if not wrong:
        passed = sum(ok is True for ok, _ in checks)
        click.echo(f"Audit: {where}{passed} of {passed} checks passed: training, weights, sampling, budgets, versions")


def _print(header: list[str], rows: list[list[str]], title: str) -> None:
    from rich.markup import escape

    table = make_table(*header)
    for row in rows:
        table.add_row(*map(escape, row))
    print_table(table, title)
