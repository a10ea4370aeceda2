"""The command line's ``espo-gym train``."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from espo_gym.choices import DTYPES, SAMPLERS
from espo_gym.experiments.config import RunConfig
from espo_gym.plugins import check_import, modules_in

from .errors import report_errors, stoppable
from .options import (
    ALLOW_IMPORT,
    TRUST_REMOTE_CODE,
    AlgorithmName,
    command_with_algorithms,
    env_arguments,
    given_hyperparameters,
)
from .tables import interval, make_table, print_table, problems, report_failures

KEPT = {"out", "resume", "timesteps", "progress", "allow_import", "trust_remote_code"}
"""Options that go with --resume; --algo and --env as well, where they are the run's own."""


def _algorithms(values: dict[str, Any]) -> Iterator[str]:
    """The algorithm of --algo and, if it may be imported, that of --config."""
    if values["algo"]:
        yield values["algo"]
    if values["config"] and values["config"].is_file():
        try:
            name = json.loads(values["config"].read_text()).get("algo", RunConfig.algo)
            check_import(name, _allowed(values), values["config"])
        except (ValueError, AttributeError):
            return  # the command reads the file again, and reports what is wrong with it
        yield name


def _allowed(values: dict[str, Any]) -> tuple[str, ...]:
    """Modules that the command line names: a file may name them too."""
    return (*(values["allow_import"] or ()), *modules_in((values["algo"], values["env"])))


@command_with_algorithms("train", _algorithms)
@click.option("--algo", type=AlgorithmName(), default=RunConfig.algo, help="The algorithm; your own as module:Class.")
@click.option("--policy", default=RunConfig.policy, help="A bundled policy, a folder, or a model of the hub.")
@click.option(
    "--dtype", type=click.Choice(DTYPES), default=RunConfig.dtype, help="Of the computation; weights are float32."
)
@click.option("--sampler", type=click.Choice(SAMPLERS), default=RunConfig.sampler, help="What writes completions.")
@click.option("--env", default=RunConfig.env, help="Id of the environment (see espo-gym list); your own as module:id.")
@click.option("--env-arg", "env_args", multiple=True, metavar="KEY=VALUE", help="Argument of the environment.")
@click.option("--timesteps", default=RunConfig.timesteps, help="Completions to train on.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder of the run.  [default: runs/ALGO]")
@click.option("--config", type=click.Path(path_type=Path), help="Run this config.json again; other options change it.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option("--eval-problems", default=RunConfig.eval_problems, help="Held-out problems, before and after.")
@click.option("--eval-k", default=RunConfig.eval_k, help="Completions of each of them.")
@click.option("--eval-every", default=RunConfig.eval_every, help="Rollouts between greedy evaluations (0: none).")
@click.option("--save-every", default=RunConfig.save_every, help="Completions between checkpoints.")
@click.option("--progress/--no-progress", default=True, help="Show a live table; lines, where there is no terminal.")
@ALLOW_IMPORT
@TRUST_REMOTE_CODE
@click.pass_context
@report_errors
def train_command(context: click.Context, /, **options: Any) -> None:
    """Train a policy, and leave a folder with config, metrics, curves, samples and checkpoint."""
    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if options["resume"]:
        out = options["out"] or _default_folder(options["algo"])
        config = _resumed(given, out, _allowed(options))
    else:
        config = _config(given, options, given_hyperparameters(context))
        out = options["out"] or _default_folder(config.algo)
    config.trust_remote_code = options["trust_remote_code"]
    from espo_gym.experiments.run import train
    from espo_gym.reports.plot import plot_run

    shown = warnings.showwarning
    with stoppable(lambda: _continuation(config, out)):
        try:
            warnings.showwarning = _show_warning
            evaluations = train(
                config,
                out,
                resume=options["resume"],
                overwrite=options["overwrite"],
                progress_bar=options["progress"],
                log=click.echo,
            )
        finally:
            warnings.showwarning = shown
        plot_run(out)
        _compare(evaluations)
        click.echo(f"Everything is in {out}{os.sep}")


def _continuation(config: RunConfig, out: Path) -> str:
    """What to do after an interruption."""
    if not (out / "config.json").is_file():
        return "There is no checkpoint yet: start the run again."
    allowed = "".join(f" --allow-import {module}" for module in modules_in((config.algo, config.env)))
    trusted = " --trust-remote-code" if config.trust_remote_code else ""
    command = f"espo-gym train --resume --out {shlex.quote(str(out))}{allowed}{trusted}"
    return f"To continue from the last checkpoint: {command}"


def _default_folder(algo: str) -> Path:
    return Path("runs") / algo.rpartition(":")[2]


def _resumed(given: dict[str, Any], out: Path, allowed: tuple[str, ...]) -> RunConfig:
    """The config of the run in ``out``, which only --timesteps may change."""
    if not out.is_dir():
        raise FileNotFoundError(f"nothing to resume: there is no folder {out}")
    config = RunConfig.read(out / "config.json", allowed)
    own = {name for name in ("algo", "env") if given.get(name) == getattr(config, name)}
    if given.keys() - KEPT - own:
        raise click.UsageError("a resumed run keeps its config; only --timesteps and --out go with --resume")
    config.timesteps = given.get("timesteps", config.timesteps)
    return config


def _config(given: dict[str, Any], options: dict[str, Any], hyperparameters: dict[str, Any]) -> RunConfig:
    """The config of a new run: that of --config, or the defaults, changed by the options that are ``given``."""
    names = {f.name for f in fields(RunConfig)} - {"hyperparameters", "env_args"}
    if options["config"] is None:
        config = RunConfig(**{name: options[name] for name in names})
    else:
        config = RunConfig.read(options["config"], _allowed(options))
        if given.keys() & {"algo", "preset"}:
            raise click.UsageError(
                "--config holds every hyperparameter of its algorithm: no --algo or --preset with it"
            )
        vars(config).update({name: given[name] for name in names & given.keys()})
    config.env_args |= env_arguments(given.get("env_args", ()))
    config.hyperparameters |= hyperparameters
    return config


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
    """A diagnosis in words alone; it is about the run and not about a line of code."""
    from espo_gym.diagnostics import DiagnosticWarning

    if issubclass(category, DiagnosticWarning):
        click.echo(f"Warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, *where[:2]), err=True, nl=False)


def _compare(evaluations: dict[str, Any]) -> None:
    """Print the evaluations before and after training next to each other."""
    after = evaluations["after"]
    table = make_table("", *evaluations)
    for name in [name for name, value in after.items() if isinstance(value, dict)]:
        rows = (evaluation[name] for evaluation in evaluations.values())
        table.add_row(name, *(interval(row["value"], row["low"], row["high"]) for row in rows))
    title = f"\n{after['env']}, {problems(after['split'], after['n_problems'])}, with 95 % intervals"
    print_table(table, title)
    report_failures(sum(evaluation["no_verdict"] for evaluation in evaluations.values()))
