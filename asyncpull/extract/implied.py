"""Directories that a layer only implies: names in paths of its entries that have no entry of their own.

The archive says nothing about such a directory, so it should go on being what it was: it takes mode, owner, times and
attributes of the directory that would be seen at its path if its own layer were not there. (podman makes it 0755
root:root, so that adding ``/var/lib/x/file`` can close ``/var/lib`` to everybody; we differ on purpose.)

Where that directory is: in the nearest layer below that has one, looked up component by component, without following
links, from the top down. At every component the look-up ends at a layer, the one with the implied directory included,
that hides those below it: by a whiteout, by an opaque directory, by anything that is no directory.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.layer.changeset import clean_name
from asyncpull.tree.confine import Root
from asyncpull.tree.failure import store_error
from asyncpull.tree.marks import AUFS_PREFIX, Marks, is_opaque
from asyncpull.tree.walk import join, walk
from asyncpull.tree.xattrs import adopted, read_xattrs, replace_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


IMPLIED_MODE: Final = 0o755
"""Mode of a directory that was never described, owned by root (format 5.1)."""


@dataclass(frozen=True, slots=True)
class DirectoryMetadata:
    """What a directory takes over. ``times`` (access, modification; nanoseconds) None: it keeps its own."""

    mode: int = IMPLIED_MODE
    uid: int = 0
    gid: int = 0
    times: tuple[int, int] | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, fd: int) -> DirectoryMetadata:
        """Read it from an open directory."""
        info = os.fstat(fd)
        times = (info.st_atime_ns, info.st_mtime_ns)
        return cls(info.st_mode & 0o7777, info.st_uid, info.st_gid, times, adopted(read_xattrs(fd)))

    def give_to(self, fd: int, *, in_userns: bool) -> None:
        """Make it the metadata of an open directory, whatever that had before."""
        os.fchown(fd, self.uid, self.gid)
        os.fchmod(fd, self.mode)
        replace_xattrs(fd, self.xattrs, in_userns=in_userns)
        if self.times is not None:
            os.utime(fd, ns=self.times)


def implied_directories(diff: Path, names: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the directories below ``diff`` that no entry of the archive names, from the top down.

    ``names`` are those of all entries, as they are in the archive. A directory that took the place of a whiteout of the
    same layer does not count: what it replaced was deleted.
    """
    with Root(diff) as root:
        present = {path for path, _, _ in walk(root)}
        implied = present - {b""}
        for name in names:
            parent, _, last = (clean_name(name) or b"").rpartition(b"/")
            if parent not in present:
                try:
                    parent = root.resolve(parent)
                except OSError:
                    continue
            implied.discard(join(parent, last.removeprefix(AUFS_PREFIX)))
    return tuple(sorted(implied))


def adopt_implied(
    diff: Path, implied: Sequence[bytes], below: Sequence[Path], *, marks: Marks, in_userns: bool = False
) -> None:
    """Give each of the ``implied`` directories of the layer at ``diff`` what it has in the nearest layer below.

    ``implied`` are canonical paths from the top down, ``below`` the diff directories from the nearest layer down.
    Found nowhere, a directory becomes 0755 root:root without attributes. ``marks`` are those of all these trees.
    Raises StoreError.
    """
    stack = LayerStack((diff, *below), marks)
    path = b""
    try:
        with Root(diff) as root:
            for path in implied:
                metadata = stack.below_the_first(path) or DirectoryMetadata()
                fd = root.open_directory(path)
                try:
                    metadata.give_to(fd, in_userns=in_userns)
                finally:
                    os.close(fd)
    except OSError as error:
        raise store_error(error, os.path.join(diff, os.fsdecode(path))) from error


class LayerStack:
    """Diff directories from the top layer down, as overlay would merge them."""

    def __init__(self, diffs: Sequence[Path], marks: Marks) -> None:
        self._diffs = diffs
        self._marks = marks
        # What was found for every directory on the way to the last path; the next one shares most of it. Overlay takes
        # no notice of an opaque mark on a layer's root, so the root of every layer counts.
        self._trail: list[tuple[bytes, Sequence[Path]]] = [(b"", diffs)]

    def below_the_first(self, path: bytes) -> DirectoryMetadata | None:
        """Return what the directory at ``path`` is without the first layer; None if it is no directory there.

        The first layer counts only for what it hides on the way. An opaque mark on the directory itself hides what is
        in the lower ones, not what they are.
        """
        parent, _, name = path.rpartition(b"/")
        for diff in self._merged(parent):
            if diff is self._diffs[0]:
                continue
            try:
                with _opened(diff, join(parent, name)) as fd:
                    return DirectoryMetadata.of(fd)
            except FileNotFoundError:
                if self._deletes(diff, parent, name):
                    return None
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    return None
                raise
        return None

    def _merged(self, path: bytes) -> Sequence[Path]:
        """Return those layers whose directory at ``path`` is part of the merged one, from the top down."""
        while self._trail[-1][0] and not (path + b"/").startswith(self._trail[-1][0] + b"/"):
            self._trail.pop()
        reached, layers = self._trail[-1]
        for name in path[len(reached) :].split(b"/"):
            if name:
                reached = join(reached, name)
                layers = tuple(self._visible(reached, layers))
                self._trail.append((reached, layers))
        return layers

    def _visible(self, path: bytes, layers: Sequence[Path]) -> Iterator[Path]:
        for diff in layers:
            try:
                with _opened(diff, path) as fd:
                    hides = is_opaque(fd, self._marks)
            except FileNotFoundError:
                parent, _, name = path.rpartition(b"/")
                if self._deletes(diff, parent, name):
                    return
                continue
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    return
                raise
            yield diff
            if hides:
                return

    def _deletes(self, diff: Path, parent: bytes, name: bytes) -> bool:
        """Whether a layer that has nothing at a path has a file there that says so (Marks.AUFS)."""
        if self._marks is not Marks.AUFS:
            return False
        try:
            with _opened(diff, parent) as fd:
                os.lstat(AUFS_PREFIX + name, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        return True


@contextmanager
def _opened(diff: Path, path: bytes) -> Iterator[int]:
    """Open a directory of a layer by its canonical path. Raises OSError: ENOENT; ENOTDIR or ELOOP if it is none."""
    with Root(diff) as root:
        fd = root.open_directory(path)
        try:
            yield fd
        finally:
            os.close(fd)
