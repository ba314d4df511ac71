"""Confinement: no path of an archive ever reaches anything outside of one root directory.

The rules, on which everything that writes below a root relies:

1. The last component of a path is always used by name, relative to a descriptor of its directory, and never followed
   (``O_NOFOLLOW``, ``O_EXCL``, ``AT_SYMLINK_NOFOLLOW``). This is up to the caller.
2. A directory is only ever *opened* by its canonical path: no ``..``, no link in it. The kernel sees to that
   (``openat2`` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS). Where it has no ``openat2``, or a filter forbids it,
   every component is opened by itself with O_NOFOLLOW, which comes to the same.
3. Links are followed by ``Root.resolve`` alone, which reads them itself, one component at a time, and treats the root
   as a process would that has changed its root there: an absolute target begins at the root, ``..`` ends at it.
   What it returns is a canonical path, so even a mistake in it could not lead out: rule 2 opens the result.

So both ways of opening follow links by the same code and cannot differ in where a link leads.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Opener = Callable[[int, bytes], int]
"""Opens the directory at a canonical path below an open one."""

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened by one name in its parent; a link is ENOTDIR."""

MAX_PATH: Final = 4095
"""Bytes in a path that the kernel takes: PATH_MAX without the NUL."""

MAX_LINKS: Final = 40
"""Links followed in one path before it is a loop: the kernel's MAXSYMLINKS."""

# The number is the same on every architecture of Linux but alpha.
_SYS_OPENAT2: Final = 437
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_OPEN_HOW: Final = struct.pack("=QQQ", OPEN_DIRECTORY, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
# A rename elsewhere makes a scoped look-up fail with EAGAIN. That cannot go on for ever in a private tree.
_ATTEMPTS: Final = 1000

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def open_by_kernel(root: int, path: bytes) -> int:
    """Open the directory at the canonical ``path`` below ``root`` by ``openat2``.

    Raises OSError: ELOOP for a link in the path, ENOTDIR for anything else that is no directory, ENOENT, EXDEV.
    """
    if b"\0" in path:
        raise OSError(errno.EINVAL, "null byte in path", path)
    for _ in range(_ATTEMPTS):
        fd = int(_syscall(_SYS_OPENAT2, root, path or b".", _OPEN_HOW, len(_OPEN_HOW)))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def open_by_steps(root: int, path: bytes) -> int:
    """Do what ``open_by_kernel`` does with one ``openat`` for each component; a link is ENOTDIR here."""
    if len(path) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    if b"\0" in path:
        raise OSError(errno.EINVAL, "null byte in path", path)
    parts = path.split(b"/") if path else []
    if b".." in parts:
        raise OSError(errno.EXDEV, "not a canonical path", path)
    fd = os.open(b".", OPEN_DIRECTORY, dir_fd=root)
    for part in parts:
        try:
            child = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


@functools.cache
def has_openat2() -> bool:
    """Tell whether the kernel has ``openat2`` (Linux 5.6) and no filter of system calls hides it (EPERM, ENOSYS).

    Asked with an argument of no size, which it has to refuse: nothing needs to be opened that may not be.
    """
    return _syscall(_SYS_OPENAT2, -1, b".", _OPEN_HOW, 0) < 0 and ctypes.get_errno() == errno.EINVAL


class Root:
    """The directory that nothing gets out of; paths are bytes, relative to it, ``b""`` is itself.

    A context manager that holds one descriptor. ``opener`` is chosen by what the kernel has, unless it is given.
    """

    def __init__(self, path: Path | bytes, opener: Opener | None = None) -> None:
        self._opener = opener or (open_by_kernel if has_openat2() else open_by_steps)
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def open_directory(self, path: bytes) -> int:
        """Open the directory at a canonical path: clean and without links. The caller closes it.

        Raises OSError: ENOENT; ENOTDIR or ELOOP if a component is a link or anything else but a directory.
        """
        return self._opener(self.fd, path)

    def resolve(self, path: bytes) -> bytes:
        """Follow every link in the path of an existing directory, inside the root; returns its canonical path.

        Raises OSError as a look-up by the kernel would: ENOENT (a dangling link too), ENOTDIR, ELOOP.
        """
        pending = path.split(b"/")[::-1]
        found: list[bytes] = []
        links = 0
        fd = self.open_directory(b"")
        try:
            while pending:
                part = pending.pop()
                if part in (b"", b"."):
                    continue
                if part == b"..":
                    del found[-1:]
                    fd = self._moved(fd, self.open_directory(b"/".join(found)))
                    continue
                step = _step(fd, part)
                if isinstance(step, int):
                    fd = self._moved(fd, step)
                    found.append(part)
                    continue
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if step.startswith(b"/"):
                    found.clear()
                    fd = self._moved(fd, self.open_directory(b""))
                pending += step.split(b"/")[::-1]
        finally:
            os.close(fd)
        return b"/".join(found)

    @staticmethod
    def _moved(old: int, new: int) -> int:
        os.close(old)
        return new


def _step(directory: int, name: bytes) -> int | bytes:
    """Open the directory ``name``, or return where it leads if it is a link. Raises NotADirectoryError if neither."""
    try:
        return os.open(name, OPEN_DIRECTORY, dir_fd=directory)
    except NotADirectoryError:
        if stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
            return os.readlink(name, dir_fd=directory)
        raise
