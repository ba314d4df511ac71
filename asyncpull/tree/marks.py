"""How a tree says that something below it is deleted (format, section 5.2)."""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncpull.tree.xattrs import Target


class Marks(Enum):
    """Whose marks a tree has.

    TRUSTED: the kernel's overlay of root; a deleted entry is a character device 0/0, an opaque directory has an
    attribute. USER: the same, in a user namespace (mount option ``userxattr``). AUFS: of FUSE mount programs; the files
    ``.wh.<name>`` and ``.wh..wh..opq``, as they are in an archive. NONE: the tree is complete, what is deleted is gone.
    """

    TRUSTED = "trusted"
    USER = "user"
    AUFS = "aufs"
    NONE = "none"

    @property
    def opaque_name(self) -> bytes | None:
        """The attribute of an opaque directory, whose value is ``y``; None where it is no attribute."""
        return _OPAQUE_NAMES.get(self)


_OPAQUE_NAMES = {Marks.TRUSTED: b"trusted.overlay.opaque", Marks.USER: b"user.overlay.opaque"}
OPAQUE_NAMES = frozenset(_OPAQUE_NAMES.values())
"""All attributes that make a directory opaque to some overlay."""

AUFS_PREFIX = b".wh."
AUFS_OPAQUE = b".wh..wh..opq"


# Attributes beside that of an opaque directory by which the kernel shows something else than what is in a tree: the
# contents are elsewhere, the directory below has another name, an empty file is a whiteout.
_OTHER_EFFECTS = (b"metacopy", b"redirect", b"whiteout")


def has_effect(name: bytes, marks: Marks) -> bool:
    """Tell whether an attribute makes the kernel's overlay show something else; we never make one of these."""
    if marks.opaque_name is None:
        return False
    prefix = marks.opaque_name.removesuffix(b"opaque")
    return name.startswith(prefix) and name.removeprefix(prefix) in _OTHER_EFFECTS


# What each overlay takes for its own. fuse-overlayfs reads the kernel's marks beside those of its own.
_RESERVED = {
    Marks.TRUSTED: (b"trusted.overlay.",),
    Marks.USER: (b"user.overlay.",),
    Marks.AUFS: (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", b"user.containers.override_"),
}
_ESCAPE = b"overlay."


def harmless_name(name: bytes, marks: Marks) -> bytes | None:
    """The name under which a tree has an attribute that an archive calls ``name``, so that overlay sees no mark in it.

    It is the one that overlay itself gives to an attribute of a file in it (Linux 6.7), which then shows the archive's
    name again; older kernels hide it. None where nothing of the kind exists, and the attribute is to be left out.
    """
    for prefix in _RESERVED.get(marks, ()):
        if name.startswith(prefix):
            return None if marks is Marks.AUFS else prefix + _ESCAPE + name.removeprefix(prefix)
    return name


def is_whiteout(info: os.stat_result) -> bool:
    """Tell whether this is overlay's mark of a deleted entry."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(target: Target, marks: Marks) -> bool:
    """Tell whether a directory hides what the layers below have in it."""
    follow = isinstance(target, int)
    if marks is Marks.AUFS:
        return _has_opaque_file(target)
    if marks.opaque_name is None:
        return False
    try:
        return os.getxattr(target, marks.opaque_name, follow_symlinks=follow) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def set_opaque(target: Target, marks: Marks) -> None:
    """Make a directory opaque to the kernel. Marks without an attribute are files, or nothing at all: not made here."""
    if marks.opaque_name is not None:
        os.setxattr(target, marks.opaque_name, b"y", follow_symlinks=isinstance(target, int))


def _has_opaque_file(target: Target) -> bool:
    try:
        if isinstance(target, int):
            os.lstat(AUFS_OPAQUE, dir_fd=target)
        else:
            os.lstat(target + b"/" + AUFS_OPAQUE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
