"""One process at a time in a folder: a lock that ends with its process, and names it to whoever comes second."""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

from espo_gym.files import lock

LOCK = ".lock"
"""The file that is locked. It names its holder, and is removed when the holder is done."""

PATIENCE = 5.0
"""Seconds to wait for another process to leave: the workers of a killed comparison need a moment to end."""


class FolderLock:
    """Reserves ``folder``, which is made if there is none, within its context.

    The lock is the operating system's, so it ends with its process, however that ends, and none is ever stale. Where
    there are no such locks (Windows, some network file systems) a warning says so.

    Raises:
        NotADirectoryError: ``folder`` is something else.
        RuntimeError: another process has reserved it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK

    def __enter__(self) -> FolderLock:
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is not a folder: choose another name")
        self._made = not self.folder.exists()
        deadline = time.monotonic() + PATIENCE
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if self._take() and self.held():
                break  # else whoever held it has just removed it
            os.close(self._descriptor)
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self._holder()} is working in {self.folder}: wait for it to end, or choose another folder"
                )
            time.sleep(0.05)
        _held.add(self._descriptor)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps(holder).encode())
        return self

    def __exit__(self, *error: object) -> None:
        if self.held():
            self.path.unlink()
            if self._made:
                with suppress(OSError):  # it is not empty, as a rule
                    self.folder.rmdir()
        _held.discard(self._descriptor)
        os.close(self._descriptor)

    def held(self) -> bool:
        """Whether the folder is still where it was, with this lock in it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def _take(self) -> bool:
        try:
            lock(self._descriptor, wait=False)
        except BlockingIOError:
            return False
        except OSError as error:
            warnings.warn(
                f"no locks on the file system of {self.folder} ({error}): see to it yourself that no second process "
                "works in it",
                stacklevel=3,
            )
        return True

    def _holder(self) -> str:
        try:
            holder = json.loads(self.path.read_text())
            return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


_held: set[int] = set()
"""Descriptors of the locks of this process."""


def _release_in_child() -> None:
    """A forked child shares the lock, and would keep it when its parent has been killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
