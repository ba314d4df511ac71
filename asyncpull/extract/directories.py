"""The open directories of a tree that is being written: found once, kept open, their times put back at the end.

Invariants:

1. Every cached descriptor is of the directory whose canonical path is its key. Only replacing a directory can break
   that: ``forget`` then drops it and everything below it. Replacing a link cannot, as no canonical path contains one.
2. ``_aliases`` maps a path through links to the canonical one. New names cannot change where an existing path leads;
   replacing a link or a directory can, so ``forget`` empties it.
3. Writing into a directory changes its times. They are put back by descriptor when it leaves the cache, which is the
   only moment after which nothing is written through it, unless it is opened again, and then it is put back again.
4. At most ``capacity`` descriptors are open; the directory returned last is never the one to be closed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.tree.confine import MAX_PATH, OPEN_DIRECTORY

if TYPE_CHECKING:
    from asyncpull.tree.confine import Root

CAPACITY: Final = 256
_MAX_ALIASES: Final = 10_000

Owner = tuple[int, int]
"""User and group ID."""


@dataclass(slots=True)
class Directory:
    """An open directory of the tree.

    ``newcomer`` is the owner that a file created in it is certain to have, or None where that depends on how the file
    system is mounted. ``is_setgid`` tells that a directory created in it gets the set-group-ID bit. ``times`` are
    those to put back (access, modification; nanoseconds), if any.
    """

    path: bytes
    fd: int
    newcomer: Owner | None
    is_setgid: bool
    times: tuple[int, int] | None


class Directories:
    """A bounded cache of the open directories below ``root``. A context manager that leaves none open."""

    def __init__(self, root: Root, capacity: int = CAPACITY) -> None:
        self._root = root
        self._capacity = capacity
        self._me: Owner = (os.geteuid(), os.getegid())
        self._open: OrderedDict[bytes, Directory] = OrderedDict()
        self._aliases: dict[bytes, bytes] = {}

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1].fd)

    def settle(self) -> None:
        """Put back the times of all that are open, and close them: nothing more will be written."""
        while self._open:
            self._close(self._open.popitem()[1])

    def get(self, path: bytes) -> Directory:
        """Return the directory at a clean path, following links inside the root.

        Raises OSError: ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG.
        """
        directory = self._open.get(path)
        if directory is None:
            return self._find(path)
        self._open.move_to_end(path)
        return directory

    def add(self, path: bytes, fd: int, owner: Owner | None, mode: int, times: tuple[int, int] | None) -> Directory:
        """Take over ``fd`` of the directory at canonical ``path``; ``owner`` None if it is not known for sure.

        Raises OSError (ENAMETOOLONG), and does not take it over, if nobody could open that path in one go.
        """
        if len(path) >= MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        directory = Directory(path, fd, None, True, None)
        self.describe(directory, owner, mode, times)
        if len(self._open) >= self._capacity:
            self._close(self._open.popitem(last=False)[1])
        self._open[path] = directory
        return directory

    def describe(self, directory: Directory, owner: Owner | None, mode: int, times: tuple[int, int] | None) -> None:
        """Note what an open directory has become; ``owner`` as for ``add``."""
        if owner is None:
            directory.newcomer, directory.is_setgid = None, True
        else:
            directory.is_setgid = bool(mode & stat.S_ISGID)
            # The group comes from the process, or from a directory that is setgid or on a mount with ``grpid``.
            uid, gid = self._me
            directory.newcomer = (uid, owner[1]) if owner[1] == gid or directory.is_setgid else None
        directory.times = times

    def forget(self, path: bytes) -> None:
        """Drop what is known about the directory or link at canonical ``path``, which is about to be replaced."""
        self._aliases.clear()
        below = path + b"/"
        for gone in [each for each in self._open if each == path or each.startswith(below)]:
            os.close(self._open.pop(gone).fd)

    def _find(self, path: bytes) -> Directory:
        canonical = self._aliases.get(path)
        if canonical is not None:
            return self.get(canonical)
        try:
            fd = self._root.open_directory(path)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            canonical = self._root.resolve(path)
            if canonical == path:
                raise
        else:
            return self._adopt(path, fd)
        if len(self._aliases) >= _MAX_ALIASES:
            self._aliases.clear()
        self._aliases[path] = canonical
        return self.get(canonical)

    def _adopt(self, path: bytes, fd: int) -> Directory:
        """Keep a directory that was there before: what it is now is what it should be when it is closed."""
        try:
            info = os.fstat(fd)
            owner = (info.st_uid, info.st_gid)
            return self.add(path, fd, owner, info.st_mode, (info.st_atime_ns, info.st_mtime_ns))
        except BaseException:
            os.close(fd)
            raise

    @staticmethod
    def _close(directory: Directory) -> None:
        try:
            if directory.times is not None:
                os.utime(directory.fd, ns=directory.times)
        finally:
            os.close(directory.fd)


def open_child(parent: Directory, name: bytes) -> int:
    """Open the directory ``name`` of ``parent``; a link is ENOTDIR."""
    return os.open(name, OPEN_DIRECTORY, dir_fd=parent.fd)
