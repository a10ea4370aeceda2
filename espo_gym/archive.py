"""Unpacking a zip file from anywhere: what is not as a checkpoint is written is refused before anything is unpacked."""

from __future__ import annotations

import errno
import re
import stat
import struct
import zipfile
from pathlib import Path

PART = re.compile(r"(state\.json|optimizer\.safetensors|(policy|reference)(/\w[\w.+-]*){1,3})", re.ASCII)
"""Names of the files in a checkpoint: a policy's folder may hold folders, of a critic or of chat templates."""

DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, ValueError)
"""What :mod:`zipfile` raises of a file that is no zip file, or no longer one."""


def unpack(path: Path, folder: Path) -> None:
    """Unpack the checkpoint ``path`` into ``folder``. What it takes there is no larger than the file itself.

    Raises:
        ValueError: it is not a whole zip file, or holds something that no checkpoint does.
    """
    try:
        with zipfile.ZipFile(path) as zipped:
            check_members(zipped.infolist(), path.stat().st_size)
            zipped.extractall(folder)
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a full disk, and not a place before the start
            raise
        reason = (str(error) or "it ends too early")[:200].rstrip(".")
        raise ValueError(
            f"{path} is not a checkpoint of espo_gym: {reason}. Take another checkpoint, or copy the file again"
        ) from error


def check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError unless ``members``, of a zip file of ``size`` bytes, are parts of a checkpoint, each there once,
    and as large together as they say.
    """
    names = [member.filename for member in members]
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not PART.fullmatch(member.filename) or kind not in (0, stat.S_IFREG):
            raise ValueError(f"it holds {member.filename!r}, which is no part of a checkpoint")
        if names.count(member.filename) > 1:
            raise ValueError(f"it holds {member.filename!r} more than once")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(
                f"its part {member.filename!r} is compressed, and a checkpoint's parts are stored as they are"
            )
    total = sum(member.file_size for member in members)
    if total > size:
        raise ValueError(f"its parts take {total} bytes unpacked, the file has {size}")
    if missing := {"state.json", "optimizer.safetensors", "policy/config.json"} - set(names):
        raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
