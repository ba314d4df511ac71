"""What one tree changes in another: by the marks of a layer's own tree, or by comparing two complete trees.

Both ways give what ``podman diff`` prints, in the order of a walk. Their rules:

1. A directory in which something was added or deleted counts as modified, and so do those above it.
2. A directory of a layer's tree that is also below it counts for itself only if mode, owner, time or size differ:
   else it is there for what is in it. (Its size says nothing; but podman looks at it.)
3. What was deleted as a whole is named once, without what was in it; so is what a file took the place of.
4. Times are the same if one of them has no fraction of a second and the rest is equal: not every archive has one.
5. A file whose content changed and whose size and times did not is not found by comparison.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.tree.confine import Root
from asyncpull.tree.marks import is_opaque, is_whiteout
from asyncpull.tree.walk import join, walk
from asyncpull.tree.xattrs import adopted, path_of, read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from asyncpull.tree.marks import Marks

_NS: Final = 1_000_000_000
# Attributes by which the kernel's overlay says that content, or a renamed directory, is in another layer.
_LEANING: Final = frozenset(
    (
        b"trusted.overlay.redirect",
        b"trusted.overlay.metacopy",
        b"user.overlay.redirect",
        b"user.overlay.metacopy",
    )
)

Owner = tuple[int, int]


class ChangeKind(Enum):
    """What became of a path; the values are podman's letters."""

    ADDED = "A"
    MODIFIED = "C"
    DELETED = "D"


@dataclass(frozen=True, slots=True)
class Change:
    """One change; ``path`` is relative to the root of the tree, in bytes, and never empty."""

    path: bytes
    kind: ChangeKind


@dataclass(slots=True)
class _Upper:
    """A layer's own tree: every entry, and those of each directory, from the top down."""

    infos: dict[bytes, os.stat_result] = field(default_factory=dict)
    children: dict[bytes, list[bytes]] = field(default_factory=dict)
    opaque: set[bytes] = field(default_factory=set)
    leans: bool = False


def layer_changes(
    upper: Path,
    lowers: Sequence[Path],
    marks: Marks,
    owner: Callable[[int, int], Owner] = lambda uid, gid: (uid, gid),
) -> list[Change] | None:
    """What the tree of a layer changes in the trees below it, the nearest first. ``marks`` are those of the kernel.

    ``owner`` says whose of those below an owner in ``upper`` is. None if the tree alone does not tell (a directory was
    renamed without its content, a file has only its metadata here): then what is mounted must be compared.
    Raises OSError.
    """
    tree = _read_upper(upper, marks)
    if tree.leans:
        return None
    below = _find_below(tree, lowers, marks)
    changes: dict[bytes, ChangeKind] = {}
    for path, info in tree.infos.items():
        old = below.get(path)
        kind = ChangeKind.ADDED if old is None else ChangeKind.MODIFIED
        if is_whiteout(info) or (path in tree.opaque and old is not None):
            kind = ChangeKind.DELETED
        elif old is not None and _is_same_directory(old, info, owner):
            continue
        changes[path] = kind
        if kind is not ChangeKind.MODIFIED:
            for above in _above(path):
                changes.setdefault(above, ChangeKind.MODIFIED)
    return _in_order(changes)


def tree_changes(
    new: Path, old: Path | None, owner: Callable[[int, int], Owner] = lambda uid, gid: (uid, gid)
) -> list[Change]:
    """What is different in the complete tree ``new`` from the complete tree ``old``, or from nothing.

    ``owner`` says whose of ``old`` an owner in ``new`` is. Raises OSError.
    """
    found: dict[bytes, ChangeKind] = {}
    with Root(new) as new_root, nullcontext() if old is None else Root(old) as old_root:
        for path, fd, listing in walk(new_root):
            before = _open_or_none(old_root, path)
            try:
                names = {name for name, _ in listing}
                gone = set() if before is None else set(_names(before)) - names
                for name in gone:
                    found[join(path, name)] = ChangeKind.DELETED
                for name in names:
                    if (kind := _compare(name, fd, before, owner)) is not None:
                        found[join(path, name)] = kind
            finally:
                if before is not None:
                    os.close(before)
    for path in list(found):
        for above in _above(path):
            found.setdefault(above, ChangeKind.MODIFIED)
    return _in_order(found)


def leans_on_others(upper: Path) -> bool:
    """Whether the tree of a layer tells nothing by itself, so that ``layer_changes`` is None. Raises OSError."""
    with Root(upper) as root:
        return any(
            _leans(fd) or any(not is_directory and _leans(path_of(fd, name)) for name, is_directory in listing)
            for _, fd, listing in walk(root)
        )


def tidy_layer(tree: Path, lowers: Sequence[Path], marks: Marks) -> None:
    """Make the copy of a writable layer's tree what its archive would be extracted to.

    Taken away are marks for what none of ``lowers`` has, what overlay noted for itself, and sockets; times before 1970
    become 1970, as in every layer. Raises OSError.
    """
    below = _find_below(_read_upper(tree, marks), lowers, marks)
    with Root(tree) as root:
        for path, fd, listing in walk(root):
            before = os.fstat(fd)
            for name, is_directory in listing:
                info = os.lstat(name, dir_fd=fd)
                is_needed = join(path, name) in below
                if stat.S_ISSOCK(info.st_mode) or (is_whiteout(info) and not is_needed):
                    os.unlink(name, dir_fd=fd)
                    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
                    continue
                _drop_notes(path_of(fd, name), marks.opaque_name if is_directory and is_needed else None)
                if info.st_mtime_ns < 0:
                    os.utime(name, ns=(0, 0), dir_fd=fd, follow_symlinks=False)


