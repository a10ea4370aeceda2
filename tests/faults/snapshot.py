"""What a folder of runs, comparisons and checkpoints holds, in a form that can be compared: everything but times."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espo_gym.experiments.run_folder import read_progress

Snapshot = Mapping[str, Any]
"""Name of a file, as :func:`common_name` gives it -> what it holds."""
TIMES = re.compile(r"seconds|_per_second|^versions$|^time/(?!timesteps|rollouts)")
"""Names of figures that differ from one run to the next."""


def common_name(path: Path, folder: Path) -> str:
    """The name of a file without what depends on when a run was started, and how often."""
    name = path.relative_to(folder).as_posix()
    name = re.sub(r"progress(_\d+)?\.(csv|json)$", r"progress.\2", name)
    return re.sub(r"events\.out\.tfevents\..*", "events", name)


def snapshot(folder: Path) -> Snapshot:
    """Every file of ``folder``; a file that cannot be read holds the error, and an empty folder is an entry, too."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and any(path.iterdir()):
            continue
        name = common_name(path, folder) + "/" * path.is_dir()
        try:
            found[name] = None if path.is_dir() else contents(path)
        except Exception as error:  # whatever is wrong with a file is a difference from the file of the whole run
            found[name] = f"{type(error).__name__}: {error}"
    return found


def contents(path: Path) -> Any:
    """What ``path`` holds, without times."""
    if path.name.startswith("progress"):
        return metrics(path.parent, path.suffix)
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as zipped:
            parts = {name: zipped.read(name) for name in zipped.namelist()}
        return {name: timeless(json.loads(part)) if name == "state.json" else part for name, part in parts.items()}
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return [timeless(row) for row in rows]
    if path.name.startswith("events.out"):  # appended to as it comes, and read by another program
        return None
    if path.suffix == ".png":
        return path.read_bytes()[-8:]
    if path.suffix == ".md":
        return [line for line in path.read_text().splitlines() if "second" not in line]
    return path.read_bytes()


def metrics(folder: Path, ending: str) -> Any:
    """The rows of the metrics files with this ending, merged as the library merges them; NaN as text, to be equal."""
    with tempfile.TemporaryDirectory() as name:
        for path in folder.glob(f"progress*{ending}"):
            (Path(name) / path.name).symlink_to(path.resolve())
        columns = read_progress(Path(name))
    return {name: [repr(float(value)) for value in values] for name, values in timeless(columns).items()}


def timeless(value: Any) -> Any:
    """``value`` without the entries of its dictionaries that are times."""
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if not TIMES.search(str(name))}
    if isinstance(value, str) and "second" in value:
        return re.sub(r"[\d.]+", "", value)
    return [timeless(part) for part in value] if isinstance(value, list) else value


def differences(here: Snapshot, whole: Snapshot) -> list[str]:
    """What of ``whole`` is missing or otherwise in ``here``, in words."""
    found = []
    for name, value in whole.items():
        if name not in here:
            found.append(f"{name} is missing")
        elif here[name] != value:
            found.append(f"{name} differs{_where(here[name], value)}")
    return found


def extra(here: Snapshot, whole: Snapshot) -> list[str]:
    """Names of files in ``here`` that ``whole`` does not have; of temporary ones the first folder."""
    names = here.keys() - whole.keys()
    return sorted({re.sub(r"((?:^|/)\.[\w.-]+-)\w+(/.*)?$", r"\1*", name) for name in names})


def _where(here: Any, whole: Any) -> str:
    if isinstance(here, str):
        return f": {here}"
    if isinstance(here, dict) and isinstance(whole, dict):
        names = [name for name in {**here, **whole} if here.get(name) != whole.get(name)]
        inner = _where(here.get(names[0]), whole.get(names[0])) if names else ""
        return f" in {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}{inner}"
    if isinstance(here, list) and isinstance(whole, list) and len(here) != len(whole):
        return f": {len(here)} entries where {len(whole)} belong"
    return ""
