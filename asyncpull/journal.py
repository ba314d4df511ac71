"""A file and the journal of what is in it, so that both survive SIGKILL and a power cut.

::

    blob       the bytes, where they belong; sparse
    journal    "asyncpull journal 1", then a line per range: offset, length (decimal), CRC-64/GO-ISO (hex)

1. A range is recorded after it was written. So what the journal says was in the page cache at least, and a process
   that is killed loses no recorded range.
2. Nothing is believed at the next opening: each recorded range is read back and compared with its CRC, and what does
   not fit is a hole. So neither file is ever synced, whatever order a power cut let them reach the disk in.
3. A line without its newline, or of another form, was never written.

Everything here blocks, and is called by one thread at a time.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastcrc import crc64

from asyncpull.errors import NoSpaceError, StoreWriteError
from asyncpull.ranges import Range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Self

_HEADER = b"asyncpull journal 1\n"
_READ = 1 << 20
_VECTORS = 1024  # IOV_MAX of Linux
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class JournaledFile:
    """``blob`` and ``journal`` in ``directory``, made if they are not there; a context manager that closes them.

    Every method raises NoSpaceError and StoreWriteError.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "blob"
        self._stopped = False
        self._blob = self._journal = -1

    def __enter__(self) -> Self:
        try:
            with store_errors(self.directory):
                self._blob = os.open(self.path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
                self._journal = os.open(
                    self.directory / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND | _FLAGS, 0o600
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._blob, self._journal):
            if fd >= 0:
                os.close(fd)
        self._blob = self._journal = -1

    def open_reader(self) -> int:
        """A descriptor of its own for reading the blob."""
        with store_errors(self.directory):
            return os.open(self.path, os.O_RDONLY | _FLAGS)

    def store(self, offset: int, batch: Sequence[bytes]) -> int:
        """Write ``batch`` at ``offset``, record it, and return where it ends."""
        with store_errors(self.directory):
            end, checksum = offset, 0
            for first in range(0, len(batch), _VECTORS):
                end = _write_all(self._blob, batch[first : first + _VECTORS], end)
            for piece in batch:
                checksum = crc64.go_iso(piece, checksum)
            # One write of one short line to a file opened for appending: it is there, or it is not.
            os.write(self._journal, b"%d %d %016x\n" % (offset, end - offset, checksum))
            return end

    def verified(self, size: int) -> list[Range]:
        """The recorded ranges within ``size`` that are in the blob as they were received."""
        with store_errors(self.directory):
            lines = self._lines()
            if lines is None:
                self.reset()
                return []
            kept = []
            for line in lines:
                if self._stopped:
                    break
                record = _parse_record(line)
                if record is not None and record[0].end <= size and self._matches(*record):
                    kept.append(record[0])
            return kept

    def stop(self) -> None:
        """Let ``verified``, which may have gigabytes to read, return early; called by another thread."""
        self._stopped = True

    def reset(self) -> None:
        """Empty both files."""
        with store_errors(self.directory):
            os.ftruncate(self._journal, 0)
            os.ftruncate(self._blob, 0)
            os.write(self._journal, _HEADER)

    def _lines(self) -> list[bytes] | None:
        """The whole lines of the journal; None if it is not one of ours. A torn last line is cut off."""
        raw = b""
        while piece := os.pread(self._journal, _READ, len(raw)):
            raw += piece
        if not raw.startswith(_HEADER):
            return None
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            os.ftruncate(self._journal, whole)
        return raw[len(_HEADER) : whole].splitlines()

    def _matches(self, recorded: Range, checksum: int) -> bool:
        actual, position = 0, recorded.start
        while position < recorded.end:
            piece = os.pread(self._blob, min(_READ, recorded.end - position), position)
            if not piece:
                return False
            actual = crc64.go_iso(piece, actual)
            position += len(piece)
        return actual == checksum


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn every OSError of the body into the StoreError about ``path`` that it means."""
    try:
        yield
    except OSError as error:
        message = f"cannot keep what is received: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, or choose another graph root with --root"
            raise NoSpaceError(message, str(path), hint) from error
        raise StoreWriteError(message, str(path)) from error


def _parse_record(line: bytes) -> tuple[Range, int] | None:
    try:
        offset, length, checksum = line.split(b" ")
        return Range(int(offset), int(offset) + int(length)), int(checksum, 16)
    except ValueError:
        return None


def _write_all(fd: int, pieces: Sequence[bytes], position: int) -> int:
    """Write ``pieces`` at ``position`` and return where they end; after a short write, go on behind it."""
    end = position + sum(map(len, pieces))
    position += os.pwritev(fd, pieces, position)
    if position < end:
        rest = memoryview(b"".join(pieces))[position - end :]
        while rest:
            written = os.pwrite(fd, rest, position)
            rest, position = rest[written:], position + written
    return end
