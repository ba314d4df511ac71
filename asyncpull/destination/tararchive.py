"""Tar files that are the same for the same contents: members sorted, of nobody, of no time."""

from __future__ import annotations

import errno
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from asyncpull.layer.archive import END, format_member, padding
from asyncpull.layer.header import DIRECTORY, REGULAR, Member

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import Path

_RECORD: Final = 10240  # what tar programs write at once, and some insist on
_AT_ONCE: Final = 8 << 20
_UNABLE: Final = frozenset((errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF))


def write_tar(out: int, members: Mapping[str, bytes | Path], stop: threading.Event) -> None:
    """Write a tar with these files, and the directories that they are in, to the descriptor ``out``. Blocks.

    Returns early, with half an archive, when ``stop`` is set. Raises OSError.
    """
    directories = {str(parent) for name in members for parent in PurePath(name).parents if parent.name}
    written = 0
    for name in sorted((*directories, *members)):
        content = members.get(name)
        if content is None:
            written += _write(out, _header(name, DIRECTORY, 0o755))
        elif isinstance(content, bytes):
            written += _write(out, _header(name, REGULAR, 0o644, len(content)) + content + padding(len(content)))
        else:
            written += _write_file(out, name, content, stop)
        if stop.is_set():
            return
    _write(out, END + bytes(-(written + len(END)) % _RECORD))


def _header(name: str, kind: int, mode: int, size: int = 0) -> bytes:
    return format_member(Member(name.encode(), kind, mode, 0, 0, size, 0, 0, b"", 0, 0, {}, 0))


def _write_file(out: int, name: str, path: Path, stop: threading.Event) -> int:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        written = _write(out, _header(name, REGULAR, 0o644, size))
        left, can_copy = size, True
        while left and not stop.is_set():
            try:
                if can_copy:
                    moved = os.copy_file_range(source, out, min(left, _AT_ONCE))
                else:
                    moved = os.sendfile(out, source, None, min(left, _AT_ONCE))
            except OSError as error:
                if not can_copy or error.errno not in _UNABLE:
                    raise
                can_copy = False
                continue
            if not moved:
                raise OSError(errno.EIO, "became shorter while it was copied", str(path))
            left -= moved
        return written + size + _write(out, padding(size))
    finally:
        os.close(source)


def _write(out: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
    return len(data)
