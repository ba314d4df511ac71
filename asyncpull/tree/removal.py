"""Remove a whole tree that somebody else made: without following links, whatever its modes, however deep.

Nor is anything followed into what is mounted in the tree: that stops the removal.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from asyncpull.kernel import delete_subvolume, is_mount_root, is_subvolume

if TYPE_CHECKING:
    from pathlib import Path

# One descriptor is open per level. A directory below this depth is moved to the top first, so that a tree of a
# thousand levels needs no more descriptors than one of this many.
_DEPTH_LIMIT = 64

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove the directory ``path`` and all in it; nothing happens if it is not there. Raises OSError.

    Directories without write permission are made writable first, which whoever lacks CAP_DAC_OVERRIDE needs.
    """
    try:
        top = _open_directory(path, None)
    except FileNotFoundError:
        return
    try:
        while _clear(top, top, 0):
            pass
    finally:
        os.close(top)
    path.rmdir()


def _clear(fd: int, top: int, depth: int) -> bool:
    """Remove all in the directory ``fd``; True if something that lay too deep was moved to ``top`` instead."""
    moved = False
    _make_writable(fd)
    with os.scandir(fd) as entries:
        # Read to the end before anything is removed: some file systems skip entries otherwise.
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
            continue
        child = _open_directory(name, fd)
        try:
            if is_mount_root(child):  # what is mounted there is somebody else's
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
            if is_subvolume(child) and _deleted_as_subvolume(fd, name):
                continue
            if depth == _DEPTH_LIMIT:
                _make_writable(child)  # moving a directory changes its ".."
                os.rename(name, f"deep-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top)
                moved = True
                continue
            moved |= _clear(child, top, depth + 1)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=fd)
    return moved


def _deleted_as_subvolume(directory: int, name: str) -> bool:
    """Delete a subvolume at one go; False if there is another one in it, or a user may not: it is cleared then."""
    try:
        delete_subvolume(directory, name)
    except OSError:
        return False
    return True


def _open_directory(name: str | Path, parent: int | None) -> int:
    try:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except PermissionError:
        # Unreadable to its owner. chmod follows links, but this is none, and the tree is nobody else's any more.
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            raise
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def _make_writable(fd: int) -> None:
    mode = os.fstat(fd).st_mode
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, stat.S_IMODE(mode) | stat.S_IRWXU)
