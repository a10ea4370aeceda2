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

_UNPACK = "unpack it first"
_DATASET = 'put it into a folder and give that as dataset="FOLDER" instead of path'
FORMATS = {
    b"\x1f\x8b": ("compressed by gzip", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", _UNPACK),
    b"BZh": ("compressed by bzip2", _UNPACK),
    b"\xfd7zXZ": ("compressed by xz", _UNPACK),
    b"PK\x03\x04": ("a zip archive", _UNPACK),
    b"PAR1": ("a Parquet file", _DATASET),
    b"ARROW1": ("an Arrow file", _DATASET),
}
"""How files of other formats begin, what they are and what to do with them."""


def read_jsonl(path: str | PathLike[str]) -> Iterator[Row]:
    """The objects of a JSON Lines file, one per line; empty lines are skipped.

    Raises FileNotFoundError, or ValueError: the file is of another format, or a line (whose number is given) is not
    UTF-8, not JSON, not an object, or has a key twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; expected a file of JSON lines")
    with open(path, "rb") as file:
        start = file.peek(8)
        for magic, (name, advice) in FORMATS.items():
            if start.startswith(magic):
                raise ValueError(f"{path} is {name}, and a file of JSON lines is needed: {advice}")
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                row = json.loads(text, object_pairs_hook=_object) if text else None
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}: expected a JSON object on each line: {error}") from None
            if not text:
                continue
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected a JSON object on each line, got {text[:40]!r}")
            yield where, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these keys and values. Raises ValueError if a key occurs twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return row


def load_hub(dataset: str, name: str | None) -> dict[str, Iterable[Row]]:
    """The rows of each split of a data set: a Hub id, or a folder (of data files, or from ``save_to_disk``).

    ``name`` is its configuration. Raises ImportError without the package ``datasets``, OSError if it cannot be loaded
    or is damaged.
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
        splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        for rows in splits.values():
            rows.data.validate(full=True)  # reading a damaged file of Arrow could end this process
    except Exception as error:  # of whatever kind, since other people's code reads other people's files
        reason = str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        raise OSError(
            f"the data set {dataset!r} could not be loaded: {reason}. Without a network give path=..., a file of JSON"
            " lines, or dataset=..., a local folder"
        ) from error
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
