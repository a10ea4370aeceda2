"""Every public function, class and method says what it does; an override inherits what its parent says."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest
from test_layers import MODULES


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Functions and classes that ``module`` defines, and the methods and properties of the latter."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            yield name, value
            for member, attribute in vars(value).items():
                parents = [vars(base)[member] for base in value.__mro__[1:] if member in vars(base)]
                if member.startswith("_") or any(getattr(parent, "__doc__", None) for parent in parents):
                    continue
                if inspect.isfunction(attribute) or isinstance(attribute, property | classmethod | staticmethod):
                    yield f"{name}.{member}", attribute
        elif inspect.isfunction(value):
            yield name, value


@pytest.mark.parametrize("module", [m for m in MODULES if not m.rpartition(".")[2].startswith("_")])
def test_what_is_public_has_a_docstring(module):
    missing = [name for name, value in public(importlib.import_module(module)) if not inspect.getdoc(value)]
    assert not missing, f"{module}: {', '.join(missing)}"
