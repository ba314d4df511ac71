"""Turns at locks that many of our processes want: a reader does not stand behind more than one writer.

The kernel wakes all who wait for a lock at once, and whoever comes first gets it, also somebody who has not waited at
all. A reader could wait for any number of commits. So processes of ours queue besides:

1. A file of our own has two bytes for each lock; nothing is ever written there. Who queues holds locks on these bytes.
2. A reader that gets the lock at once does not queue. Else it holds the readers' byte, shared, until it has the lock.
3. A writer that gets the lock at once keeps it if nobody queues. Else it gives it back and queues: it waits for the
   writers' byte, exclusively, and holds it until it has done with the lock; then it waits until no reader queues; then
   for the lock.

From the moment that a reader queues, then, at most one writer gets the lock before it: the one that had seen no reader
queue, of which there is one, as there is one holder of the writers' byte. A writer starves no more than it did: what it
waits for is readers of a lock that no writer of ours has.

Who holds one of these bytes waits for the lock alone, or for those who do; so the order of the locks themselves is all
that is needed for nobody to wait in a circle. The bytes of a process that dies are free. Other programs know nothing of
this and wait in the kernel, as they always did. Where the file cannot be opened, we do so too.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncpull import kernel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_WRITERS, _READERS, _BYTES = 0, 1, 2


class Turnstile:
    """The file at ``path``, where processes queue for ``locks``; all of them have to name these in the same order."""

    def __init__(self, path: Path, locks: Iterable[Path]) -> None:
        self._path = path
        self._starts = {lock: number * _BYTES for number, lock in enumerate(locks)}
        self._fd = -1

    def is_queued(self, lock: Path) -> bool:
        """Whether somebody queues for a lock, or has it by a turn. Raises OSError if locks do not work here."""
        start = self._starts.get(lock)
        if start is not None and self._fd < 0:
            self._fd = self._open()
        return start is not None and self._fd >= 0 and kernel.has_locked_bytes(self._fd, start, _BYTES)

    def queue(self, lock: Path, *, is_writer: bool) -> Turn | None:
        """Begin to queue for a lock; None where one cannot. A reader that does not have to wait is in the queue."""
        start = self._starts.get(lock)
        fd = -1 if start is None else self._open()
        if start is None or fd < 0:
            return None
        try:
            return Turn(fd, start, is_writer=is_writer)
        except OSError:
            os.close(fd)
            return None

    def close(self) -> None:
        """Close the file; nobody queues here any more."""
        self._starts.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:  # nobody can write here, or nothing of ours is here
            return -1


class Turn:
    """A place in a queue, by an open file description of its own; ended once."""

    __slots__ = ("_fd", "_is_in_queue", "_is_writer", "_start")

    def __init__(self, fd: int, start: int, *, is_writer: bool) -> None:
        """Take over ``fd``, unless this raises OSError."""
        self._fd, self._start, self._is_writer = fd, start, is_writer
        self._is_in_queue = not is_writer and kernel.lock_bytes(fd, fcntl.F_RDLCK, start + _READERS, 1)

    def wait(self) -> None:
        """Block until it is time to wait for the lock itself. Raises OSError."""
        readers = self._start + _READERS
        if self._is_writer:
            kernel.lock_bytes(self._fd, fcntl.F_WRLCK, self._start + _WRITERS, 1, wait=True)
            kernel.lock_bytes(self._fd, fcntl.F_WRLCK, readers, 1, wait=True)
            kernel.lock_bytes(self._fd, fcntl.F_UNLCK, readers, 1)
        elif not self._is_in_queue:
            kernel.lock_bytes(self._fd, fcntl.F_RDLCK, readers, 1, wait=True)

    def end(self) -> None:
        """Leave the queue."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            # A child process that is about to start may have the descriptor too.
            kernel.lock_bytes(fd, fcntl.F_UNLCK, self._start, _BYTES)
        os.close(fd)
