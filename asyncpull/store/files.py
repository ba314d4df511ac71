"""Files of a store: written whole or not at all, and errors of the disk in the words of the error tree."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from asyncpull.errors import NoSpaceError, StoreError, StoreWriteError
from asyncpull.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_log = Log(__name__)

TEMPORARY = ".tmp-"
"""How the names of files begin that are not whole yet."""

ELSEWHERE = "choose another place with --root, or run as the owner of this one"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


@contextmanager
def disk_errors(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn an OSError of the body into NoSpaceError, StoreWriteError or StoreError; ``path`` if it names no file.

    ``elsewhere`` is the hint where one may not write.
    """
    try:
        yield
    except OSError as error:
        raise translated(error, path, elsewhere) from error


def translated(error: OSError, path: Path, elsewhere: str = ELSEWHERE) -> StoreError:
    """The error of the tree that says what ``error`` means for a store, or for what else is written."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(path)
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpaceError(reason, where, "free some space or inodes on this file system")
    if error.errno in _REFUSED:
        return StoreWriteError(reason, where, elsewhere)
    return StoreError(reason, where)


def write_atomic(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace ``path`` by ``data``: readers see the old file or the new one, also after a power cut if ``durable``.

    The directory is not synced: see ``sync_directory``. What a crash leaves is ignored by everybody: see ``sweep``.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}{int.from_bytes(os.urandom(4))}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, data)
            if durable:
                os.fdatasync(fd)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def kept(paths: Iterable[Path]) -> Iterator[None]:
    """Have at ``paths`` what is there now again if the body fails: all of it, or nothing where nothing is.

    The way back is but a renaming, because a full disk is the usual reason to take it. Needs the lock under which the
    files are written; what a crash leaves is what ``sweep`` removes. Where even that fails, which is told, they stay
    as they are. Raises OSError.
    """
    before = {path: path.with_name(f"{TEMPORARY}{path.name}{int.from_bytes(os.urandom(4))}") for path in paths}
    try:
        for path, other in before.items():
            if path.exists():
                os.link(path, other)
        try:
            yield
        except BaseException:
            _bring_back(before)
            raise
    finally:
        for other in before.values():
            with suppress(OSError):  # what was wanted is done, or undone; what is left, ``sweep`` removes
                other.unlink(missing_ok=True)


def _bring_back(before: Mapping[Path, Path]) -> None:
    try:
        for path, other in before.items():
            if other.exists():
                other.rename(path)
            else:
                path.unlink(missing_ok=True)
        for directory in {path.parent for path in before}:
            if directory.is_dir():
                sync_file(directory)
    except OSError as error:
        _log.warning("what was written before something failed is left", reason=str(error))


def sweep(directory: Path) -> None:
    """Remove the half-written files that a crash left in ``directory``. Needs the lock under which they are written."""
    for name in os.listdir(directory):
        if name.startswith(TEMPORARY):
            (directory / name).unlink(missing_ok=True)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file in a directory that nobody else looks into yet, with exactly this mode; replaces an older one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        _write_all(fd, data)
    finally:
        os.close(fd)


def make_directory(path: Path, mode: int) -> None:
    """Make ``path`` with exactly this mode, whatever the umask; a directory that is there keeps its own."""
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(mode)


def sync_file(path: Path) -> None:
    """Have the content and the metadata of a file or directory on the disk before returning."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_if_there(path: Path) -> bytes:
    """The content of a file, nothing if it is missing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
