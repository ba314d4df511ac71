"""Give the files of a tree other owners, and leave all else of them as it is."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from asyncpull.tree.confine import Root
from asyncpull.tree.walk import join, walk
from asyncpull.tree.xattrs import path_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CAPABILITY = b"security.capability"

Owner = tuple[int, int]


def change_owners(tree: Path, new_owner: Callable[[int, int], Owner]) -> None:
    """Give everything below ``tree``, not the directory itself, the owner that ``new_owner`` says for its old one.

    Setuid bits and capabilities, which the kernel takes away with the old owner, are given back; so are the times of
    directories. The tree may be an overlay: names of one file, which become files of their own there when they are
    changed, are linked again. Nobody else may change the tree meanwhile. Raises OSError.
    """
    first_names: dict[tuple[int, int], bytes] = {}
    with Root(tree) as root:
        for path, directory, listing in walk(root):
            before = os.fstat(directory)
            for name, _ in listing:
                info = os.lstat(name, dir_fd=directory)
                if stat.S_ISDIR(info.st_mode) or info.st_nlink == 1:
                    _change(directory, name, info, new_owner)
                    continue
                first = first_names.setdefault((info.st_dev, info.st_ino), join(path, name))
                if first == join(path, name):
                    _change(directory, name, info, new_owner)
                else:
                    _link_again(root, first, directory, name)
            if os.fstat(directory).st_mtime_ns != before.st_mtime_ns:
                os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def _change(directory: int, name: bytes, info: os.stat_result, new_owner: Callable[[int, int], Owner]) -> None:
    owner = new_owner(info.st_uid, info.st_gid)
    if owner == (info.st_uid, info.st_gid):
        return
    capability = _capability(directory, name) if stat.S_ISREG(info.st_mode) else None
    os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    if info.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(info.st_mode):
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=directory)
    if capability is not None:
        os.setxattr(path_of(directory, name), _CAPABILITY, capability, follow_symlinks=False)


def _capability(directory: int, name: bytes) -> bytes | None:
    try:
        return os.getxattr(path_of(directory, name), _CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EOVERFLOW):
            return None
        raise


def _link_again(root: Root, first: bytes, directory: int, name: bytes) -> None:
    parent, _, last = first.rpartition(b"/")
    source = root.open_directory(parent)
    try:
        os.unlink(name, dir_fd=directory)
        os.link(last, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(source)
