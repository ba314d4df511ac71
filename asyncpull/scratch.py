"""Files without a name, for large bytes that are needed for a while; no crash leaves them behind."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncpull.errors import NoSpaceError, StoreError, StoreWriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_NO_UNNAMED: Final = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL))
_LARGE: Final = "/var/tmp"  # as containers/image does it: /tmp is often memory


def scratch_directory() -> str:
    """Where such files are: ``TMPDIR`` of the environment, or what the machine has for large temporary files."""
    from tempfile import gettempdir  # which brings random numbers along, and most pulls come without

    return os.environ.get("TMPDIR") or (_LARGE if os.access(_LARGE, os.W_OK | os.X_OK) else gettempdir())


def open_scratch(directory: Path | str | None = None) -> int:
    """A descriptor of a new, empty file in a directory, for reading and writing; closing it is all there is to do.

    Where the file system can do that, it may be given a name by a link. Raises NoSpaceError, StoreWriteError.
    """
    place = directory or scratch_directory()
    with writing(place):
        try:
            return os.open(place, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
        from tempfile import mkstemp

        fd, name = mkstemp(dir=place)
        os.unlink(name)
        return fd


def write_scratch(fd: int, data: bytes) -> None:
    """Append to a scratch file; blocks. Raises NoSpaceError, StoreWriteError."""
    with writing(scratch_directory(), "set TMPDIR to a directory with more room"):
        write_all(fd, data)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def writing(path: Path | str, hint: str = "free some space, or write to another file system") -> Iterator[None]:
    """Turn an OSError of the body, which writes ``path``, into NoSpaceError with ``hint``, or StoreWriteError."""
    try:
        yield
    except OSError as error:
        raise write_error(error, path, hint) from error


def write_error(error: OSError, path: Path | str, hint: str | None = None) -> StoreError:
    """What it means that ``path`` cannot be written."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpaceError(reason, str(path), hint)
    return StoreWriteError(reason, str(path))
