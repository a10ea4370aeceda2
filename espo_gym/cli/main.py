"""The command line: ``espo-gym train``, ``eval``, ``list``, ``compare``, and those of :mod:`espo_gym.cli.reports`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import gymnasium as gym
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from espo_gym import __version__, checkpoint
from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
from espo_gym.diagnostics import DiagnosticWarning
from espo_gym.environment import as_vector_env, make_from_spec
from espo_gym.evaluation import Evaluation, evaluate
from espo_gym.experiments.run import DTYPES, RunConfig, train
from espo_gym.policy import BUNDLED, SAMPLERS, Policy
from espo_gym.reports.plot import plot_run
from espo_gym.sampling import Sampling

from .compare import compare_command
from .errors import report_errors
from .options import env_arguments, hyperparameter_options
from .reports import inspect_command, plot_command, report_command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error came from.")
@click.pass_context
def main(context: click.Context, traceback: bool) -> None:
    """Math problems as Gymnasium text environments, and policy optimizers that solve them."""
    context.obj = {"traceback": traceback}


@main.command("train")
@click.option("--algo", type=click.Choice(list(ALGORITHMS)), default="espo", help="The algorithm.")
@click.option("--policy", default=RunConfig.policy, help="A bundled policy, a folder, or a model of the hub.")
@click.option(
    "--dtype", type=click.Choice(DTYPES), default=RunConfig.dtype, help="Of the computation; weights are float32."
)
@click.option("--sampler", type=click.Choice(SAMPLERS), default=RunConfig.sampler, help="What writes completions.")
@click.option("--env", default=RunConfig.env, help="Id of the environment (see espo-gym list).")
@click.option("--env-arg", "env_args", multiple=True, metavar="KEY=VALUE", help="Argument of the environment.")
@click.option("--timesteps", default=RunConfig.timesteps, help="Completions to train on.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder of the run.  [default: runs/ALGO]")
@click.option("--config", type=click.Path(path_type=Path), help="Run this config.json again; other options change it.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option("--eval-problems", default=RunConfig.eval_problems, help="Held-out problems, before and after.")
@click.option("--eval-k", default=RunConfig.eval_k, help="Completions of each of them.")
@click.option("--eval-every", default=RunConfig.eval_every, help="Rollouts between greedy evaluations (0: none).")
@click.option("--save-every", default=RunConfig.save_every, help="Completions between checkpoints.")
@click.option("--progress/--no-progress", default=True, help="Show a live table; lines, where there is no terminal.")
@hyperparameter_options
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
        out = options["out"] or Path("runs") / options["algo"]
        if not out.is_dir():
            raise FileNotFoundError(f"nothing to resume: there is no folder {out}")
        config = RunConfig.read(out / "config.json")
        changed = sorted(given.keys() - {"out", "resume", "timesteps", "progress", "algo"})
        if changed or given.get("algo", config.algo) != config.algo:
            raise click.UsageError("a resumed run keeps its config; only --timesteps and --out go with --resume")
        config.timesteps = given.get("timesteps", config.timesteps)
    else:
        config = _config(given, options)
        out = options["out"] or Path("runs") / config.algo
    shown = warnings.showwarning
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
    except KeyboardInterrupt:
        if (out / "checkpoint.zip").is_file():
            click.echo(f"\nStopped. To go on from the last checkpoint: espo-gym train --resume --out {out}", err=True)
        raise
    finally:
        warnings.showwarning = shown
    plot_run(out)
    _compare(evaluations)
    click.echo(f"Everything is in {out}{os.sep}")


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
    """A diagnosis in words alone; it is about the run and not about a line of code."""
    if issubclass(category, DiagnosticWarning):
        click.echo(f"Warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, *where[:2]), err=True, nl=False)


def _compare(evaluations: dict[str, Any]) -> None:
    after = evaluations["after"]
    table = Table("", *evaluations, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in [name for name, value in after.items() if isinstance(value, dict)]:
        rows = (evaluation[name] for evaluation in evaluations.values())
        table.add_row(name, *(_interval(row["value"], row["low"], row["high"]) for row in rows))
    _print(table, f"\n{after['env']}, {_problems(after['split'], after['n_problems'])}, with 95 % intervals")
    _warn(sum(evaluation["no_verdict"] for evaluation in evaluations.values()))


def _config(given: dict[str, Any], options: dict[str, Any]) -> RunConfig:
    names = {f.name for f in fields(RunConfig)} - {"hyperparameters", "env_args"}
    known = {name for cls in ALGORITHMS.values() for name in cls.hyperparameters()}
    if options["config"] is None:
        config = RunConfig(**{name: options[name] for name in names})
    else:
        config = RunConfig.read(options["config"])
        if given.keys() & {"algo", "preset"}:
            raise click.UsageError(
                "--config holds every hyper-parameter of its algorithm: no --algo or --preset with it"
            )
        vars(config).update({name: given[name] for name in names & given.keys()})
    config.env_args |= env_arguments(given.get("env_args", ()))
    config.hyperparameters |= {name: value for name, value in given.items() if name in known}
    return config


@main.command("eval")
@click.argument("source")
@click.option("--env", help="Id of the environment.  [default: a checkpoint's own]")
@click.option("--env-arg", "env_args", multiple=True, metavar="KEY=VALUE", help="Argument of the environment.")
@click.option("--split", default="test", help="Split of the problems; none for an environment that has no splits.")
@click.option("--problems", default=256, type=click.IntRange(1), help="How many problems, at most.")
@click.option("--k", default=8, type=click.IntRange(0), help="Sampled completions per problem.")
@click.option("--seed", default=0, help="Of the sampling.")
@click.option("--temperature", type=float, help="Of the sampling.  [default: a checkpoint's own, else 1]")
@click.option(
    "--max-completion-tokens",
    type=click.IntRange(1),
    help="Tokens per completion.  [default: a checkpoint's own, else 1024]",
)
@click.option(
    "--dtype",
    type=click.Choice((*DTYPES, "float16")),
    help="Of the weights.  [default: a checkpoint's own, else float32]",
)
@click.option(
    "--sampler", type=click.Choice(SAMPLERS), help="What writes completions.  [default: a checkpoint's own, else auto]"
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every completion to this file.")
@report_errors
def eval_command(
    source: str,
    env: str | None,
    env_args: tuple[str, ...],
    split: str,
    problems: int,
    k: int,
    seed: int,
    temperature: float | None,
    max_completion_tokens: int | None,
    dtype: str | None,
    sampler: str | None,
    json_file: Path | None,
) -> None:
    """Evaluate SOURCE on held-out problems: a checkpoint, the folder of a run, a policy's folder, or a model's name."""
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)  # now, not after the work
    path = Path(source)
    if (path / "checkpoint.zip").is_file():
        path = path / "checkpoint.zip"
    elif path.suffix != ".zip" and checkpoint.with_suffix(path).is_file():
        path = checkpoint.with_suffix(path)
    arguments = env_arguments(env_args)
    if path.suffix == ".zip":
        with checkpoint.opened(path) as (state, _, _):
            name, spec, rows = state["class"], state["env"], state["hyperparameters"]["rollout_size"]
        classes = {c.__name__: c for c in ALGORITHMS.values()}
        if name not in classes:
            raise ValueError(f"{path} is a checkpoint of {name}, which is not among {', '.join(classes)}")
        made: Any = None
        if env is not None:
            made = gym.make(env, **arguments)
        elif arguments and spec is not None:  # its own environment with other arguments
            made = make_from_spec({"id": spec["id"], "kwargs": spec["kwargs"] | arguments}, rows)
        algorithm = classes[name].load(path, made)
        policy, vector, sampling = algorithm.policy, algorithm.env, algorithm.sampling
        policy.sampler = sampler or policy.sampler
        if dtype is not None:
            for parameter in policy.parameters():  # not buffers, such as the frequencies of rotary embeddings
                parameter.data = parameter.data.to(getattr(torch, dtype))
    else:
        if env is None:
            raise click.UsageError(f"{source} is no checkpoint or run; a policy knows no environment, so give --env")
        policy = Policy.from_pretrained(source, dtype=dtype or "float32", sampler=sampler or "auto")
        sampling = Sampling(max_completion_tokens=1024)
        vector = as_vector_env(gym.make(env, **arguments), 64)
    sampling = Sampling(
        sampling.temperature if temperature is None else temperature,
        sampling.top_p,
        sampling.top_k,
        sampling.max_completion_tokens if max_completion_tokens is None else max_completion_tokens,
        sampling.stop,
    )
    result = evaluate(
        policy,
        vector,
        split=None if split == "none" else split,
        n_problems=problems,
        k=k,
        sampling=sampling,
        seed=seed,
        details=json_file is not None,
    )
    _show(result)
    if json_file is not None:
        with json_file.open("w") as file:
            for problem in result.problems:
                rows = zip(("greedy", *["sample"] * k), (problem.greedy, *problem.samples), strict=True)
                for (kind, text), verdict in zip(rows, (problem.greedy_verdict, *problem.verdicts), strict=True):
                    row = {"prompt": problem.prompt, "kind": kind, "completion": text, "verdict": verdict.status}
                    file.write(json.dumps(row | {"reason": verdict.reason}) + "\n")


def _show(result: Evaluation) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, e in result.items():
        table.add_row(name, _interval(e.value, e.low, e.high))
    _print(table, f"{result.env}, {_problems(result.split, result.n_problems)}, with 95 % intervals")
    _warn(result.no_verdict)


def _interval(value: float, low: float, high: float) -> str:
    return escape(f"{value:.3f} [{low:.3f}, {high:.3f}]")


def _problems(split: str | None, n: int) -> str:
    return f"{n} problems" + (f" of the split {split}" if split else "")


def _print(table: Table, title: str) -> None:
    console = Console(highlight=False)
    console.print(title, soft_wrap=True)
    console.print(table)


def _warn(no_verdict: int) -> None:
    if no_verdict:
        click.echo(f"The verifier failed on {no_verdict} completions; they are left out.")


@main.command("list")
@report_errors
def list_command() -> None:
    """Algorithms with their presets, environments, and bundled policies."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shared = PolicyOptimizer.hyperparameters()
    for name, cls in ALGORITHMS.items():
        paper, teaching = cls.hyperparameters("paper"), cls.hyperparameters("teaching")
        own = [
            f"{key} {value}" + (f" (teaching: {teaching[key]})" if teaching[key] != value else "")
            for key, value in paper.items()
            if key not in shared
        ]
        table.add_row(name, escape((inspect.getdoc(cls) or "").splitlines()[0].replace("``", "")))
        table.add_row("", escape(", ".join(own)), style="dim")
    _print(table, "Algorithms, with their own options as the preset paper has them")
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for env_id, spec in sorted(gym.registry.items()):
        if spec.namespace == "espo_gym":
            module, _, attribute = str(spec.kwargs["task"]).partition(":")
            task = getattr(importlib.import_module(module), attribute)
            table.add_row(env_id, escape((inspect.getdoc(task) or "").splitlines()[0]))
    _print(table, "\nEnvironments")
    click.echo("\nBundled policies\n" + ", ".join(BUNDLED))


for command in (compare_command, report_command, inspect_command, plot_command):
    main.add_command(command)


if __name__ == "__main__":
    main()
