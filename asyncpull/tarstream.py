"""The exact tar stream of a layer, from its tar-split and its tree.

Only members with contents are opened, by the name that they have in the archive, cleaned lexically; links in the
directory part are followed inside of the root, as they were when the layer was extracted. The last component is never
followed, and has to be a regular file.

A layer can have several roots, the nearest first: a copy with other owners keeps files that did not change in the tree
it was made from. The first root that has the file counts.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

from asyncpull.errors import NotInStoreError, StoreCorruptError, StoreError
from asyncpull.layer.changeset import clean_name
from asyncpull.layer.split import read_split, rebuild
from asyncpull.tree.confine import Root

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

# Without O_NONBLOCK a FIFO in the place of a file would keep whoever opens it waiting for ever.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 1 << 20


def rebuild_layer(tar_split: Path, roots: Sequence[Path]) -> Generator[bytes, None, None]:
    """Yield the tar stream that a layer was made from, in pieces of no particular size.

    Holds no lock. The consumer must not trust a stream that did not end: every file is verified when all of it was
    handed out. To give up early, close the generator.

    Raises NotInStoreError if there is no tar-split, IntegrityError if it is none, SizeMismatchError or
    DigestMismatchError for a file that is not what it was, StoreCorruptError for one that is missing, StoreError.
    """
    with LayerFiles(roots) as files:
        try:
            yield from rebuild(read_split(split_pieces(tar_split)), files.open)
        except OSError as error:
            where = error.filename if isinstance(error.filename, str) else str(roots[0])
            raise StoreError(error.strerror or str(error), where) from error


def split_pieces(tar_split: Path) -> Iterator[bytes]:
    """The bytes of a tar-split as it lies on disk. Raises NotInStoreError if there is none, OSError."""
    try:
        file = tar_split.open("rb")
    except FileNotFoundError as error:
        raise NotInStoreError("the layer has no tar-split", str(tar_split)) from error
    with file:
        while piece := file.read(_PIECE):
            yield piece


class LayerFiles:
    """The regular files of a layer, by name. Members of one directory follow each other: it stays open meanwhile."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._trees = [_Tree(path) for path in roots]

    def __enter__(self) -> LayerFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for tree in self._trees:
            tree.close()

    def open(self, name: bytes) -> BinaryIO:
        """Open the contents of a member. Raises StoreCorruptError, OSError."""
        path = clean_name(name)
        if path:
            parent, _, last = path.rpartition(b"/")
            for tree in self._trees:
                if (file := tree.open(parent, last)) is not None:
                    return file
        text = name.decode(errors="backslashreplace")
        raise StoreCorruptError(f"the file {text!r} of the layer is missing", str(self._trees[0].path))


class _Tree:
    """One root, opened when it is first needed, and one directory below it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root: Root | None = None
        self._parent: bytes | None = None
        self._fd = -1

    def close(self) -> None:
        self._leave()
        if self._root is not None:
            os.close(self._root.fd)
            self._root = None

    def open(self, parent: bytes, name: bytes) -> BinaryIO | None:
        """Open a regular file; None if it is not there, or is something else. Raises OSError."""
        try:
            if parent != self._parent:
                self._enter(parent)
            fd = os.open(name, _READ, dir_fd=self._fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            if _is_something_else(name, self._fd):
                return None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        return os.fdopen(fd, "rb", buffering=0)

    def _enter(self, parent: bytes) -> None:
        self._leave()
        if self._root is None:
            self._root = Root(self.path)
        self._fd = self._root.open_directory(self._root.resolve(parent))
        self._parent = parent

    def _leave(self) -> None:
        self._parent = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_something_else(name: bytes, directory: int) -> bool:
    """Whether a file that could not be opened is a link, a device without a driver, a socket."""
    try:
        return directory >= 0 and not stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode)
    except OSError:
        return False
