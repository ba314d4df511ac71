"""A file that is seen when it is whole, and not before.

Until then it has no name at all, where the file system can do that (``O_TMPFILE``): whatever happens, nothing is left.
Elsewhere it has a hidden one, ``.NAME.asyncpull-…``, and a lock as long as somebody writes it; who writes the same file
next removes those that are not locked, which a crash has left.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncpull.errors import StoreWriteError
from asyncpull.lockfile import HeldLock, try_lock
from asyncpull.scratch import writing

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_NO_UNNAMED: Final = frozenset((errno.EOPNOTSUPP, errno.EISDIR))
_NO_LINKS: Final = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK))
_MARK: Final = ".asyncpull-"


class NewFile:
    """What is to become the file at ``path``; a context manager, whose methods block.

    ``fd`` is its descriptor, for reading and writing. Left without ``publish`` there is nothing of it, and ``path`` is
    what it was. Links on the way to ``path`` are followed. Raises StoreWriteError, NoSpaceError.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self._hidden: Path | None = None
        self._lock: HeldLock | None = None
        with writing(path):
            try:
                self.fd = os.open(self.path.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o644)
            except OSError as error:
                if error.errno not in _NO_UNNAMED:
                    raise
                self.fd = self._open_hidden()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
        os.close(self.fd)

    def publish(self, *, replace: bool) -> None:
        """Give the file its name, once it is on the disk. An empty file there is replaced anyway.

        Raises StoreWriteError where there is another one, unless ``replace``; NoSpaceError.
        """
        with writing(self.path):
            os.fsync(self.fd)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if replace or self._is_empty():
                    self._rename(directory)
                else:
                    self._link(directory)
                os.fsync(directory)
            finally:
                os.close(directory)

    def _is_empty(self) -> bool:
        try:
            return self.path.stat().st_size == 0
        except FileNotFoundError:
            return False

    def _rename(self, directory: int) -> None:
        """Take the place of what is there. The hidden name of what had none is seen for that moment only."""
        if self._hidden is None:
            self._hidden = self._hidden_name()
            self._name(self._hidden, directory)
        self._hidden.replace(self.path)
        self._hidden = None

    def _link(self, directory: int) -> None:
        """Take a free place."""
        try:
            if self._hidden is None:
                self._name(self.path, directory)
            else:
                os.link(self._hidden, self.path)
        except FileExistsError as error:
            raise exists(self.path) from error
        except OSError as error:
            # There are file systems without hard links. Who comes between these two lines loses his file there.
            if self._hidden is None or error.errno not in _NO_LINKS:
                raise
            if self.path.exists():
                raise exists(self.path) from error
            self._rename(directory)

    def _name(self, path: Path, directory: int) -> None:
        # Python asks for the link in /proc to be followed only where it is told a directory.
        os.link(f"/proc/self/fd/{self.fd}", path.name, dst_dir_fd=directory, follow_symlinks=True)

    def _hidden_name(self) -> Path:
        return self.path.with_name(f".{self.path.name}{_MARK}{os.urandom(8).hex()}")

    def _open_hidden(self) -> int:
        prefix = f".{self.path.name}{_MARK}"
        for entry in list(os.scandir(self.path.parent)):
            # Nobody but us makes files of that name; a link of that name would be somebody's trap.
            if entry.name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                left = try_lock(Path(entry.path))
                if left is not None:
                    left.close(unlink=True)
        self._hidden = self._hidden_name()
        self._lock = try_lock(self._hidden)
        if self._lock is None:
            raise StoreWriteError("somebody has locked a file that was only just made", str(self._hidden))
        return os.dup(self._lock.fileno())


def exists(path: Path) -> StoreWriteError:
    """What is raised where a file is not overwritten."""
    return StoreWriteError("is there already, and is not overwritten", str(path), "choose another name, or remove it")
