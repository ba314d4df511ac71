"""What a layer deletes, marked so that the kernel's overlay understands it (format section 5.2).

A whiteout is a character device 0/0, an opaque directory has an attribute. Better than podman's, on purpose:

- a directory in place of a whiteout of the same layer, in whatever order they come, is opaque: what the layers below
  had there stays deleted;
- a whiteout beside anything else of the same name deletes it in the layers below only, and the new entry stays;
- a whiteout of a directory that the archive only implies, for the sake of whiteouts in it, takes its place.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from asyncpull.extract.extractor import Extractor
from asyncpull.layer.changeset import Effect
from asyncpull.tree.marks import set_opaque
from asyncpull.tree.walk import ancestors, beside_whiteouts, join

if TYPE_CHECKING:
    from asyncpull.extract.directories import Directory, Owner
    from asyncpull.layer.changeset import Action
    from asyncpull.layer.header import Member


class DeletingExtractor(Extractor):
    """Does what the members say, for Marks.TRUSTED and Marks.USER; and what others need who delete otherwise.

    ``_solid`` are canonical paths of directories in which more than marks was found, so that nobody looks again.
    """

    _solid: set[bytes]

    def __enter__(self) -> DeletingExtractor:
        self._solid = set()
        return self

    def _forget(self, path: bytes) -> None:
        super()._forget(path)
        self._solid.discard(path)

    def _root_entry(self, member: Member, owner: Owner) -> None:
        """What the archive says of the root is no part of a layer: it has mode and owner of the layer below (4.2)."""

    def _bring(self, parent: Directory, name: bytes) -> bool:
        """A whiteout at ``name`` is in the way, and found when something is made there."""
        return False

    def _make_opaque(self, fd: int) -> None:
        set_opaque(fd, self._marks)

    def _deletes_above(self, path: bytes) -> bool:
        """Whether this layer deletes ``path``, or what it is in, without a mark in the same place."""
        return False

    def _parent_of_whiteout(self, path: bytes) -> Directory | None:
        """The directory of a whiteout; None below what is no directory, where there is nothing to delete."""
        try:
            return self._directories.get(path)
        except FileNotFoundError:
            return None if self._deletes_above(path) else self._imply(path)
        except NotADirectoryError:
            return None

    def _whiteout(self, member: Member, action: Action, owner: Owner) -> None:
        """Mark what the layers below have as deleted."""
        parent = self._parent_of_whiteout(action.parent)
        if parent is None:
            return
        if action.effect is Effect.OPAQUE:
            self._make_opaque(parent.fd)
            return
        try:
            os.mknod(action.name, stat.S_IFCHR, 0, dir_fd=parent.fd)
        except FileExistsError:
            if not self._whiteout_beside(parent, action.name):
                return
            os.mknod(action.name, stat.S_IFCHR, 0, dir_fd=parent.fd)
        if owner != parent.newcomer:
            self._give_name(parent, action.name, owner)

    def _is_for_others(self, path: bytes) -> bool:
        """Whether a directory may be there for the sake of whiteouts in it only."""
        return path in self.implied and path not in self._solid

    def _whiteout_beside(self, parent: Directory, name: bytes) -> bool:
        """Settle a whiteout of what this layer has itself; tell whether it is to be made after all."""
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent.fd).st_mode):
            return False
        path = join(parent.path, name)
        if self._is_for_others(path):
            other = beside_whiteouts(parent.fd, name, lambda below: self._is_for_others(join(path, below)))
            if other is None:
                self._make_way(parent, name)
                return True
            self._solid.update(above for above in ancestors(join(path, other)) if len(above) > len(path))
        self.implied.discard(path)
        self._make_opaque(self._directories.get(path).fd)
        return False
