"""What a member of a layer means: names made safe, whiteouts recognised, what cannot be stored refused.

The words are those of the image specification, layer.md. Rules, in the order in which they are applied:

1. A name is cleaned lexically, and must stay inside: ``..`` may take back what the name itself went down, no more.
   Absolute names count from the layer's root. (podman puts ``../x`` at ``x``, and can never export it again.)
2. No two members may have the same cleaned name, whatever their types, global headers included: the tar-split would
   name the contents of both by it.
3. ``.wh..wh..opq`` makes its directory opaque; any other last component ``.wh.X`` deletes ``X`` of the layers below,
   whatever the member's type. ``.wh..wh.plnk`` and the like are no exceptions. A whiteout has no contents, and its
   ``X`` is a name, not ``.`` or ``..`` or nothing.
4. Files, directories, hard and symbolic links, devices and FIFOs are stored; a global header is skipped; any other type
   (``7``, ``S``, …) is refused.
5. Paths and components that Linux cannot hold are refused, so nobody has to find out in the middle.

A member that names the root itself must be a directory; it changes nothing, as with podman.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncpull.errors import UnsupportedMemberError
from asyncpull.layer.header import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    GLOBAL_RECORDS,
    HARD_LINK,
    REGULAR,
    SYMLINK,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpull.layer.header import Member

__all__ = ["Action", "Changeset", "Effect", "clean_link", "clean_name"]

_NAME_LIMIT: Final = 255
# A path as it is opened by others in a chroot: "/" before it, NUL after it, PATH_MAX in all.
_PATH_LIMIT: Final = 4094
_LINK_LIMIT: Final = 4095
# Longer directories are remembered by a hash, so that hostile ones cost no more memory than others.
_SHORT: Final = 128
_DOT: Final = 0x2E

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"

# No component is empty or begins with a dot, which is more than it takes to be clean, and true of nearly all.
_is_clean = re.compile(rb"[^/.][^/]*(?:/[^/.][^/]*)*+").fullmatch


class Effect(IntEnum):
    """What a member does to the tree."""

    NOTHING = 0
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    HARD_LINK = 4
    CHARACTER_DEVICE = 5
    BLOCK_DEVICE = 6
    FIFO = 7
    WHITEOUT = 8
    OPAQUE = 9


class Action(NamedTuple):
    """An effect at ``name`` in the directory ``parent``.

    ``parent`` is a cleaned path relative to the layer's root, ``b""`` for the root; ``name`` one component. For
    WHITEOUT that is the name to be hidden, without ``.wh.``; for OPAQUE the directory is ``parent`` and ``name`` is
    empty. ``target`` is the cleaned path that a HARD_LINK links to, else empty (a symlink's is in the member).
    """

    effect: Effect
    parent: bytes
    name: bytes
    target: bytes = b""


# An Action of a tuple, without the time that its own way of being made takes.
_usual: Final[Callable[[tuple[Effect, bytes, bytes, bytes]], Action]] = partial(tuple.__new__, Action)
_NOTHING: Final = Action(Effect.NOTHING, b"", b"")
_FILE: Final = Effect.FILE
_DIRECTORY: Final = Effect.DIRECTORY
_EFFECTS: Final = {
    REGULAR: Effect.FILE,
    DIRECTORY: Effect.DIRECTORY,
    SYMLINK: Effect.SYMLINK,
    HARD_LINK: Effect.HARD_LINK,
    CHARACTER_DEVICE: Effect.CHARACTER_DEVICE,
    BLOCK_DEVICE: Effect.BLOCK_DEVICE,
    FIFO: Effect.FIFO,
}


class Changeset:
    """Decides, member by member, what a layer does. One per layer; remembers the names it has seen."""

    def __init__(self) -> None:
        # The names in each directory, by its cleaned path.
        self._seen: dict[bytes, set[bytes]] = {}
        # The directory of the last member: as the archive names it, cleaned, and its names. Most members are beside the
        # one before them, and then there is only the last component to be looked at.
        self._above: bytes | None = None
        self._parent = b""
        self._names: set[bytes] = set()

    def action(self, member: Member) -> Action:
        """What ``member`` does; its contents, if any, belong to an Effect.FILE.

        Raises UnsupportedMemberError for what cannot be stored and rebuilt faithfully.
        """
        above, _, name = member.name.rpartition(b"/")
        if above != self._above or not name or name[0] == _DOT or len(name) > _NAME_LIMIT:
            name = self._find(member, above, name)
        parent, names = self._parent, self._names
        known = len(names)
        names.add(name)
        if len(names) == known:
            raise _refused("a second member of the same name", member)
        effect = _EFFECTS.get(member.kind)
        if (effect is _FILE or effect is _DIRECTORY) and name and name[:4] != _WHITEOUT:
            return _usual((effect, parent, name, b""))
        return _rare_action(member, effect, parent, name)

    def _find(self, member: Member, above: bytes, last: bytes) -> bytes:
        """Find the directory of a member, which the archive names ``above``; returns its name in there."""
        path = clean_name(member.name)
        if path is None:
            raise _refused("a name that leads out of the layer", member)
        parent, _, name = path.rpartition(b"/")
        key = parent if len(path) <= _SHORT else _long_key(path, parent, member)
        self._parent, self._names = parent, self._seen.setdefault(key, set())
        is_beside = name == last and len(parent) < _PATH_LIMIT - _NAME_LIMIT
        self._above = above if is_beside else None
        return name


def _rare_action(member: Member, effect: Effect | None, parent: bytes, name: bytes) -> Action:
    """The action of anything but plain files and directories; see Changeset.action."""
    if effect is None:
        if member.kind == GLOBAL_RECORDS:
            return _NOTHING
        raise _refused(f"a member of the unknown type {chr(member.kind)!r}", member)
    if not name:
        if effect is not Effect.DIRECTORY:
            raise _refused("a member other than a directory for the root", member)
        return _NOTHING
    if name.startswith(_WHITEOUT):
        return _whiteout(member, parent, name)
    target = b""
    if effect is Effect.HARD_LINK:
        target = clean_link(member.link_name)
        if not target:
            raise _refused("a hard link to the root", member)
    elif effect is Effect.SYMLINK and not 0 < len(member.link_name) <= _LINK_LIMIT:
        raise _refused("a symbolic link with a target that Linux cannot hold", member)
    return Action(effect, parent, name, target)


def clean_name(name: bytes) -> bytes | None:
    """``name`` as a path relative to the layer's root, without ``.``, ``..`` and empty components.

    ``b""`` is the root itself; None a name that leads out of it.
    """
    path = name[2:] if name[:2] == b"./" else name
    if path[-1:] == b"/":
        path = path[:-1]
    if _is_clean(path):
        return path
    components: list[bytes] = []
    for component in name.split(b"/"):
        if component == b"..":
            if not components:
                return None
            components.pop()
        elif component not in (b"", b"."):
            components.append(component)
    return b"/".join(components)


def clean_link(target: bytes) -> bytes:
    """The target of a hard link as a path relative to the layer's root; ``..`` at the root stays there."""
    components: list[bytes] = []
    for component in target.split(b"/"):
        if component == b"..":
            del components[-1:]
        elif component not in (b"", b"."):
            components.append(component)
    return b"/".join(components)


def _whiteout(member: Member, parent: bytes, name: bytes) -> Action:
    if member.size:
        raise _refused("a whiteout with contents", member)
    if name == _OPAQUE:
        return Action(Effect.OPAQUE, parent, b"")
    hidden = name[len(_WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise _refused("a whiteout of no name", member)
    return Action(Effect.WHITEOUT, parent, hidden)


def _long_key(path: bytes, parent: bytes, member: Member) -> bytes:
    """By what to remember the directory of a long path. Refuses those that are too long."""
    if len(path) > _PATH_LIMIT or max(map(len, path.split(b"/"))) > _NAME_LIMIT:
        raise _refused("a name that Linux cannot hold", member)
    return parent if len(parent) <= _SHORT else blake2b(parent).digest()


def _refused(what: str, member: Member) -> UnsupportedMemberError:
    return UnsupportedMemberError(what, member.name, member.position)