def drop_sockets(tree: Path) -> None:
    """Take away what no archive can hold. Raises OSError."""
    with Root(tree) as root:
        for _, fd, listing in walk(root):
            before = os.fstat(fd)
            for name, is_directory in listing:
                if not is_directory and stat.S_ISSOCK(os.lstat(name, dir_fd=fd).st_mode):
                    os.unlink(name, dir_fd=fd)
                    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def _drop_notes(target: bytes, kept: bytes | None) -> None:
    found = read_xattrs(target)
    for name in found.keys() - adopted(found).keys() - {kept}:
        os.removexattr(target, name, follow_symlinks=False)


def _read_upper(upper: Path, marks: Marks) -> _Upper:
    tree = _Upper()
    with Root(upper) as root:
        for path, fd, listing in walk(root):
            if path and is_opaque(fd, marks):
                tree.opaque.add(path)
            tree.leans = tree.leans or _leans(fd)
            tree.children[path] = [join(path, name) for name, _ in listing]
            for name, is_directory in listing:
                info = os.lstat(name, dir_fd=fd)
                tree.infos[join(path, name)] = info
                if not is_directory and stat.S_ISREG(info.st_mode):
                    tree.leans = tree.leans or _leans(path_of(fd, name))
    return tree


def _leans(target: int | bytes) -> bool:
    try:
        names = os.listxattr(target, follow_symlinks=isinstance(target, int))
    except OSError:
        return False
    return not _LEANING.isdisjoint(map(os.fsencode, names))


def _find_below(tree: _Upper, lowers: Sequence[Path], marks: Marks) -> dict[bytes, os.stat_result]:
    """What is in the layers below at each path of ``tree``, as it can be seen through those above them."""
    found: dict[bytes, os.stat_result] = {}
    settled: set[bytes] = set()  # paths that no layer further down has a say in
    for lower in lowers:
        opaque: set[bytes] = set()
        with Root(lower) as root:
            here = {b""}
            for directory, children in tree.children.items():
                if directory not in here:
                    continue
                for path in children:
                    is_directory = path in tree.children
                    if path in settled or (path in found and not is_directory):
                        continue
                    info = _lstat_or_none(path, root)
                    if info is None:
                        continue
                    if is_whiteout(info):
                        settled.add(path)
                        continue
                    found.setdefault(path, info)
                    if not stat.S_ISDIR(info.st_mode):
                        settled.add(path)
                    elif is_directory:
                        here.add(path)
                        if is_opaque(path_of(root.fd, path), marks):
                            opaque.add(path)
        settled |= opaque
    return found


def _lstat_or_none(path: bytes, root: Root) -> os.stat_result | None:
    """Every directory of ``path`` is known to be one in this layer, so no link is followed."""
    try:
        return os.lstat(path, dir_fd=root.fd)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _compare(name: bytes, new: int, old: int | None, owner: Callable[[int, int], Owner]) -> ChangeKind | None:
    if old is None:
        return ChangeKind.ADDED
    try:
        before = os.lstat(name, dir_fd=old)
    except FileNotFoundError:
        return ChangeKind.ADDED
    after = os.lstat(name, dir_fd=new)
    is_same = (
        before.st_mode == after.st_mode
        and (before.st_uid, before.st_gid) == owner(after.st_uid, after.st_gid)
        and before.st_rdev == after.st_rdev
        and _is_same_time(before, after)
        and (stat.S_ISDIR(after.st_mode) or before.st_size == after.st_size)
        and (not stat.S_ISLNK(after.st_mode) or os.readlink(name, dir_fd=old) == os.readlink(name, dir_fd=new))
        and _attributes(path_of(old, name)) == _attributes(path_of(new, name))
    )
    return None if is_same else ChangeKind.MODIFIED


def _attributes(target: bytes) -> dict[bytes, bytes]:
    return adopted(read_xattrs(target))


def _is_same_directory(old: os.stat_result, new: os.stat_result, owner: Callable[[int, int], Owner]) -> bool:
    return (
        stat.S_ISDIR(old.st_mode)
        and (old.st_mode, old.st_size) == (new.st_mode, new.st_size)
        and (old.st_uid, old.st_gid) == owner(new.st_uid, new.st_gid)
        and _is_same_time(old, new)
    )


def _is_same_time(one: os.stat_result, other: os.stat_result) -> bool:
    if one.st_mtime_ns == other.st_mtime_ns:
        return True
    first, second = divmod(one.st_mtime_ns, _NS), divmod(other.st_mtime_ns, _NS)
    return first[0] == second[0] and (not first[1] or not second[1])


def _in_order(changes: Mapping[bytes, ChangeKind]) -> list[Change]:
    return [Change(path, changes[path]) for path in sorted(changes, key=lambda path: path.split(b"/"))]


def _above(path: bytes) -> Iterable[bytes]:
    """The directories that ``path`` lies in, from the top down, but for the root."""
    parts = path.split(b"/")
    return [b"/".join(parts[:end]) for end in range(1, len(parts))]


def _names(directory: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(directory)]


def _open_or_none(root: Root | None, path: bytes) -> int | None:
    """The directory at ``path``, if there is one."""
    if root is None:
        return None
    try:
        return root.open_directory(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
