"""The tree that the members of a layer make, without a file system: what a tree on disk is compared with.

It is podman's tree, and ours where ours is better (see ``extract.extractor``). Where the two differ, or where nobody
promises anything, the tree says so: None is a value that anything fits.
"""

from __future__ import annotations

import os
import stat
from dataclasses import field
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.layer.changeset import Action, Changeset, Effect, clean_name
from asyncpull.layer.header import GLOBAL_RECORDS
from asyncpull.tree.marks import AUFS_OPAQUE, AUFS_PREFIX, Marks
from asyncpull.tree.walk import join

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncpull.layer.header import Member

_MAX_LINKS: Final = 40
_KINDS: Final = {
    Effect.FILE: stat.S_IFREG,
    Effect.DIRECTORY: stat.S_IFDIR,
    Effect.SYMLINK: stat.S_IFLNK,
    Effect.CHARACTER_DEVICE: stat.S_IFCHR,
    Effect.BLOCK_DEVICE: stat.S_IFBLK,
    Effect.FIFO: stat.S_IFIFO,
}


@dataclass(slots=True, eq=False)
class Node:
    """One inode. ``kind`` is a type of stat(2), 0 for a mark of something deleted; ``generation`` the layer it is of.

    Mode, owner and time are None where the archive says nothing of them. ``is_opaque`` is None where both will do.
    ``names`` counts the names it has in the tree, ``origin`` is the one that the archive has its bytes for.
    ``is_optional``: it need not be there.
    """

    kind: int
    generation: int
    mode: int | None = None
    owner: tuple[int, int] | None = None
    size: int = 0
    mtime_ns: int | None = None
    target: bytes = b""
    device: int = 0
    xattrs: Mapping[bytes, bytes] | None = None
    is_opaque: bool | None = False
    names: int = 1
    origin: bytes = b""
    is_optional: bool = False
    children: dict[bytes, Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        """Whether it can have children."""
        return self.kind == stat.S_IFDIR

    def describe(self, member: Member) -> None:
        """Take over what an entry says of mode, owner, time and attributes."""
        self.owner = (member.uid, member.gid)
        if self.kind != stat.S_IFLNK:
            self.mode = member.mode & 0o7777
            self.mtime_ns = member.mtime_ns
        self.xattrs = {**(self.xattrs or {}), **member.xattrs}


def expected_tree(layers: Sequence[Iterable[Member]], marks: Marks, *, has_devices: bool = True) -> Node:
    """The tree that these layers make, the base layer first: a single one where each tree holds only changes.

    ``has_devices`` is False where they are left out, as in a user namespace. Raises LayerError for members that cannot
    be stored.
    """
    root = Node(stat.S_IFDIR, 0, is_opaque=None)
    for generation, members in enumerate(layers):
        builder = _Builder(root, marks, generation, has_devices)
        changeset = Changeset()
        for member in members:
            builder.apply(member, changeset.action(member))
    if marks is Marks.AUFS:
        _allow_either(root)
    return root


def _allow_either(root: Node) -> None:
    """Beside what its layer brings itself, ours leaves a whiteout out and makes a directory opaque; podman does not."""
    pending = [root]
    while pending:
        children = pending.pop().children
        for name, node in children.items():
            hidden = children.get(name.removeprefix(AUFS_PREFIX)) if name.startswith(AUFS_PREFIX) else None
            if hidden is None:
                continue
            node.is_optional = True
            if hidden.is_directory and AUFS_OPAQUE not in hidden.children:
                hidden.children[AUFS_OPAQUE] = Node(stat.S_IFREG, node.generation, is_optional=True)
        pending += [node for node in children.values() if node.is_directory]


class _Builder:
    """Applies the members of one layer."""

    def __init__(self, root: Node, marks: Marks, generation: int, has_devices: bool) -> None:
        self._root, self._marks, self._generation, self._has_devices = root, marks, generation, has_devices
        self._last: tuple[bytes, Node] | None = None

    def apply(self, member: Member, action: Action) -> None:
        """Do what one member says."""
        effect = action.effect
        if effect is Effect.NOTHING:
            if member.kind == GLOBAL_RECORDS:  # podman makes the directories that its name implies
                self._walk((clean_name(member.name) or b"").rpartition(b"/")[0], make=True, is_optional=True)
            return
        if effect is Effect.WHITEOUT or effect is Effect.OPAQUE:
            self._delete(member, action)
            return
        parent = self._parent(action.parent)
        if parent is None or (effect in (Effect.CHARACTER_DEVICE, Effect.BLOCK_DEVICE) and not self._has_devices):
            return
        if effect is Effect.HARD_LINK:
            self._link(member, parent, action)
        else:
            self._put(member, parent, action.name, _KINDS[effect])
            parent.children[action.name].origin = join(action.parent, action.name)

    def _put(self, member: Member, parent: Node, name: bytes, kind: int) -> None:
        old = parent.children.get(name)
        if kind == stat.S_IFDIR and old is not None and old.is_directory:
            old.describe(member)
            old.is_optional = False
            old.generation = self._generation
            return
        node = Node(kind, self._generation, size=member.size, target=member.link_name, xattrs={})
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            node.device = os.makedev(member.dev_major, member.dev_minor)
        if kind == stat.S_IFLNK:
            node.mtime_ns = member.mtime_ns
        node.describe(member)
        if old is not None and old.kind == 0:
            node.is_opaque = None  # ours hides what was deleted there, podman's shows it again
        self._replace(parent, name, node)

    def _link(self, member: Member, parent: Node, action: Action) -> None:
        above, _, last = action.target.rpartition(b"/")
        directory = self._find(above)
        node = None if directory is None else directory.children.get(last)
        if node is None or node.is_directory:
            return  # of a device that was left out, or of nothing, which cannot have been stored
        node.names += 1
        node.describe(member)
        self._replace(parent, action.name, node)

    def _delete(self, member: Member, action: Action) -> None:
        is_opaque = action.effect is Effect.OPAQUE
        if self._marks is Marks.NONE:
            self._carry_out(action, is_opaque)
            return
        parent = self._parent(action.parent)
        if parent is None:
            return
        if self._marks is Marks.AUFS:
            name = AUFS_OPAQUE if is_opaque else AUFS_PREFIX + action.name
            self._put(member, parent, name, stat.S_IFREG)
        elif is_opaque:
            parent.is_opaque = None if parent is self._root else True
        elif action.name in parent.children:
            parent.children[action.name].is_opaque = None
        else:
            parent.children[action.name] = Node(0, self._generation)

    def _carry_out(self, action: Action, is_opaque: bool) -> None:
        """Delete what older layers have; what this one has brought stays."""
        directory = self._find(action.parent)
        if directory is None:  # made for the sake of the entry, until another one deletes it
            self._walk(action.parent, make=True, is_optional=True)
            return
        if is_opaque:
            self._clear(directory)
            return
        node = directory.children.get(action.name)
        if node is not None and not action.name.startswith(AUFS_PREFIX) and node.generation < self._generation:
            self._drop(directory, action.name)
            self._touch(directory)

    def _clear(self, directory: Node) -> None:
        pending = [directory]
        while pending:
            at = pending.pop()
            for name, node in list(at.children.items()):
                if node.generation < self._generation:
                    self._drop(at, name)
                    self._touch(at)
                elif node.is_directory:
                    pending.append(node)

    def _replace(self, parent: Node, name: bytes, node: Node) -> None:
        if name in parent.children:
            self._drop(parent, name)
        parent.children[name] = node

    def _drop(self, parent: Node, name: bytes) -> None:
        """Take a name away, with all below it."""
        pending = [parent.children.pop(name)]
        while pending:
            node = pending.pop()
            node.names -= 1
            pending += node.children.values()
        self._last = None

    def _parent(self, path: bytes) -> Node | None:
        """The directory at ``path``, made as far as it is only implied; None if something else is in its place."""
        if self._last is not None and self._last[0] == path:
            node = self._last[1]
        else:
            found = self._walk(path, make=True)
            if found is None:
                return None
            node = found
            self._last = (path, node)
        self._touch(node)
        return node

    def _touch(self, directory: Node) -> None:
        """Something in it changes: if it is of an older layer, it is of this one too now, and nobody keeps its time."""
        if directory.generation < self._generation:
            directory.generation = self._generation
            directory.mtime_ns = None

    def _find(self, path: bytes) -> Node | None:
        return self._walk(path, make=False)

    def _walk(self, path: bytes, *, make: bool, is_optional: bool = False) -> Node | None:
        """Follow ``path`` and every link in it, inside of the tree."""
        pending = path.split(b"/")[::-1]
        way = [self._root]
        links = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if len(way) > 1:
                    way.pop()
                continue
            node = way[-1].children.get(name)
            if node is None or node.kind == 0:
                if not make:
                    return None
                if is_optional:
                    way[-1].mtime_ns = None
                else:
                    self._touch(way[-1])
                generation = self._generation - is_optional
                node = Node(stat.S_IFDIR, generation, is_opaque=None if node else False, is_optional=is_optional)
                way[-1].children[name] = node
            if node.kind == stat.S_IFLNK:
                links += 1
                if links > _MAX_LINKS:
                    return None
                if node.target.startswith(b"/"):
                    del way[1:]
                pending += node.target.split(b"/")[::-1]
            elif node.is_directory:
                node.is_optional = node.is_optional and (is_optional or not make)
                way.append(node)
            else:
                return None
        return way[-1]
