"""What a refusal of the kernel means while a layer is written: who has to act."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from asyncpull.errors import LayerError, StoreError, StoreWriteError, UnsupportedMemberError
from asyncpull.tree.failure import store_error

if TYPE_CHECKING:
    from pathlib import Path

# The archive asks for what cannot be. Everything else is the store's trouble.
_MEANINGLESS: Final = {
    errno.EEXIST: "something is in the way",
    errno.EINVAL: "not a possible name or value",
    errno.EISDIR: "a directory is in the way",
    errno.ELOOP: "too many links in the path",
    errno.ENAMETOOLONG: "the name is too long for any file system",
    errno.ENOENT: "the path leads through a link to no directory",
    errno.ENOTDIR: "the path leads through something that is no directory",
    errno.ERANGE: "not a possible value",
}


def explain(error: OSError, root: Path, member: bytes, position: int) -> LayerError | StoreError:
    """Turn what happened while ``member``, whose header is at byte ``position``, was written below ``root`` to ours."""
    if error.errno in _MEANINGLESS:
        message = _MEANINGLESS[error.errno]
        if error.strerror and error.strerror != os.strerror(error.errno):
            message = error.strerror
        return UnsupportedMemberError(message, member, position)
    return store_error(error, os.path.join(root, os.fsdecode(member)))


def owner_error(error: OSError, uid: int, gid: int, path: str) -> StoreWriteError:
    """Say that an owner of the archive has no ID in this user namespace (EINVAL), or may not be given (EPERM)."""
    return StoreWriteError(
        f"cannot give it to owner {uid}:{gid}: {error.strerror}",
        path,
        "the user namespace has too few IDs: add to the user's ranges in /etc/subuid and /etc/subgid, "
        "or set the storage option ignore_chown_errors",
    )
