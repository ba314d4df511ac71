"""Making a tree again what its archive says, where the archive is sound: all files have their bytes, so what is wrong
or missing beside them is known to the last bit.

Done without a lock, in the tree's own place: whoever removes the layer meanwhile moves all of it away, and the work
goes on there for nothing. A layer that is mounted is left alone: overlay forbids changes below a mount.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from asyncpull.tree.confine import Root
from asyncpull.tree.marks import harmless_name, has_effect, is_opaque, set_opaque
from asyncpull.tree.walk import join, remove
from asyncpull.tree.xattrs import SELINUX, path_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from asyncpull.store.check.archive import Flaw
    from asyncpull.store.check.contents import Compared
    from asyncpull.store.check.expected import Node
    from asyncpull.tree.marks import Marks

# Attributes of these kinds come from elsewhere than the archive, and stay.
_KEPT = (b"security.selinux", b"security.ima", b"security.evm", b"trusted.overlay.", b"user.overlay.", b"system.")


def mend_tree(directory: Path, expected: Node, flaws: Iterable[Flaw], marks: Marks, compared: Compared) -> None:
    """Undo ``flaws`` of the tree below ``directory``, which were found by comparing it with ``expected``.

    Raises OSError for what cannot be undone; what was undone before stays so.
    """
    mender = _Mender(expected, marks, compared)
    with Root(directory) as root:
        for flaw in sorted(flaws, key=lambda flaw: flaw.path):
            mender.mend(root, flaw)
        mender.settle(root)


class _Mender:
    def __init__(self, expected: Node, marks: Marks, compared: Compared) -> None:
        self._expected, self._marks, self._compared = expected, marks, compared
        # All names of each inode that has several.
        self._names: dict[int, list[bytes]] = {}
        for path, node in _nodes(expected):
            if node.names > 1:
                self._names.setdefault(id(node), []).append(path)
        self._touched: set[bytes] = set()

    def mend(self, root: Root, flaw: Flaw) -> None:
        """Undo one flaw."""
        node = _find(self._expected, flaw.path)
        if node is None:
            with _opened(root, flaw.path) as (parent, name):
                remove(parent, name)
                self._touched.add(flaw.path.rpartition(b"/")[0])
        elif node.names > 1:
            self._make_linked(root, node)
        else:
            self._make(root, flaw.path, node)

    def settle(self, root: Root) -> None:
        """Put back the times of directories, which the work in them has changed."""
        for path in self._touched:
            node = _find(self._expected, path)
            if path and node is not None and node.mtime_ns is not None:
                fd = root.open_directory(path)
                try:
                    os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))
                finally:
                    os.close(fd)

    def _make_linked(self, root: Root, node: Node) -> None:
        """Have an inode under all its names. The one that the archive has its bytes for is the measure."""
        if _find(self._expected, node.origin) is not node:
            raise OSError(errno.ENOENT, "nobody knows which of its names has the right bytes", node.origin)
        self._make(root, node.origin, node)
        with _opened(root, node.origin) as (source, origin):
            info = os.lstat(origin, dir_fd=source)
            for path in self._names[id(node)]:
                with _opened(root, path) as (parent, name):
                    if _is_inode(parent, name, info):
                        continue
                    self._touched.add(path.rpartition(b"/")[0])
                    _remove_if_there(parent, name)
                    os.link(origin, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _make(self, root: Root, path: bytes, node: Node) -> None:
        """Have ``node`` at ``path``, with all below it where it was missing."""
        pending = [(path, node)]
        while pending:
            path, node = pending.pop()
            with _opened(root, path) as (parent, name):
                is_new = not _is_alike(parent, name, node)
                if is_new:
                    self._touched.add(path.rpartition(b"/")[0])
                    _remove_if_there(parent, name)
                    _create(parent, name, node)
                if node.kind:
                    self._describe(parent, name, node)
            if is_new and node.is_directory:
                self._touched.add(path)
                for each, child in node.children.items():
                    if child.names > 1:
                        self._make_linked(root, child)
                    elif not child.is_optional:
                        pending.append((join(path, each), child))

    def _describe(self, parent: int, name: bytes, node: Node) -> None:
        """Owner, mode, attributes, times, in this order: each would undo the ones after it."""
        if self._compared.owners and node.owner is not None:
            os.chown(name, *node.owner, dir_fd=parent, follow_symlinks=False)
        if node.mode is not None and node.kind != stat.S_IFLNK:
            os.chmod(path_of(parent, name), node.mode)
        self._give_xattrs(path_of(parent, name), node)
        if node.mtime_ns is not None:
            os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _give_xattrs(self, path: bytes, node: Node) -> None:
        if node.xattrs is not None:
            named = ((harmless_name(key, self._marks), value) for key, value in node.xattrs.items())
            wanted = {key: value for key, value in named if key is not None and key != SELINUX}
            for text in os.listxattr(path, follow_symlinks=False):
                key = os.fsencode(text)
                if key not in wanted and (has_effect(key, self._marks) or not key.startswith(_KEPT)):
                    os.removexattr(path, key, follow_symlinks=False)
            for key, value in wanted.items():
                os.setxattr(path, key, value, follow_symlinks=False)
        opaque_name = self._marks.opaque_name
        if node.is_directory and node.is_opaque is not None and opaque_name is not None:
            if node.is_opaque:
                set_opaque(path, self._marks)
            elif is_opaque(path, self._marks):
                os.removexattr(path, opaque_name, follow_symlinks=False)


@contextmanager
def _opened(root: Root, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The open directory that ``path`` is in, and its name there."""
    above, _, name = path.rpartition(b"/")
    fd = root.open_directory(above)
    try:
        yield fd, name
    finally:
        os.close(fd)


def _is_alike(parent: int, name: bytes, node: Node) -> bool:
    """Whether what is there only needs other metadata."""
    try:
        info = os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    if not node.kind or stat.S_IFMT(info.st_mode) != node.kind:
        return False
    if node.kind == stat.S_IFLNK:
        return os.readlink(name, dir_fd=parent) == node.target
    if node.kind in (stat.S_IFCHR, stat.S_IFBLK):
        return info.st_rdev == node.device
    return node.kind != stat.S_IFREG or info.st_size == node.size


def _is_inode(parent: int, name: bytes, info: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(name, dir_fd=parent), info)
    except FileNotFoundError:
        return False


def _remove_if_there(parent: int, name: bytes) -> None:
    with suppress(FileNotFoundError):
        remove(parent, name)


def _create(parent: int, name: bytes, node: Node) -> None:
    if not node.kind:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
    elif node.is_directory:
        os.mkdir(name, 0o755, dir_fd=parent)
    elif node.kind == stat.S_IFLNK:
        os.symlink(node.target, name, dir_fd=parent)
    elif node.kind == stat.S_IFREG and node.size:
        raise OSError(errno.ENOENT, "only the registry has its bytes", name)
    else:
        os.mknod(name, node.kind | 0o600, node.device, dir_fd=parent)


def _nodes(node: Node) -> Iterator[tuple[bytes, Node]]:
    """All names below a node, in the order in which a comparison meets them."""
    pending = [(b"", node)]
    while pending:
        path, at = pending.pop()
        for name, child in sorted(at.children.items()):
            yield join(path, name), child
        pending += [(join(path, name), child) for name, child in sorted(at.children.items(), reverse=True)]


def _find(node: Node, path: bytes) -> Node | None:
    for name in filter(None, path.split(b"/")):
        child = node.children.get(name)
        if child is None:
            return None
        node = child
    return node
