"""A new tar stream for a tree that has none: the writable layer of a container, as a changeset.

The same tree gives the same bytes: members come in the order of a walk (a directory, what is in it that is no
directory, then its directories, each sorted by bytes), the second name of a file is a hard link to the first, times are
kept to the nanosecond. Marks of deleted entries and opaque directories become the whiteouts of the image
specification. Left out are the root (which has the attributes of its parent's), sockets, which no archive can hold, and
what overlay file systems note for themselves.

What would mean something else when it is read again is refused: names that begin with ``.wh.``.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from asyncpull.errors import StoreError, UnsupportedMemberError
from asyncpull.layer.archive import END, format_member, padding
from asyncpull.layer.header import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Member,
    settable_time,
)
from asyncpull.store.files import disk_errors
from asyncpull.tree.changes import ChangeKind
from asyncpull.tree.confine import Root
from asyncpull.tree.marks import AUFS_OPAQUE, AUFS_PREFIX, is_opaque, is_whiteout
from asyncpull.tree.walk import join, walk
from asyncpull.tree.xattrs import adopted, path_of, read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from asyncpull.tree.changes import Change
    from asyncpull.tree.marks import Marks

    Owner = Callable[[int, int], tuple[int, int]]

_PIECE: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
# What programs below us note about a file is no part of it.
_PRIVATE: Final = (b"user.fuseoverlayfs.", b"user.containers.")


def same_owner(uid: int, gid: int) -> tuple[int, int]:
    """The owner of a tree without ID mappings."""
    return uid, gid


def layer_archive(tree: Path, marks: Marks, owner: Owner = same_owner) -> Generator[bytes, None, None]:
    """Yield the tar stream of a tree that holds changes, with marks of the kernel's overlay for what is deleted.

    ``owner`` says whose a file is in the archive. Holds no lock.
    Raises UnsupportedMemberError, StoreError also for a file that shrinks meanwhile, LookupError of ``owner``.
    """
    with disk_errors(tree), Root(tree) as root:
        writer = _Writer(owner)
        for path, fd, listing in walk(root):
            if path:
                yield writer.directory(path, fd)
                if is_opaque(fd, marks):
                    yield writer.whiteout(join(path, AUFS_OPAQUE), os.fstat(fd))
            for name, is_directory in listing:
                if not is_directory:
                    yield from _entry(writer, join(path, name), name, fd)
        yield END


def changes_archive(tree: Path, changes: Sequence[Change], owner: Owner = same_owner) -> Generator[bytes, None, None]:
    """Yield the tar stream of some changes, which are in the complete tree ``tree``, parents before children.

    Raises what ``layer_archive`` raises.
    """
    with disk_errors(tree), Root(tree) as root:
        writer = _Writer(owner)
        for change in changes:
            parent, _, name = change.path.rpartition(b"/")
            if change.kind is ChangeKind.DELETED:
                yield writer.whiteout(join(parent, AUFS_PREFIX + name), None)
                continue
            fd = root.open_directory(parent)
            try:
                if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                    yield writer.directory(change.path, path_of(fd, name))
                else:
                    yield from _entry(writer, change.path, name, fd)
            finally:
                os.close(fd)
        yield END


def _entry(writer: _Writer, path: bytes, name: bytes, directory: int) -> Iterator[bytes]:
    """What is at ``name``, unless it is a directory."""
    info = os.lstat(name, dir_fd=directory)
    if is_whiteout(info):
        yield writer.whiteout(join(path.rpartition(b"/")[0], AUFS_PREFIX + name), info)
    elif stat.S_ISREG(info.st_mode):
        file = os.open(name, _READ, dir_fd=directory)
        try:
            info = os.fstat(file)
            header, size = writer.file(path, info, file)
            yield header
            yield from _contents(file, size, path)
            yield padding(size)
        finally:
            os.close(file)
    elif not stat.S_ISSOCK(info.st_mode):
        target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(info.st_mode) else b""
        yield writer.other(path, info, path_of(directory, name), target)


def _contents(file: int, size: int, path: bytes) -> Iterator[bytes]:
    """Exactly as much as the header says; what is added meanwhile is left for another time."""
    while size:
        piece = os.read(file, min(size, _PIECE))
        if not piece:
            name = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
            raise StoreError("the file became smaller while it was read", name, "stop what runs in the container")
        size -= len(piece)
        yield piece


class _Writer:
    """Makes headers, and remembers under which names files were written."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._names: dict[tuple[int, int], bytes] = {}

    def directory(self, path: bytes, target: int | bytes) -> bytes:
        info = os.fstat(target) if isinstance(target, int) else os.lstat(target)
        return self._header(path, info, target)

    def file(self, path: bytes, info: os.stat_result, target: int) -> tuple[bytes, int]:
        """The header of a file, and how many bytes of contents come after it."""
        if (first := self._first_name(path, info)) is not None:
            return self._header(path, info, target, HARD_LINK, first), 0
        return self._header(path, info, target, size=info.st_size), info.st_size

    def other(self, path: bytes, info: os.stat_result, target: bytes, link: bytes) -> bytes:
        if (first := self._first_name(path, info)) is not None:
            return self._header(path, info, target, HARD_LINK, first)
        return self._header(path, info, target, link=link)

    def whiteout(self, path: bytes, info: os.stat_result | None) -> bytes:
        """An empty file that says what is deleted; it belongs to whoever deleted it, where that is known."""
        uid, gid = (0, 0) if info is None else self._owner(info.st_uid, info.st_gid)
        time = 0 if info is None else settable_time(info.st_mtime_ns)
        return format_member(Member(path, REGULAR, 0, uid, gid, 0, time, time, b"", 0, 0, {}, 0))

    def _first_name(self, path: bytes, info: os.stat_result) -> bytes | None:
        if info.st_nlink < 2:
            return None
        first = self._names.setdefault((info.st_dev, info.st_ino), path)
        return None if first == path else first

    def _header(
        self, path: bytes, info: os.stat_result, target: int | bytes, kind: int = 0, link: bytes = b"", size: int = 0
    ) -> bytes:
        if path.rpartition(b"/")[2].startswith(AUFS_PREFIX):
            raise UnsupportedMemberError(
                "a name that begins with .wh., which means something else in a layer",
                path,
                hint="rename it in the container",
            )
        uid, gid = self._owner(info.st_uid, info.st_gid)
        time = settable_time(info.st_mtime_ns)
        xattrs = {name: value for name, value in adopted(read_xattrs(target)).items() if not name.startswith(_PRIVATE)}
        is_device = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
        return format_member(
            Member(
                name=path,
                kind=kind or _KINDS[stat.S_IFMT(info.st_mode)],
                mode=stat.S_IMODE(info.st_mode),
                uid=uid,
                gid=gid,
                size=size,
                mtime_ns=time,
                atime_ns=time,
                link_name=link,
                dev_major=os.major(info.st_rdev) if is_device else 0,
                dev_minor=os.minor(info.st_rdev) if is_device else 0,
                xattrs=xattrs,
                position=0,
            )
        )
