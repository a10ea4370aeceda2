"""Files that survive a kill and a power cut: whoever reads one later finds the old contents or the new, complete.

Contents are written beside their place, synced to the disk, renamed into place, and the folder is synced too. This
module loads no torch.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, atomically."""
    with partial_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON to ``path``, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in ``path``, which is to be ``what``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not {what}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not {what}: expected a JSON object")
    return value


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of ``path`` at the end of the context; on an error it is removed."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def publish(part: Path, path: Path) -> None:
    """Rename the file ``part`` to ``path``, on the disk too."""
    sync(part)
    os.replace(part, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the contents of the file ``path`` are on the disk; of a folder, the names in it."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows opens no folders, and writes its names by itself
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not folder or error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A temporary folder in ``parent``. Those that killed processes left there under this ``prefix`` are removed."""
    for left in parent.glob(f"{prefix}*"):
        with suppress(OSError), _reserved(left, wait=False):
            shutil.rmtree(left)
    with ExitStack() as held:
        folder: Path | None = None
        while folder is None or not folder.is_dir():  # until reserved, another process may take it for one left behind
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
            with suppress(FileNotFoundError):
                held.enter_context(_reserved(folder, wait=True))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reserved(folder: Path, *, wait: bool) -> Iterator[None]:
    """Lock ``folder``, which must be this user's own; the lock ends with the process.

    Raises OSError: ``wait`` is False and it is locked, or may be, on a file system without locks; or it is a link, or
    another user's.
    """
    if os.name == "nt":  # no locks, and folders cannot be opened
        if not wait:
            raise OSError(errno.ENOTSUP, "there are no locks on Windows")
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "the folder of another user", str(folder))
        try:
            lock(descriptor, wait=wait)
        except OSError:
            if not wait:
                raise
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool) -> None:
    """Lock an open file, for as long as it is open in this process.

    Raises:
        BlockingIOError: another process has locked it, and ``wait`` is False.
        OSError: there are no locks on its file system, or on Windows.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOTSUP, "there are no locks on Windows") from None
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
