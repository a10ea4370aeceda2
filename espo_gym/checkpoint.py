"""A checkpoint is one zip file of plain parts, no pickle among them, written so that a kill leaves the old or the new.

state.json              algorithm (its key or module:Class), hyperparameters, environment, counters, shortcuts
optimizer.safetensors   moments of the optimizer
policy/                 a folder that plain transformers loads
reference/              the same for the frozen reference policy, if it was kept
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .files import publish, scratch
from .policy import Policy

FORMAT = 2
"""Format 1 existed before release 0.1.0 only, and named the algorithm without its module."""


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
    """Write a checkpoint and return its path. The file appears under its name complete or not at all."""
    path = with_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only within one file system.
    with scratch(path.parent, f".{path.name}-") as folder:
        parts = folder / "parts"
        for name, policy in policies.items():
            policy.save_pretrained(parts / name)
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
    with scratch(Path(tempfile.gettempdir()), "espo-gym-") as folder:
        try:
            with zipfile.ZipFile(path) as zipped:
                zipped.extractall(folder)  # refuses names that lead outside the folder
            state = json.loads((folder / "state.json").read_text())
        except (zipfile.BadZipFile, FileNotFoundError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a checkpoint of espo_gym: {error}") from error
        if state.get("format") != FORMAT:
            raise ValueError(
                f"{path} has format {state.get('format')}, this version reads {FORMAT}: "
                "read it with the version of espo_gym that wrote it, or train again"
            )
        yield state, _unflatten(load_file(folder / "optimizer.safetensors")), folder


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
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    return moments
