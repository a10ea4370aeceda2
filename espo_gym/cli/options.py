"""What the commands share: options made from the hyper-parameters."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import click

from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer

# -- options from hyper-parameters -------------------------------------------------------------------------------------


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of ``cls`` and its parents, on one line."""
    docs: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if "__dataclass_fields__" not in vars(parent):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:], strict=False):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs


class Numbers(click.ParamType):
    """Numbers with commas between them, or ``none``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...] | None:
        if isinstance(value, tuple) or value == "none":
            return None if value == "none" else value
        try:
            return tuple(float(part) for part in str(value).split(",") if part)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,0.8", param, ctx)


def hyperparameter_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each hyper-parameter of any algorithm; what is not given is left to the preset."""
    owners: dict[str, list[type[PolicyOptimizer]]] = {}
    for cls in ALGORITHMS.values():
        for f in fields(cls):
            if f.kw_only and f.init:
                owners.setdefault(f.name, []).append(cls)
    docs = {cls: field_docs(cls) for cls in ALGORITHMS.values()}
    for name, classes in reversed(owners.items()):
        flag, hint = f"--{name.replace('_', '-')}", get_type_hints(classes[0])[name]
        kinds = [t for t in get_args(hint) if t is not type(None)] if type(None) in get_args(hint) else [hint]
        kwargs: dict[str, Any] = {"default": None, "show_default": False, "help": _help(name, classes, docs)}
        if kinds[0] is bool:
            option = click.option(f"{flag}/--no-{flag[2:]}", name, **kwargs)
        elif kinds[0] == tuple[float, ...]:
            option = click.option(flag, name, type=Numbers(), **kwargs)
        elif kinds[0] == tuple[str, ...]:
            option = click.option(flag, name, multiple=True, **kwargs)
        else:
            option = click.option(flag, name, type=kinds[0], **kwargs)
        command = option(command)
    return command


def _help(name: str, classes: list[type[PolicyOptimizer]], docs: dict[type, dict[str, str]]) -> str:
    """What ``name`` means, and for which algorithms where it is not the same for all."""
    meanings: dict[str, list[str]] = {}
    for cls in classes:
        meanings.setdefault(docs[cls][name], []).append(cls.__name__)
    if len(classes) == len(ALGORITHMS):
        if len(meanings) == 1:
            return next(iter(meanings))
        general = docs[classes[0]][name]
        special = [f"[{', '.join(names)}] {text}" for text, names in meanings.items() if text != general]
        return " ".join([general, *special])
    return " ".join(f"[{', '.join(names)}] {text}" for text, names in meanings.items())


def env_arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; a value is JSON if it can be, else text."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--env-arg takes KEY=VALUE, not {pair!r}")
        try:
            arguments[name] = json.loads(value)
        except json.JSONDecodeError:
            arguments[name] = value
    return arguments
