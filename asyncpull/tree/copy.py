"""Copy a tree as it is, whatever is in it: content is shared by reflink where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncpull.errors import NotInStoreError, StoreError
from asyncpull.tree.changes import ChangeKind
from asyncpull.tree.confine import Root
from asyncpull.tree.failure import store_error
from asyncpull.tree.marks import AUFS_PREFIX, OPAQUE_NAMES, Marks
from asyncpull.tree.walk import join, walk
from asyncpull.tree.xattrs import apply_xattrs, path_of, read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from asyncpull.tree.changes import Change

_FICLONE: Final = 0x40049409
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE: Final = 1 << 30
_UNABLE: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)


Owner = Callable[[int, int], tuple[int, int]]
"""Says whose a file is in the copy, by user and group of the original."""


def copy_tree(
    source: Path,
    destination: Path,
    *,
    is_whole: bool = False,
    in_userns: bool = False,
    owner: Owner | None = None,
    checkpoint: Callable[[], None] = lambda: None,
) -> None:
    """Copy everything below ``source`` into the empty directory ``destination``.

    Kept: content, modes, owners, times, hard links among the copied, extended attributes, devices, overlay's marks.
    Of the root itself only an opaque mark is copied; its mode and owner come from the parent layer (format 4.2). Unless
    the tree ``is_whole``: then the root is copied like all other directories. Owners can be changed by ``owner``.
    ``checkpoint`` is called for every entry; what it raises ends the copying. Raises StoreError.
    """
    with Root(source) as source_root, Root(destination) as destination_root:
        copier = _Copier(source_root, destination_root, is_whole=is_whole, in_userns=in_userns, owner=owner)
        try:
            copier.run(checkpoint)
        except OSError as error:
            raise store_error(error, os.path.join(destination, os.fsdecode(copier.path))) from error


def copy_changes(
    source: Path,
    destination: Path,
    changes: Sequence[Change],
    marks: Marks,
    *,
    in_userns: bool = False,
    owner: Owner | None = None,
    checkpoint: Callable[[], None] = lambda: None,
) -> None:
    """Copy what was changed in the complete tree ``source`` into the empty ``destination``, with marks for the rest.

    ``changes`` have parents before children, as ``tree_changes`` has them. Otherwise as ``copy_tree``.
    """
    with Root(source) as source_root, Root(destination) as destination_root:
        copier = _Copier(source_root, destination_root, is_whole=False, in_userns=in_userns, owner=owner)
        try:
            copier.run_changes(changes, marks, checkpoint)
        except OSError as error:
            raise store_error(error, os.path.join(destination, os.fsdecode(copier.path))) from error


def copy_base(source: Path, destination: Path, *, in_userns: bool) -> None:
    """Copy the complete tree of a layer, root and all, into the empty directory of one that begins with it.

    A layer that is removed is moved away before it is deleted. So if it is still there in the end, the copy is whole.
    Raises NotInStoreError if it is not, StoreError.
    """
    try:
        before = source.lstat()
        copy_tree(source, destination, is_whole=True, in_userns=in_userns)
    except (OSError, StoreError) as error:
        if isinstance(error, OSError) or not source.exists():
            raise NotInStoreError(f"layer {source.name} was removed while it was copied") from error
        raise
    try:
        is_there = os.path.samestat(before, source.lstat())
    except FileNotFoundError:
        is_there = False
    if not is_there:
        raise NotInStoreError(f"layer {source.name} was removed while it was copied")


class _Copier:
    def __init__(
        self, source: Root, destination: Root, *, is_whole: bool, in_userns: bool, owner: Owner | None = None
    ) -> None:
        self._source, self._destination = source, destination
        self._owner = owner or (lambda uid, gid: (uid, gid))
        self._is_whole, self._in_userns = is_whole, in_userns
        self._can_clone = self._can_copy = True
        self._linked: dict[tuple[int, int], bytes] = {}
        self.path = b""

    def run(self, checkpoint: Callable[[], None]) -> None:
        """Make every directory private while it is filled; only then does it get what children could inherit."""
        for path, source, listing in walk(self._source):
            self.path = path
            destination = self._destination.open_directory(path)
            try:
                for name, is_directory in listing:
                    checkpoint()
                    self.path = join(path, name)
                    if is_directory:
                        os.mkdir(name, 0o700, dir_fd=destination)
                    else:
                        self._copy_entry(name, source, destination)
                self.path = path
                self._finish_directory(source, destination, is_root=not path and not self._is_whole)
            finally:
                os.close(destination)

    def run_changes(self, changes: Sequence[Change], marks: Marks, checkpoint: Callable[[], None]) -> None:
        """Directories get their own metadata at the end, the deepest first."""
        directories: list[bytes] = []
        for change in changes:
            checkpoint()
            self.path = change.path
            parent, _, name = change.path.rpartition(b"/")
            with self._both(parent) as (source, destination):
                if change.kind is ChangeKind.DELETED:
                    _mark_deleted(name, destination, marks)
                elif stat.S_ISDIR(os.lstat(name, dir_fd=source).st_mode):
                    os.mkdir(name, 0o700, dir_fd=destination)
                    directories.append(change.path)
                else:
                    self._copy_entry(name, source, destination)
        for path in reversed(directories):
            self.path = path
            with self._both(path) as (source, destination):
                self._finish_directory(source, destination, is_root=False)

    @contextmanager
    def _both(self, path: bytes) -> Iterator[tuple[int, int]]:
        source = self._source.open_directory(path)
        try:
            destination = self._destination.open_directory(path)
            try:
                yield source, destination
            finally:
                os.close(destination)
        finally:
            os.close(source)

    def _copy_entry(self, name: bytes, source: int, destination: int) -> None:
        info = os.lstat(name, dir_fd=source)
        if info.st_nlink > 1:
            first = self._linked.setdefault((info.st_dev, info.st_ino), self.path)
            if first != self.path:
                self._link(first, name, destination)
                return
        if stat.S_ISREG(info.st_mode):
            self._copy_file(name, info, source, destination)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=destination)
        os.chown(name, *self._owner(info.st_uid, info.st_gid), dir_fd=destination, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, info.st_mode & 0o7777, dir_fd=destination, follow_symlinks=False)
        self._copy_xattrs(path_of(source, name), path_of(destination, name))
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=destination, follow_symlinks=False)

    def _link(self, first: bytes, name: bytes, destination: int) -> None:
        parent, _, last = first.rpartition(b"/")
        fd = self._destination.open_directory(parent)
        try:
            os.link(last, name, src_dir_fd=fd, dst_dir_fd=destination, follow_symlinks=False)
        finally:
            os.close(fd)

    def _copy_file(self, name: bytes, info: os.stat_result, source: int, destination: int) -> None:
        from_fd = os.open(name, _READ, dir_fd=source)
        try:
            to_fd = os.open(name, _CREATE, 0o600, dir_fd=destination)
            try:
                self._copy_content(from_fd, to_fd, info.st_size)
                self._copy_metadata(from_fd, to_fd, info)
            finally:
                os.close(to_fd)
        finally:
            os.close(from_fd)

    def _copy_content(self, source: int, destination: int, size: int) -> None:
        """Try the best way first; what this pair of file systems cannot do is not tried again."""
        if not size:
            return
        if self._can_clone:
            try:
                fcntl.ioctl(destination, _FICLONE, source)
                return
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                self._can_clone = False
        while self._can_copy:
            try:
                if not os.copy_file_range(source, destination, _AT_ONCE):
                    return
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                self._can_copy = False
        while os.sendfile(destination, source, None, _AT_ONCE):
            pass

    def _copy_metadata(self, source: int, destination: int, info: os.stat_result) -> None:
        os.fchown(destination, *self._owner(info.st_uid, info.st_gid))
        os.fchmod(destination, info.st_mode & 0o7777)
        self._copy_xattrs(source, destination)
        os.utime(destination, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _finish_directory(self, source: int, destination: int, *, is_root: bool) -> None:
        if not is_root:
            self._copy_metadata(source, destination, os.fstat(source))
            return
        found = {name: value for name, value in read_xattrs(source).items() if name in OPAQUE_NAMES}
        apply_xattrs(destination, found, in_userns=self._in_userns)

    def _copy_xattrs(self, source: int | bytes, destination: int | bytes) -> None:
        if found := read_xattrs(source):
            apply_xattrs(destination, found, in_userns=self._in_userns)


def _mark_deleted(name: bytes, directory: int, marks: Marks) -> None:
    if marks is Marks.AUFS:
        # A file like others, of nobody in particular and of no time, as the archive has it.
        os.mknod(AUFS_PREFIX + name, stat.S_IFREG, dir_fd=directory)
        os.utime(AUFS_PREFIX + name, ns=(0, 0), dir_fd=directory)
    else:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
