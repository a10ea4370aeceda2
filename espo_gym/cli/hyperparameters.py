"""Hyperparameters of algorithms: names, types and docstrings.

The library's own are read from the sources of ``espo_gym.algorithms``, since importing it would load torch, which
``--help`` and completion in the shell do not need. Those of a class that the user names come from the class.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, fields
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import Any

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "None": None}


@dataclass(frozen=True)
class Hyperparameter:
    """A field of an algorithm that can be set by keyword."""

    name: str
    type: Any
    """Of int, float, str, bool, tuple, None and their unions; None for what is made of anything else."""
    doc: str
    """The docstring under the field, on one line."""


def built_in() -> dict[str, dict[str, Hyperparameter]]:
    """Hyperparameters of the library's algorithms by the name of the algorithm's class, without importing them."""
    return {cls: _of_source(cls) for cls in algorithm_classes().values()}


@cache
def algorithm_classes() -> dict[str, str]:
    """``ALGORITHMS`` as written in the sources: key -> name of the class."""
    for tree in _sources():
        for node in tree.body:
            match node:
                case (
                    ast.AnnAssign(target=ast.Name(id="ALGORITHMS"), value=ast.Dict(keys=keys, values=values))
                    | ast.Assign(targets=[ast.Name(id="ALGORITHMS")], value=ast.Dict(keys=keys, values=values))
                ):
                    names = (value.id for value in values if isinstance(value, ast.Name))
                    return {str(k.value): n for k, n in zip(keys, names, strict=True) if isinstance(k, ast.Constant)}
    raise LookupError("ALGORITHMS is not a dictionary of classes in the sources of espo_gym.algorithms")


def of_class(cls: type) -> dict[str, Hyperparameter]:
    """The hyperparameters of ``cls``, a dataclass."""
    docs: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if "__dataclass_fields__" in vars(parent):
            docs |= _docs_of(parent)
    return {
        f.name: Hyperparameter(f.name, _type(f.type), docs.get(f.name, "")) for f in fields(cls) if f.kw_only and f.init
    }


def _docs_of(cls: type) -> dict[str, str]:
    """The docstring under each field that ``cls`` itself defines; empty for a class without source code."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):
        return {}
    assert isinstance(node, ast.ClassDef)
    return {name: doc for name, (_, doc) in _fields(node).items()}


@cache
def _sources() -> tuple[ast.Module, ...]:
    spec = find_spec("espo_gym.algorithms")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py")))


@cache
def _classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for tree in _sources() for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def _twin(name: str) -> type:
    """An empty class with the bases that the class ``name`` has in the sources, so that Python orders them."""
    bases = [base for base in map(_base, _classes()[name].bases) if base in _classes()]
    return type(name, tuple(map(_twin, bases)), {})


def _base(node: ast.expr) -> str:
    """The name of a base class; of ``Generic[T]`` that of ``Generic``."""
    return ast.unparse(node.value if isinstance(node, ast.Subscript) else node)


def _of_source(name: str) -> dict[str, Hyperparameter]:
    found: dict[str, Hyperparameter] = {}
    for cls in reversed(_twin(name).__mro__[:-1]):
        for field, (annotation, doc) in _fields(_classes()[cls.__name__]).items():
            # A field that is defined again keeps its place, and its docstring where it has no new one.
            found[field] = Hyperparameter(field, _type(annotation), doc or (found[field].doc if field in found else ""))
    return found


def _fields(node: ast.ClassDef) -> dict[str, tuple[str, str]]:
    """Annotation and docstring of each field in the body of a dataclass that can be set by keyword."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return {}
    found: dict[str, tuple[str, str]] = {}
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                text = ast.unparse(annotation)
                if text.startswith(("ClassVar", "InitVar")) or not _keyword(value):
                    continue
                match after:
                    case ast.Expr(value=ast.Constant(value=str(doc))):
                        found[name] = text, " ".join(doc.split())
                    case _:
                        found[name] = text, ""
    return found


def _keyword(value: ast.expr | None) -> bool:
    """Whether a field with this default can be set by keyword: no ``field(kw_only=False)`` or ``field(init=False)``."""
    options = value.keywords if isinstance(value, ast.Call) and ast.unparse(value.func) == "field" else []
    return not any(o.arg in ("kw_only", "init") and ast.unparse(o.value) == "False" for o in options)


def _type(annotation: Any) -> Any:
    """The type that an annotation, text or not, stands for; None where it is made of others than those in ``TYPES``."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return _evaluated(ast.parse(annotation, mode="eval").body)
    except (LookupError, SyntaxError):
        return None


def _evaluated(node: ast.expr) -> Any:
    """Raises LookupError for what is none of ``TYPES``, ``tuple[X, ...]`` and unions of these."""
    match node:
        case ast.Name(id=name):
            return TYPES[name]
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return reduce(or_, (_evaluated(left) or type(None), _evaluated(right) or type(None)))
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=last)])):
            if last is ...:
                return tuple[_evaluated(item), ...]  # type: ignore[misc]
    raise LookupError(ast.unparse(node))
