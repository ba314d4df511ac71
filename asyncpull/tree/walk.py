"""Trees below a confined root: list a directory with kinds, walk, remove.

Nothing here recurses, follows a link or keeps more than two descriptors open, however deep a tree is: a layer may
nest directories 2,000 deep.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpull.tree.confine import Root
from asyncpull.tree.marks import AUFS_PREFIX, is_whiteout
from asyncpull.tree.xattrs import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of ``name`` in ``directory``, both relative to a root whose own path is empty."""
    return directory + b"/" + name if directory else name


def ancestors(path: bytes) -> Iterator[bytes]:
    """Yield ``path`` and every directory above it, but not the root."""
    while path:
        yield path
        path = path.rpartition(b"/")[0]


def entries(fd: int) -> list[tuple[bytes, bool]]:
    """List an open directory: each name, and whether it is a directory itself; sorted."""
    with os.scandir(fd) as listing:
        return sorted((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in listing)


def walk(root: Root) -> Iterator[tuple[bytes, int, list[tuple[bytes, bool]]]]:
    """Yield each directory from the top down, ``b""`` first: path, descriptor (closed at the next step), entries."""
    pending = [b""]
    while pending:
        path = pending.pop()
        fd = root.open_directory(path)
        try:
            listing = entries(fd)
            yield path, fd, listing
        finally:
            os.close(fd)
        pending += [join(path, name) for name, is_directory in reversed(listing) if is_directory]


def remove(directory: int, name: bytes, tell: Callable[[bytes], object] | None = None) -> None:
    """Remove ``name`` in the open ``directory``, with everything below it if it is a directory.

    ``tell`` is called with the path, below ``name``, of everything that is removed from it.
    """
    try:
        os.unlink(name, dir_fd=directory)
        return
    except IsADirectoryError:
        pass
    with Root(path_of(directory, name)) as root:
        below = []
        for path, fd, listing in walk(root):
            for each, is_directory in listing:
                if not is_directory:
                    os.unlink(each, dir_fd=fd)
                if tell is not None:
                    tell(join(path, each))
            below.append(path)
        for path in reversed(below[1:]):
            parent, _, last = path.rpartition(b"/")
            fd = root.open_directory(parent)
            try:
                os.rmdir(last, dir_fd=fd)
            finally:
                os.close(fd)
    os.rmdir(name, dir_fd=directory)


def beside_whiteouts(directory: int, name: bytes, is_implied: Callable[[bytes], bool]) -> bytes | None:
    """Find something below the directory ``name`` that is no mark of a deleted entry, nor a directory around them.

    ``is_implied`` tells by its path below ``name`` whether a directory is there for the sake of what is in it only.
    The result is a path below ``name`` of a directory that is not, or that holds something else; None if there is none.
    """
    with Root(path_of(directory, name)) as root:
        for path, fd, listing in walk(root):
            if path and not is_implied(path):
                return path
            for each, is_directory in listing:
                if is_directory or each.startswith(AUFS_PREFIX):
                    continue
                if not is_whiteout(os.lstat(each, dir_fd=fd)):
                    return path
    return None
