"""A layer applied to a complete copy of the layers below it (format section 9): deletions are carried out.

What podman does there, and what we do better on purpose:

- A whiteout removes what the layers below have at that name, an opaque entry all that they have in its directory. What
  the layer brought itself stays, in whatever order the entries come (podman removes some of it again).
- The entry of the root is applied to the root.
- Links of the layers below are followed in the directory part of a name, inside the root, and hard links may lead to
  files of the layers below.
- A directory that the layer only implies, and that is there, stays what it is, its times included (podman's are now).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpull.extract.deletions import DeletingExtractor
from asyncpull.layer.changeset import Effect
from asyncpull.tree.walk import ancestors, entries, join

if TYPE_CHECKING:
    from asyncpull.extract.directories import Directory, Owner
    from asyncpull.layer.changeset import Action
    from asyncpull.layer.header import Member


class WholeTreeExtractor(DeletingExtractor):
    """Does what the members say, for Marks.NONE.

    ``_kept`` are the canonical paths of what this layer has a part in, ``_deleted`` those that it deleted for good, and
    ``_cleared`` those of directories in which, from the top to the bottom, nothing of the layers below is left: however
    often a layer says that a directory is opaque, and those below it, each is looked through once.
    """

    _kept: set[bytes]
    _cleared: set[bytes]
    _deleted: set[bytes]
    _is_for_whiteout = False

    def __enter__(self) -> WholeTreeExtractor:
        super().__enter__()
        self._kept, self._deleted, self._cleared = {b""}, set(), set()
        return self

    def _bring(self, parent: Directory, name: bytes) -> bool:
        path = join(parent.path, name)
        self._deleted.discard(path)
        if not self._is_for_whiteout:
            while path not in self._kept:
                self._kept.add(path)
                path = path.rpartition(b"/")[0]
        return False

    def _root_entry(self, member: Member, owner: Owner) -> None:
        self._describe_again(member, b"", owner)

    def _whiteout(self, member: Member, action: Action, owner: Owner) -> None:
        parent = self._parent_of_whiteout(action.parent)
        if parent is None:
            return
        if action.effect is Effect.OPAQUE:
            self._clear(parent.path)
            return
        path = join(parent.path, action.name)
        try:
            os.lstat(action.name, dir_fd=parent.fd)
        except FileNotFoundError:
            self._deleted.add(path)
            return
        if path not in self._kept:
            self._make_way(parent, action.name)
            self._deleted.add(path)
        else:
            self._clear(path)

    def _parent_of_whiteout(self, path: bytes) -> Directory | None:
        """A directory that is made for the sake of a whiteout in it may be deleted by the next one."""
        self._is_for_whiteout = True
        try:
            return super()._parent_of_whiteout(path)
        finally:
            self._is_for_whiteout = False

    def _deletes_above(self, path: bytes) -> bool:
        return any(above in self._deleted for above in ancestors(path))

    def _clear(self, path: bytes) -> None:
        """Remove what the layers below have in a directory; of anything else nothing is theirs."""
        pending = [path]
        while pending:
            path = pending.pop()
            if path in self._cleared:
                continue
            try:
                directory = self._directories.get(path)
            except NotADirectoryError:
                continue
            if directory.path != path:  # a link that this layer brought
                continue
            self._cleared.add(path)
            for name, is_directory in entries(directory.fd):
                child = join(path, name)
                if child not in self._kept:
                    self._make_way(directory, name)
                elif is_directory:
                    pending.append(child)

    def _skip(self, parent: Directory, name: bytes) -> None:
        """What the layers below have at the name of a device is replaced, though by nothing."""
        super()._skip(parent, name)
        try:
            os.lstat(name, dir_fd=parent.fd)
        except FileNotFoundError:
            return
        self._make_way(parent, name)

    def _forget_below(self, path: bytes) -> None:
        super()._forget_below(path)
        self._kept.discard(path)
