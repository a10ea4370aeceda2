"""What the commands share: options made from hyperparameters, names of algorithms, permission to import."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast, get_args

import click

from espo_gym.choices import ALIASES
from espo_gym.envs.checks import did_you_mean
from espo_gym.plugins import installed_algorithms

from .hyperparameters import Hyperparameter, algorithm_classes, built_in, of_class

OPTIONS = "espo_gym.hyperparameter_options"
"""Where a click context keeps the options of hyperparameters."""

ALLOW_IMPORT = click.option(
    "--allow-import",
    multiple=True,
    metavar="MODULE",
    help="Import this module if a run's files name it as the home of their algorithm or environment.",
)

TRUST_REMOTE_CODE = click.option(
    "--trust-remote-code", is_flag=True, help="Run the Python files that a model brings beside its weights."
)


class Numbers(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.2
    """Numbers with commas between them, or ``none``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...] | None:
        if isinstance(value, tuple) or value == "none":
            return None if value == "none" else value
        try:
            return tuple(float(part) for part in str(value).split(",") if part)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,0.8", param, ctx)


class Plain(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.2
    """JSON if it can be, else text: for types that have no option of their own."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return json_or_text(value) if isinstance(value, str) else value


class AlgorithmName(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.2
    """A built-in algorithm, one that a package offers, or ``module:Class``."""

    name = "algorithm"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join((*algorithm_classes(), *installed_algorithms()))}|MODULE:CLASS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = [*algorithm_classes(), *installed_algorithms()]
        if value not in known and ":" not in value:
            listed = ", ".join(map(repr, known))
            self.fail(f"{value!r} is not one of {listed}, nor module:Class.{did_you_mean(value, known)}", param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        known = (*algorithm_classes(), *installed_algorithms())
        return [click.shell_completion.CompletionItem(name) for name in known if name.startswith(incomplete)]


class AlgorithmCommand(click.Command):
    """A command with an option for each hyperparameter of every built-in algorithm, and of those its arguments name.

    ``algorithms`` gives the names of algorithms in the values of the command's other options.
    """

    def __init__(self, *args: Any, algorithms: Callable[[dict[str, Any]], Iterable[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.algorithms = algorithms

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add the options of the algorithms that ``args`` name, then parse."""
        named = self._named(args) if not ctx.resilient_parsing else {}
        taken = {parameter.name for parameter in self.params}
        ctx.meta[OPTIONS] = [o for o in hyperparameter_options(built_in() | named) if o.name not in taken]
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then the hyperparameters."""
        own = super().get_params(ctx)
        options = ctx.meta.setdefault(OPTIONS, hyperparameter_options(built_in()))
        return [*own[: len(self.params)], *options, *own[len(self.params) :]]  # --help is the last

    def _named(self, args: list[str]) -> dict[str, dict[str, Hyperparameter]]:
        """The hyperparameters of other people's algorithms that ``args`` name, by the name of the class."""
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        probe = click.Command(self.name, params=self.params, add_help_option=False, context_settings=settings)
        values = probe.make_context(self.name, list(args), resilient_parsing=True).params
        names = [name for name in self.algorithms(values) if ":" in name or name in installed_algorithms()]
        if not names:
            return {}
        from espo_gym.algorithms.registry import resolve  # torch with it: the user's class needs it

        try:
            return {cls.__name__: of_class(cls) for cls in map(resolve, names)}
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def known_elsewhere(error: click.NoSuchOption) -> click.UsageError:
    """``error``, or one that names the option here if other libraries call it so (``--lr``)."""
    assert error.ctx is not None
    flags = {
        flag.lstrip("-").replace("-", "_"): flag for p in error.ctx.command.get_params(error.ctx) for flag in p.opts
    }
    named = [flags[name] for name in ALIASES.get(error.option_name.lstrip("-").replace("-", "_"), []) if name in flags]
    return click.UsageError(f"{error.message} Here it is {' and '.join(named)}.", error.ctx) if named else error


def given_hyperparameters(context: click.Context) -> dict[str, Any]:
    """The hyperparameters that the command line gives; the preset decides on all others."""
    source = context.get_parameter_source
    names = [option.name for option in context.meta[OPTIONS]]
    return {n: context.params[n] for n in names if source(n) is click.core.ParameterSource.COMMANDLINE}


def hyperparameter_options(algorithms: dict[str, dict[str, Hyperparameter]]) -> list[click.Option]:
    """An option for each hyperparameter of ``algorithms``, which are given by the name of their class."""
    owners: dict[str, dict[str, Hyperparameter]] = {}
    for cls, hyperparameters in algorithms.items():
        for name, hyperparameter in hyperparameters.items():
            owners.setdefault(name, {})[cls] = hyperparameter
    options = []
    for name, by_class in owners.items():
        last = list(by_class.values())[-1]  # an algorithm that the user named comes after the built-in ones
        flag = f"--{name.replace('_', '-')}"
        kind, settings = _option_type(last.type)
        declarations = (f"{flag}/--no-{flag[2:]}" if kind is bool else flag, name)
        text = _help({cls: h.doc for cls, h in by_class.items()}, shared=len(by_class) == len(algorithms))
        options.append(click.Option(declarations, type=kind, default=None, show_default=False, help=text, **settings))
    return options


def _option_type(hint: Any) -> tuple[Any, dict[str, Any]]:
    """click's type for the type of a hyperparameter, and what else its option needs."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] if type(None) in get_args(hint) else [hint]
    if kinds[0] == tuple[float, ...]:
        return Numbers(), {}
    if kinds[0] == tuple[str, ...]:
        return str, {"multiple": True}
    return (kinds[0], {}) if len(kinds) == 1 and kinds[0] in (int, float, str, bool) else (Plain(), {})


def _help(docs: dict[str, str], shared: bool) -> str:
    """What a hyperparameter means, and for which classes where it is not the same for all."""
    meanings: dict[str, list[str]] = {}
    for cls, doc in docs.items():
        meanings.setdefault(doc, []).append(cls)
    if shared:
        general = next(iter(meanings))
        special = [f"[{', '.join(classes)}] {text}" for text, classes in meanings.items() if text != general]
        return " ".join([general, *special])
    return " ".join(f"[{', '.join(classes)}] {text}" for text, classes in meanings.items())


def env_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; a value is JSON if it can be, else text."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--env-arg takes KEY=VALUE, not {pair!r}")
        arguments[name] = json_or_text(value)
    return arguments


def json_or_text(value: str) -> Any:
    """The JSON that ``value`` is, or ``value`` itself."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def command_with_algorithms(
    name: str, algorithms: Callable[[dict[str, Any]], Iterable[str]]
) -> Callable[[Callable[..., None]], AlgorithmCommand]:
    """``click.command`` for an :class:`AlgorithmCommand`."""
    decorator = click.command(name, cls=AlgorithmCommand, algorithms=algorithms)
    return cast(Callable[[Callable[..., None]], AlgorithmCommand], decorator)
