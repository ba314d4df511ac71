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
    """Whose marks a tree has. A deleted entry is a character device 0/0; an opaque directory has an attribute.

    TRUSTED: the kernel's overlay of root. USER: the kernel's overlay in a user namespace (mount option ``userxattr``).
    """

    TRUSTED = b"trusted.overlay.opaque"
    USER = b"user.overlay.opaque"

    @property
    def opaque_name(self) -> bytes:
        """The attribute of an opaque directory; its value is ``y``."""
        return self.value


def is_whiteout(info: os.stat_result) -> bool:
    """Tell whether this is overlay's mark of a deleted entry."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(target: Target, marks: Marks) -> bool:
    """Tell whether a directory hides what the layers below have in it."""
    try:
        return os.getxattr(target, marks.opaque_name, follow_symlinks=isinstance(target, int)) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def set_opaque(target: Target, marks: Marks) -> None:
    """Make a directory opaque."""
    os.setxattr(target, marks.opaque_name, b"y", follow_symlinks=isinstance(target, int))
