"""A checkpoint is one zip file of plain parts, no pickle among them, written so that a kill leaves the old or the new.

state.json              algorithm (its key or module:Class), hyperparameters, environment, counters, shortcuts
optimizer.safetensors   moments of the optimizer
policy/                 a folder that plain transformers loads
reference/              the same for the frozen reference policy, if it was kept
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .archive import unpack
from .files import publish, scratch
from .policy import Policy
from .policy.language_model import writing

FORMAT = 2
"""Format 1 existed before release 0.1.0 only, and named the algorithm without its module."""

Fields = Mapping[str, "type | UnionType | Fields"]
"""The keys of a JSON object, and the types of their values."""

STATE: Fields = {
    "format": int,
    "algorithm": str,
    "hyperparameters": dict,
    "env": dict | None,
    "dtype": str,
    "autocast": str | None,
    "sampler": str,
    "frozen": list,
    "shortcuts": {"device": str, "checked": dict},
    "counters": dict,
    "clocks": dict,
    "diagnostics": {"streaks": dict, "warned": list, "history": dict},
}
"""Of state.json."""

ENV: Fields = {"id": str, "module": str | None, "kwargs": dict}
"""Of its ``env``, where there is one."""


def with_suffix(path: str | Path) -> Path:
    """``path`` with ``.zip`` added where it has no such ending."""
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")


def find(source: str | Path) -> Path | None:
    """The checkpoint that ``source`` means, None if there is no such file: the file, with or without its ending, or the
    folder of a run that holds one.
    """
    path = Path(source)
    candidates = (path, path / "checkpoint.zip", with_suffix(path)) if path.name else (path / "checkpoint.zip",)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def write(
    path: str | Path, state: dict[str, Any], optimizer: torch.optim.Optimizer, policies: dict[str, Policy]
) -> Path:
    """Write a checkpoint and return its path. The file appears under its name complete or not at all.

    Raises OSError: it cannot be written.
    """
    path = with_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only within one file system.
    with scratch(path.parent, f".{path.name}-") as folder:
        parts = folder / "parts"
        for name, policy in policies.items():
            policy.save_pretrained(parts / name)
        with writing(path):
            save_file(_flatten(optimizer.state_dict()["state"]), parts / "optimizer.safetensors")
        (parts / "state.json").write_text(json.dumps({"format": FORMAT, **state}, indent=2) + "\n")
        archive = folder / "archive.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
            for part in sorted(p for p in parts.rglob("*") if p.is_file()):
                zipped.write(part, part.relative_to(parts).as_posix())
        publish(archive, path)
    return path


@contextmanager
def opened(source: str | Path) -> Iterator[tuple[dict[str, Any], dict[int, dict[str, torch.Tensor]], Path]]:
    """Unpack the checkpoint that :func:`find` finds at ``source``, as ``(state, moments, folder)``; the folder lasts as
    long as the context.

    ``moments`` are the ``state`` of the optimizer's state dict. Its settings are hyperparameters, found in ``state``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint of this library, or has another format.
    """
    path = find(source)
    if path is None:
        raise FileNotFoundError(f"no checkpoint at {source if Path(source).is_dir() else with_suffix(source)}")
    with scratch(Path(tempfile.gettempdir()), "espo-gym-read-") as folder:
        unpack(path, folder)
        try:
            state = _read_state(folder / "state.json")
            if state["format"] != FORMAT:
                raise ValueError(
                    f"it has format {state['format']!r}, this version reads {FORMAT}: "
                    "read it with the version of espo_gym that wrote it, or train again"
                )
            check_fields(state, STATE, "state.json")
            if state["env"] is not None:
                check_fields(state["env"], ENV, "env of state.json")
            moments = _unflatten(load_file(folder / "optimizer.safetensors"))
        except (ValueError, RecursionError, SafetensorError) as error:
            raise ValueError(f"{path} is not a checkpoint of espo_gym: {error}") from error
        yield state, moments, folder


def check_fields(values: Any, fields: Fields, where: str) -> None:
    """Raise ValueError unless the JSON value ``values``, found at ``where``, is an object with exactly these fields."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be an object, not {_short(values)}")
    if missing := fields.keys() - values.keys():
        raise ValueError(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown := values.keys() - fields.keys():
        raise ValueError(f"{where} has {', '.join(map(_short, sorted(unknown)))}, which this version does not know")
    for name, kind in fields.items():
        if isinstance(kind, Mapping):
            check_fields(values[name], kind, f"{name} of {where}")
        elif not isinstance(values[name], kind) or (isinstance(values[name], bool) and kind is not bool):
            expected = kind.__name__ if isinstance(kind, type) else kind
            raise ValueError(f"{name} of {where} must be {expected}, not {_short(values[name])}")


def _read_state(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``, with its ``format``."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"{path.name} has a field twice, among {', '.join(map(_short, names[:9]))}")
        return dict(pairs)

    state = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    if not isinstance(state, dict) or "format" not in state:
        raise ValueError(f"{path.name} must be an object with a format, not {_short(state)}")
    return state


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _flatten(moments: dict[int, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The moments of each parameter as tensors by name: ``3.exp_avg``."""
    return {
        f"{index}.{name}": value.contiguous().clone()
        for index, named in moments.items()
        for name, value in named.items()
    }


def _unflatten(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", index):
            raise ValueError(f"optimizer.safetensors holds {_short(key)}, which is no moment of a parameter")
        moments.setdefault(int(index), {})[name] = value
    return moments
