"""Tar files that are the same for the same contents: members sorted, of nobody, of no time."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

_AT_ONCE: Final = 8 << 20
_UNABLE: Final = frozenset((errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF))


def write_tar(out: int, members: Mapping[str, bytes | Path], stop: threading.Event) -> None:
    """Write a tar with these files, and the directories that they are in, to the descriptor ``out``. Blocks.

    Returns early, with half an archive, when ``stop`` is set. Raises OSError.
    """
    directories = {f"{parent}/" for name in members for parent in Path(name).parents if parent.name}
    written = 0
    for name in sorted((*directories, *members)):
        content = members.get(name)
        if content is None:
            written += _write(out, _header(name, tarfile.DIRTYPE, 0o755, 0))
        elif isinstance(content, bytes):
            padding = bytes(-len(content) % tarfile.BLOCKSIZE)
            written += _write(out, _header(name, tarfile.REGTYPE, 0o644, len(content)) + content + padding)
        else:
            written += _write_file(out, name, content, stop)
        if stop.is_set():
            return
    _write(out, bytes(2 * tarfile.BLOCKSIZE + -(written + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE))


def _header(name: str, kind: bytes, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size
    return info.tobuf(tarfile.PAX_FORMAT)


def _write_file(out: int, name: str, path: Path, stop: threading.Event) -> int:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        written = _write(out, _header(name, tarfile.REGTYPE, 0o644, size))
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
        return written + size + _write(out, bytes(-size % tarfile.BLOCKSIZE))
    finally:
        os.close(source)


def _write(out: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
    return len(data)
