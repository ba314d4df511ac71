"""Landlock (landlock(7)): a process gives up, for itself and its children, what files it may not touch any more.

Rights are numbered as in ``linux/landlock.h``. What a ruleset *handles* is forbidden everywhere, but for what a rule
allows below a directory; every version of the kernel's interface (ABI) can handle some more. Not handled by any of them
are the names themselves: stat, chmod, chown, utime and extended attributes are judged by owners and modes alone.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Final

from asyncpull.kernel import system_call

if TYPE_CHECKING:
    from collections.abc import Sequence

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_IOCTL_DEV: Final = 1 << 15
# By ABI: the rights to files that came with it, as bits below the one given; of network; of other processes.
_FILE_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
_TCP: Final = (4, 0b11)  # bind and connect
_SCOPES: Final = (6, 0b11)  # abstract sockets and signals of processes that are not confined like this one

READING: Final = _READ_FILE | _READ_DIR
LEAST_ABI: Final = 2
"""Before it (Linux 5.19) no file could be linked or renamed into another directory, which archives want done."""


def abi() -> int:
    """The version of Landlock that the kernel has; 0 where it has none, or was started without it."""
    try:
        return system_call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def handled_rights(version: int) -> tuple[int, int, int]:
    """All that this version can forbid: rights to files, to TCP, and to other processes."""
    bits = max(bits for since, bits in _FILE_RIGHTS if since <= version)
    return (
        (1 << bits) - 1,
        _TCP[1] if version >= _TCP[0] else 0,
        _SCOPES[1] if version >= _SCOPES[0] else 0,
    )


def restrict(writable: Sequence[str], readable: Sequence[str]) -> int:
    """Forbid this thread, and what it will start, all files but those below these directories; return the ABI.

    Below ``writable`` ones everything may be done but executing and driving devices. TCP, and other processes' abstract
    sockets and signals, are forbidden where the kernel can do that. A directory that is not there is left out.
    Privileges must have been forgone. Raises OSError; EOPNOTSUPP where the kernel's Landlock is of no use.
    """
    version = abi()
    if version < LEAST_ABI:
        raise OSError(errno.EOPNOTSUPP, f"the kernel's Landlock is ABI {version}, and {LEAST_ABI} is needed")
    files, network, scopes = handled_rights(version)
    attributes = struct.pack("3Q", files, network, scopes)
    ruleset = system_call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow(ruleset, path, READING)
        for path in writable:
            _allow(ruleset, path, files & ~(_EXECUTE | _IOCTL_DEV))
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        system_call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, directory), 0)
    finally:
        os.close(directory)
