"""A layer whose whiteouts stay what they are in the archive: files called ``.wh.<name>`` and ``.wh..wh..opq``.

So FUSE mount programs want it (format section 5.2). They take ``.wh.x`` for stronger than an ``x`` beside it, so the
two are never both there: what the layer brings itself wins, and is made opaque where it is a directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpull.extract.deletions import DeletingExtractor
from asyncpull.layer.changeset import Effect
from asyncpull.tree.marks import AUFS_OPAQUE, AUFS_PREFIX
from asyncpull.tree.walk import ancestors, join

if TYPE_CHECKING:
    from asyncpull.extract.directories import Directory, Owner
    from asyncpull.layer.changeset import Action
    from asyncpull.layer.header import Member

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class LiteralExtractor(DeletingExtractor):
    """Does what the members say, for Marks.AUFS. ``_hidden`` are the canonical paths that a whiteout was made for."""

    _hidden: set[bytes]

    def __enter__(self) -> LiteralExtractor:
        super().__enter__()
        self._hidden = set()
        return self

    def _bring(self, parent: Directory, name: bytes) -> bool:
        path = join(parent.path, name)
        if path not in self._hidden:
            return False
        self._hidden.discard(path)
        os.unlink(AUFS_PREFIX + name, dir_fd=parent.fd)
        return True

    def _deletes_above(self, path: bytes) -> bool:
        return any(above in self._hidden for above in ancestors(path))

    def _make_opaque(self, fd: int) -> None:
        os.close(os.open(AUFS_OPAQUE, _CREATE, 0o644, dir_fd=fd))

    def _whiteout(self, member: Member, action: Action, owner: Owner) -> None:
        parent = self._parent_of_whiteout(action.parent)
        if parent is None:
            return
        if action.effect is Effect.OPAQUE:
            self._make_file(member, parent, AUFS_OPAQUE, owner)
            return
        try:
            os.lstat(action.name, dir_fd=parent.fd)
        except FileNotFoundError:
            pass
        else:
            if not self._whiteout_beside(parent, action.name):
                return
        self._make_file(member, parent, AUFS_PREFIX + action.name, owner)
        self._hidden.add(join(parent.path, action.name))

    def _forget_below(self, path: bytes) -> None:
        super()._forget_below(path)
        parent, _, name = path.rpartition(b"/")
        if name.startswith(AUFS_PREFIX):
            self._hidden.discard(join(parent, name.removeprefix(AUFS_PREFIX)))
