"""The command line, ``espo-gym``.

Its modules import no torch: commands import what they need when they run, so that ``--help``, a mistyped option and
completion in the shell answer at once.
"""

from __future__ import annotations

import inspect
from typing import Any

import click

from espo_gym import __version__
from espo_gym.extras import advice

from .compare import compare_command
from .errors import report_errors
from .evaluate import eval_command
from .options import known_elsewhere
from .reports import inspect_command, plot_command, report_command
from .tables import make_table, print_table
from .train import train_command
from .verify import verify_command


class Commands(click.Group):
    """The commands, which also know what other libraries call their options."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise known_elsewhere(error) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error came from.")
@click.pass_context
def main(context: click.Context, traceback: bool) -> None:
    """Math problems as Gymnasium text environments, and policy optimizers that solve them."""
    context.obj = {"traceback": traceback}


@click.command("list")
@report_errors
def list_command() -> None:
    """Algorithms with their presets, environments, and bundled policies. Those of installed packages are among them."""
    try:
        _list_algorithms()
    except ModuleNotFoundError as error:
        if (said := advice(error)) is None:
            raise
        click.echo(f"No algorithms: {said}\n")
    _list_environments()


def _list_algorithms() -> None:
    """Raises ModuleNotFoundError without the packages that algorithms need."""
    from rich.markup import escape

    from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
    from espo_gym.algorithms.registry import resolve
    from espo_gym.plugins import installed_algorithms
    from espo_gym.policy import BUNDLED

    table = make_table(header=False)
    shared = PolicyOptimizer.hyperparameters()
    for name in dict.fromkeys((*ALGORITHMS, *installed_algorithms())):
        try:
            cls = resolve(name)
        except ValueError as error:
            click.echo(f"Warning: {error}", err=True)
            continue
        paper, teaching = cls.hyperparameters("paper"), cls.hyperparameters("teaching")
        own = [
            f"{key} {value}" + (f" (teaching: {teaching[key]})" if teaching[key] != value else "")
            for key, value in paper.items()
            if key not in shared
        ]
        table.add_row(name, escape(_summary(cls)))
        table.add_row("", escape(", ".join(own)), style="dim")
    print_table(table, "Algorithms, with their own options as the preset paper has them")
    click.echo("\nBundled policies\n" + ", ".join(BUNDLED) + "\n")


def _list_environments() -> None:
    import gymnasium as gym
    from rich.markup import escape

    from espo_gym.envs.registration import import_named
    from espo_gym.plugins import installed_environments, package_of

    table = make_table(header=False)
    others = installed_environments()
    for env_id, spec in sorted(gym.registry.items()):
        if spec.namespace == "espo_gym" or env_id in others:
            module, _, attribute = str(spec.kwargs["task"]).partition(":")
            where = f"{env_id!r} of {package_of(others[env_id])}" if env_id in others else repr(env_id)
            try:
                task = getattr(import_named(module, f"no environment {where}"), attribute)
            except ImportError as error:
                click.echo(f"Warning: {error}", err=True)
                continue
            except AttributeError:
                click.echo(f"Warning: no environment {where}: {module} has no attribute {attribute!r}", err=True)
                continue
            table.add_row(env_id, escape(_summary(task)))
    print_table(table, "Environments")


def _summary(cls: type) -> str:
    """The first line of the docstring of ``cls``."""
    return next(iter((inspect.getdoc(cls) or "").splitlines()), "").replace("``", "")


for command in (
    train_command,
    eval_command,
    list_command,
    compare_command,
    report_command,
    inspect_command,
    plot_command,
    verify_command,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
