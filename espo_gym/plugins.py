"""Code from other packages: what they offer by entry point, and which modules a file may have imported.

A package offers its algorithms in the entry-point group ``espo_gym.algorithms`` (name = ``module:Class``) and its tasks
in ``espo_gym.envs`` (environment id = ``module:TaskClass``). Without an entry point, the user names them as
``module:Class`` and ``module:id``.

A name that the user gives is imported. A name that a file gives (a checkpoint, a config, a comparison) passes
:func:`check_import` first, since importing a module runs it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import gymnasium

from .envs import register_task
from .envs.registration import import_named

ALGORITHMS, ENVIRONMENTS = "espo_gym.algorithms", "espo_gym.envs"
"""Groups of entry points."""

TASK_ARGUMENTS = ("task", "env")
"""Arguments of our environments whose value ``module:name`` is imported."""


def installed_algorithms() -> dict[str, EntryPoint]:
    """Algorithms that installed packages offer, by name; none of them is imported."""
    return {point.name: point for point in entry_points(group=ALGORITHMS)}


def installed_environments() -> dict[str, EntryPoint]:
    """Tasks that installed packages offer, by the id of their environment; none of them is imported."""
    return {point.name: point for point in entry_points(group=ENVIRONMENTS)}


def package_of(point: EntryPoint) -> str:
    """The name of the package that ``point`` comes from."""
    return "an unknown package" if point.dist is None else f"the package {point.dist.name}"


def register_environments() -> None:
    """Register the tasks that installed packages offer; none of them is imported. Warns about a broken one."""
    for point in entry_points(group=ENVIRONMENTS):
        try:
            if not re.fullmatch(r"[\w.]+:\w+", point.value):
                raise ValueError(f"{point.value!r} is not of the form module:TaskClass")
            if point.name in gymnasium.registry:
                raise ValueError("the id is already registered")
            register_task(point.name, point.value)
        except (ValueError, gymnasium.error.Error) as error:
            warnings.warn(
                f"the environment {point.name!r} of {package_of(point)} was not registered: {error}", stacklevel=3
            )


def modules_in(references: Iterable[str | None]) -> tuple[str, ...]:
    """The modules of those ``references`` that are ``module:name``."""
    return tuple(module for r in references if r is not None and (module := r.rpartition(":")[0]))


def check_import(reference: str, allow_import: Collection[str], source: str | Path) -> None:
    """Check that ``reference``, which the file ``source`` names, may be imported if it is ``module:name``.

    Allowed are this library, the modules in ``allow_import`` and their submodules, what an installed package offers
    as an entry point (which is imported here), and what is loaded already.

    Raises:
        ValueError: it may not be imported; the message names the option that allows it.
        ImportError: it is the entry point of an installed package, and cannot be imported.
    """
    module, colon, name = reference.rpartition(":")
    if not colon or any(f"{module}.".startswith(f"{allowed}.") for allowed in ("espo_gym", *allow_import)):
        return
    installed = [point for group in (ALGORITHMS, ENVIRONMENTS) for point in entry_points(group=group)]
    for point in installed:
        home, _, attribute = point.value.partition(":")
        if f"{home}:{point.name}" == reference:
            return
        # The package may offer a class from another module than the one that defines it, which the file names.
        if attribute == name and home.partition(".")[0] == module.partition(".")[0]:
            import_named(home, f"could not import {point.value} of {package_of(point)}")
    loaded = sys.modules.get(module)
    # Of a class, also that it is there: a module may import another one when it is asked for a name.
    if loaded is not None and (name in vars(loaded) or not name.isidentifier()):
        return
    if module == "__main__":
        raise ValueError(
            f"{source} names {reference}, which was defined in a script: move it to a module that can be imported, or "
            "load the checkpoint with the class itself"
        )
    raise ValueError(
        f"{source} names {reference}, and a module that only a file names is not imported. If you trust it, add "
        f"--allow-import {module} (in Python: allow_import=[{module!r}])"
    )


def check_env_arguments(arguments: dict[str, Any], allow_import: Collection[str], source: str | Path) -> None:
    """The same for the ``arguments`` of an environment, some of which name a task."""
    for name in TASK_ARGUMENTS:
        if isinstance(value := arguments.get(name), str):
            check_import(value, allow_import, source)
