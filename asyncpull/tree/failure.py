"""What a refusal of the kernel means for a tree of the store."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from asyncpull.errors import NoSpaceError, StoreError, StoreWriteError

if TYPE_CHECKING:
    from pathlib import Path

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def store_error(error: OSError, path: str | Path) -> StoreError:
    """Say what the file system of the store refused; ``path`` is where."""
    message = error.strerror or str(error)
    printable = os.fsencode(path).decode("utf-8", "backslashreplace")
    if error.errno in _FULL:
        return NoSpaceError(message, printable, "free some space or inodes, or choose another graph root with --root")
    hint = {
        errno.EROFS: "the file system is read-only; choose another graph root with --root",
        errno.EACCES: "the graph root must belong to the user who pulls; choose another one with --root",
        errno.EPERM: "a file system or namespace without this privilege cannot hold the layer",
        errno.EMFILE: "raise the limit of open files (ulimit -n)",
    }.get(error.errno or 0)
    return StoreWriteError(message, printable, hint)
