"""Mounts that end with the program that asked for them, however it ends.

The counts of mounts do not say who counted. So a program that mounts for the time of some work, and not for good, has
a lease beside the counts: a file ``<layer>.<number>`` in the run root that it keeps locked. Whoever opens the store
and can lock a lease knows that its program is gone, and counts down in its place.

1. The file is empty until the mount is counted, and emptied before it is counted down. A program that dies between the
   two steps leaves a count too much, never one too few: a mount that somebody still uses is not taken away.
2. A lease is counted or emptied only with the lock of the counts held, so two programs never count down for one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpull.lockfile import try_lock
from asyncpull.store.files import disk_errors, make_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.lockfile import HeldLock


class Lease:
    """One mount of ``layer`` for as long as this process lives, or until ``end``."""

    def __init__(self, path: Path, lock: HeldLock) -> None:
        self.layer = path.name.rpartition(".")[0]
        self._path, self._lock = path, lock

    @classmethod
    def begin(cls, root: Path, layer_id: str) -> Lease:
        """A lease that is not counted. Raises StoreWriteError, NoSpaceError, StoreError."""
        with disk_errors(root):
            for directory in (*reversed(root.parents), root):
                if not directory.exists():
                    make_directory(directory, 0o700)
        while True:  # somebody may take a file for abandoned between its making and its locking
            path = root / f"{layer_id}.{int.from_bytes(os.urandom(8)) >> 1}"
            lock = try_lock(path)
            if lock is not None:
                return cls(path, lock)

    @property
    def is_counted(self) -> bool:
        """Whether a count belongs to it."""
        with disk_errors(self._path):
            return self._path.stat().st_size > 0

    def count(self) -> None:
        """Say that the mount was counted. Needs the lock of the counts."""
        with disk_errors(self._path):
            self._path.write_bytes(b"counted")

    def discount(self) -> None:
        """Say that the mount is about to be counted down. Needs the lock of the counts."""
        with disk_errors(self._path):
            self._path.write_bytes(b"")

    def end(self) -> None:
        """Remove the file."""
        self._lock.close(unlink=True)

    def leave(self) -> None:
        """Let somebody else do what is to be done."""
        self._lock.close()


def abandoned(root: Path) -> Iterator[Lease]:
    """The leases of programs that are gone; each is to be ended or left before the next one is asked for."""
    try:
        paths = sorted(root.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for path in paths:
        lock = try_lock(path)
        if lock is not None:
            yield Lease(path, lock)
