"""A tree on disk against the tree that is expected: what is missing, what is too much, what has changed."""

from __future__ import annotations

import errno
import os
import stat
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.store.check.archive import Flaw
from asyncpull.store.check.findings import Damage
from asyncpull.tree.confine import Root
from asyncpull.tree.marks import harmless_name, has_effect, is_opaque, is_whiteout
from asyncpull.tree.walk import join, walk
from asyncpull.tree.xattrs import SELINUX, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from asyncpull.store.check.expected import Node
    from asyncpull.tree.marks import Marks

# Attributes that the machine or the store adds, or that come from the directory above.
_ADDED: Final = (
    b"trusted.overlay.",
    b"user.overlay.",
    b"user.containers.",
    b"user.fuseoverlayfs.",
    b"trusted.SGI_ACL_",
    b"system.posix_acl_",
    b"security.selinux",
    b"security.ima",
    b"security.evm",
    b"btrfs.",
)
# What file systems round times to, in nanoseconds, and the last second that older ones have.
_GRAINS: Final = (1, 100, 1000, 1_000_000, 1_000_000_000)
_LAST_SECOND: Final = (1 << 31) - 1
_NAMES: Final = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    0: "a whiteout",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """What is compared, as far as the options of the store let files be what the archive says.

    ``modes`` are those of files and their types; ``devices`` and ``privileged_xattrs`` are what a user namespace cannot
    make.
    """

    owners: bool = True
    modes: bool = True
    devices: bool = True
    privileged_xattrs: bool = True


def compare_tree(
    directory: Path, expected: Node, marks: Marks, compared: Compared, keep_going: Callable[[], object]
) -> list[Flaw]:
    """Compare all below ``directory``, but not itself; a flaw names everything that is wrong with its path.

    ``keep_going`` is called for each directory, to raise if that is enough. Raises OSError.
    """
    comparison = _Comparison(marks, compared)
    flaws: list[Flaw] = []
    directories: dict[bytes, Node] = {b"": expected}
    with Root(directory) as root:
        for path, fd, listing in walk(root):
            keep_going()
            node = directories.pop(path, None)
            if node is None:
                continue  # below something that was not expected at all
            missing = dict(node.children)
            for name, _ in listing:
                where = join(path, name)
                child = missing.pop(name, None)
                if child is None:
                    flaws.append(Flaw(Damage.CONTENT_UNEXPECTED, where, "it is not in the archive"))
                    continue
                wrong = "; ".join(comparison.differences(fd, name, where, child))
                if wrong:
                    flaws.append(Flaw(Damage.CONTENT_MODIFIED, where, wrong))
                if child.is_directory:
                    directories[where] = child
            flaws += [
                Flaw(Damage.CONTENT_MISSING, join(path, name), "it is missing")
                for name, child in sorted(missing.items(), key=itemgetter(0))
                if not child.is_optional
            ]
    return flaws


class _Comparison:
    def __init__(self, marks: Marks, compared: Compared) -> None:
        self._marks, self._compared = marks, compared
        self._inodes: dict[int, tuple[int, int, bytes]] = {}

    def differences(self, directory: int, name: bytes, path: bytes, node: Node) -> Iterator[str]:
        """What is wrong with one entry, in words. Raises OSError."""
        info = os.lstat(name, dir_fd=directory)
        kind = 0 if node.kind == 0 and is_whiteout(info) else stat.S_IFMT(info.st_mode)
        if kind != node.kind:
            if self._compared.modes:
                yield f"it is {_NAMES.get(kind, 'something')}, expected {_NAMES.get(node.kind, 'something')}"
            return
        if not kind:
            return
        owner = (info.st_uid, info.st_gid)
        if self._compared.owners and node.owner is not None and owner != node.owner:
            yield f"its owner is {owner[0]}:{owner[1]}, expected {node.owner[0]}:{node.owner[1]}"
        mode = stat.S_IMODE(info.st_mode)
        if self._compared.modes and node.mode is not None and mode != node.mode and kind != stat.S_IFLNK:
            yield f"its mode is {mode:04o}, expected {node.mode:04o}"
        if node.mtime_ns is not None and not _is_time(info.st_mtime_ns, node.mtime_ns):
            yield f"its time is {_seconds(info.st_mtime_ns)}, expected {_seconds(node.mtime_ns)}"
        if kind == stat.S_IFREG and info.st_size != node.size:
            yield f"its size is {info.st_size}, expected {node.size}"
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and info.st_rdev != node.device:
            yield f"its device is {_device(info.st_rdev)}, expected {_device(node.device)}"
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=directory)
            if target != node.target:
                yield f"its target is {_text(target)}, expected {_text(node.target)}"
        if kind == stat.S_IFDIR and self._is_otherwise_opaque(path_of(directory, name), node):
            yield "it is not opaque, and should be" if node.is_opaque else "it is opaque, and should not be"
        if node.xattrs is not None:
            yield from self._xattrs(path_of(directory, name), node)
        if node.names > 1:
            yield from self._links(info, path, node)

    def _is_otherwise_opaque(self, path: bytes, node: Node) -> bool:
        if node.is_opaque is None or self._marks.opaque_name is None:
            return False
        return is_opaque(path, self._marks) != node.is_opaque

    def _xattrs(self, path: bytes, node: Node) -> Iterator[str]:
        present = {os.fsencode(text) for text in _listed(path)}
        wanted = self._spelled(node.xattrs or {}, present)
        for name in sorted(wanted):
            if name == SELINUX or (name.startswith(b"trusted.") and not self._compared.privileged_xattrs):
                continue
            try:
                if os.getxattr(path, name, follow_symlinks=False) != wanted[name]:
                    yield f"its attribute {_text(name)} is another one"
            except OSError as error:
                # Anything but ENODATA: this file system has no such attributes. podman 4.3 sets no empty ones.
                if error.errno == errno.ENODATA and wanted[name]:
                    yield f"its attribute {_text(name)} is missing"
        for name in sorted(present):
            if name not in wanted and (has_effect(name, self._marks) or not name.startswith(_ADDED)):
                yield f"its attribute {_text(name)} is not in the archive"

    def _spelled(self, xattrs: Mapping[bytes, bytes], present: set[bytes]) -> dict[bytes, bytes]:
        """The attributes as they should be called. Names of overlay's, which podman keeps, do where they do nothing."""
        spelled = {}
        for name, value in xattrs.items():
            harmless = harmless_name(name, self._marks)
            if harmless not in present and name in present and not has_effect(name, self._marks):
                harmless = name
            if harmless is not None:
                spelled[harmless] = value
        return spelled

    def _links(self, info: os.stat_result, path: bytes, node: Node) -> Iterator[str]:
        device, inode, first = self._inodes.setdefault(id(node), (info.st_dev, info.st_ino, path))
        if (device, inode) != (info.st_dev, info.st_ino):
            yield f"it is no hard link to {_text(first)}"


def _listed(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _is_time(actual: int, expected: int) -> bool:
    """Whether ``actual`` is ``expected`` as a file system can hold it."""
    if actual == _LAST_SECOND * 1_000_000_000 and expected > actual:
        return True
    return any(actual == expected - expected % grain for grain in _GRAINS)


def _seconds(time_ns: int) -> str:
    return f"{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09d}"


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
