"""Temporary directories that other programs of the store neither delete nor trip over.

The protocol of containers/storage (``internal/tempdir``), for a root such as ``overlay/tempdirs``:

1. ``lock-<X>`` guards ``temp-dir-<X>``; its owner keeps it locked for as long as the directory lives.
2. Whoever can lock ``lock-<X>`` may delete ``temp-dir-<X>`` and then the lock: its owner is gone. Everybody does so
   when they load the layer store.
3. Somebody may do that between the making and the locking of a lock file. Hence a lock counts only if its file is
   still the one at its path (``try_lock`` looks); else another name is tried.
4. The root itself is never removed: another program may be between making it and making its lock in it.
5. Programs of containers/storage do not look (podman 5.8.6): if their lock file goes between their opening and their
   locking it, they hold a lock that nobody sees and fill a directory that the next one deletes under them. So a lock
   file that has no directory yet, and a directory that has no lock file, is left alone for ``GRACE_SECONDS``.

Objects staged in a directory are called ``<n>-addition``, objects moved in to be deleted ``<n>-<name>``.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

from asyncpull.lockfile import is_locked, try_lock
from asyncpull.log import Log
from asyncpull.store.files import disk_errors, make_directory
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.lockfile import HeldLock

_log = Log(__name__)

GRACE_SECONDS = 3600.0
"""Longer than it takes to lock what was made, or to unpack a layer: half of a pair that is older is nobody's."""

_LOCK = "lock-"
_DIRECTORY = "temp-dir-"


class TempDir:
    """One temporary directory, ours until ``remove``."""

    def __init__(self, path: Path, lock: HeldLock) -> None:
        self.path, self._lock = path, lock
        self._numbers = itertools.count()

    @classmethod
    def create(cls, root: Path) -> TempDir:
        """Make one below ``root``, which is made too. Raises StoreWriteError, NoSpaceError, StoreError."""
        with disk_errors(root):
            make_directory(root, 0o700)
            name, lock = _locked_name(root)
            path = root / f"{_DIRECTORY}{name}"
            try:
                make_directory(path, 0o700)
            except BaseException:
                lock.close(unlink=True)
                raise
        return cls(path, lock)

    @property
    def lock_fd(self) -> int:
        """The descriptor of the lock; a process that inherits it keeps the directory alive."""
        return self._lock.fileno()

    def addition(self) -> Path:
        """A free path in the directory, for something to be staged."""
        return self.path / f"{next(self._numbers)}-addition"

    def take(self, path: Path) -> bool:
        """Move ``path`` in, to be deleted with the directory; False if it is not there. Raises OSError."""
        try:
            path.rename(self.path / f"{next(self._numbers)}-{path.name}")
        except FileNotFoundError:
            return False
        return True

    def remove(self) -> None:
        """Delete the directory, then the lock file. What cannot be deleted is left for the next one who tries."""
        try:
            remove_tree(self.path)
        except OSError as error:
            _log.warning("a temporary directory cannot be removed", path=str(self.path), reason=str(error))
            self._lock.close()
        else:
            self._lock.close(unlink=True)


def _locked_name(root: Path) -> tuple[str, HeldLock]:
    while True:  # ends with the first name that nobody took for an abandoned one at the very same moment
        name = str(int.from_bytes(os.urandom(8)) >> 1)
        lock = try_lock(root / f"{_LOCK}{name}")
        if lock is not None:
            return name, lock


def remove_abandoned(root: Path) -> None:
    """Delete below ``root`` what its owners left when they died; what somebody holds, or is making, is left alone."""
    for key in _keys(root):
        with disk_errors(root):
            lock = try_lock(root / f"{_LOCK}{key}")
        if lock is not None:
            _log.info("removing what a program left when it died", path=str(root / f"{_DIRECTORY}{key}"))
            TempDir(root / f"{_DIRECTORY}{key}", lock).remove()


def find_abandoned(root: Path) -> list[Path]:
    """The directories, or where there is none the locks, that ``remove_abandoned`` would delete. Raises StoreError."""
    found = []
    for key in _keys(root):
        lock, directory = root / f"{_LOCK}{key}", root / f"{_DIRECTORY}{key}"
        if not is_locked(lock):
            found.append(directory if directory.exists() else lock)
    return found


def _keys(root: Path) -> list[str]:
    """Of what is below ``root`` and may be abandoned if nobody holds the lock."""
    try:
        names = {entry.name for entry in root.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return []
    keys = {name.removeprefix(prefix) for prefix in (_LOCK, _DIRECTORY) for name in names if name.startswith(prefix)}
    return sorted(key for key in keys if not _is_being_made(root, [f"{_LOCK}{key}", f"{_DIRECTORY}{key}"], names))


def _is_being_made(root: Path, pair: list[str], names: set[str]) -> bool:
    there = [name for name in pair if name in names]
    if there == pair:
        return False
    try:
        return abs(time.time() - (root / there[0]).lstat().st_mtime) < GRACE_SECONDS
    except FileNotFoundError:  # its owner has just removed it
        return True
