"""Reads the rows of data sets, from files and from the Hugging Face Hub."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

Row = tuple[str, Mapping[str, Any]]
"""Where the row comes from (for error messages), and its fields."""


def read_jsonl(path: str | PathLike[str]) -> Iterator[Row]:
    """The objects of a JSON Lines file, one per line; empty lines are skipped.

    Raises FileNotFoundError, or ValueError with file and line number if a line is not UTF-8, not JSON or not an object.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; expected a file of JSON lines")
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                row = json.loads(text) if text else None
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}: expected a JSON object on each line: {error}") from None
            if not text:
                continue
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected a JSON object on each line, got {text[:40]!r}")
            yield where, row


def load_hub(dataset: str, name: str | None) -> dict[str, Iterable[Row]]:
    """The rows of each split of a data set: a Hub id, or a folder (of data files, or from ``save_to_disk``).

    ``name`` is its configuration. Raises ImportError without the package ``datasets``, OSError if it cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"the data set {dataset!r} needs the package datasets: pip install 'espo-gym[datasets]',"
            " or give path=..., a file of JSON lines"
        ) from error
    saved = any((Path(dataset) / file).exists() for file in ("dataset_dict.json", "state.json"))
    try:
        loaded = datasets.load_from_disk(dataset) if saved else datasets.load_dataset(dataset, name)
    except OSError as error:
        raise OSError(
            f"the data set {dataset!r} could not be loaded: {error}. Without a network give path=..., a file of JSON"
            " lines, or dataset=..., a local folder"
        ) from error
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    return {split: _located(f"{dataset}, split {split!r}", rows) for split, rows in splits.items()}


def _located(source: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    return ((f"{source}, row {number}", row) for number, row in enumerate(rows))


def field(row: Mapping[str, Any], name: str, where: str) -> Any:
    """The field ``name`` of a row. Raises ValueError if the row does not have it."""
    if name not in row:
        raise ValueError(f"{where}: no field {name!r} (available: {', '.join(map(repr, row)) or 'none'})")
    return row[name]


def reference(value: Any, where: str) -> str:
    """The reference answer in a field.

    The text after the last ``####`` if there is one, as in GSM8K's solutions, without its commas (they group digits);
    a number without an empty fraction (27.0 is 27); any other text unchanged. Raises ValueError if there is no answer.
    """
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        _, marker, last = value.rpartition("####")
        text = last.strip().replace(",", "") if marker else value.strip()
        if text:
            return text
    raise ValueError(f"{where}: the answer must be a number or a non-empty string, not {value!r}")
