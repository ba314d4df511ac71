"""A file and the journal of what is in it, so that both survive SIGKILL and a power cut.

::

    blob       the bytes, where they belong; sparse
    journal    "asyncpull journal 1", then a line per range: offset, length (decimal), CRC-64/GO-ISO (hex), and
               the name of who sent it, percent-encoded, where that is known

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
from urllib.parse import quote, unquote

from fastcrc import crc64

from asyncpull.dataclass import dataclass
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
_NAME_SAFE = "/:@[]"  # left as they are in the name of an endpoint


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line of the journal: bytes that were received, their CRC, and the name of who sent them, or nothing."""

    range: Range
    checksum: int
    origin: str = ""


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

    def store(self, offset: int, batch: Sequence[bytes], origin: str = "") -> Range:
        """Write ``batch``, which ``origin`` sent, at ``offset``, record it, and return where it is now."""
        with store_errors(self.directory):
            end, checksum = offset, 0
            for first in range(0, len(batch), _VECTORS):
                end = _write_all(self._blob, batch[first : first + _VECTORS], end)
            for piece in batch:
                checksum = crc64.go_iso(piece, checksum)
            stored = Range(offset, end)
            # One write of one short line to a file opened for appending: it is there, or it is not.
            os.write(self._journal, _format_record(Recorded(stored, checksum, origin)))
            return stored

    def verified(self, size: int) -> list[Recorded]:
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
                if record is not None and record.range.end <= size and is_as_recorded(self._blob, record):
                    kept.append(record)
            return kept

    def stop(self) -> None:
        """Let ``verified``, which may have gigabytes to read, return early; called by another thread."""
        self._stopped = True

    def reset(self) -> None:
        """Empty both files; whoever reads the blob goes on reading what it was."""
        with store_errors(self.directory):
            # Not what is empty: what was cut to nothing is written out by ext4 when it is closed, which takes time.
            if os.fstat(self._journal).st_size:
                os.ftruncate(self._journal, 0)
            if os.fstat(self._blob).st_size:
                self.path.unlink(missing_ok=True)
                os.close(self._blob)
                self._blob = -1
                self._blob = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
            os.write(self._journal, _HEADER)

    def _lines(self) -> list[bytes] | None:
        """The whole lines of the journal; None if it is not one of ours. A torn last line is cut off."""
        raw = _content(self._journal)
        if not raw.startswith(_HEADER):
            return None
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            os.ftruncate(self._journal, whole)
        return raw[len(_HEADER) : whole].splitlines()


def read_records(directory: Path) -> list[Recorded]:
    """What the journal in ``directory`` says, which somebody may be writing, without comparing it with the blob.

    Nothing, if there is no journal or it cannot be read.
    """
    try:
        fd = os.open(directory / "journal", os.O_RDONLY | _FLAGS)
    except OSError:
        return []
    try:
        raw = _content(fd)
    finally:
        os.close(fd)
    lines = raw[: raw.rfind(b"\n") + 1].removeprefix(_HEADER).splitlines() if raw.startswith(_HEADER) else []
    return [record for record in map(_parse_record, lines) if record is not None]


def is_as_recorded(fd: int, record: Recorded) -> bool:
    """Whether the blob that ``fd`` reads has the bytes of ``record``."""
    actual, position = 0, record.range.start
    while position < record.range.end:
        piece = os.pread(fd, min(_READ, record.range.end - position), position)
        if not piece:
            return False
        actual = crc64.go_iso(piece, actual)
        position += len(piece)
    return actual == record.checksum


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn every OSError of the body into the StoreError about ``path`` that it means."""
    try:
        yield
    except OSError as error:
        message = f"cannot keep what is received: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space or inodes on this file system, or choose another place"
            raise NoSpaceError(message, str(path), hint) from error
        raise StoreWriteError(message, str(path)) from error


def _content(fd: int) -> bytes:
    raw = b""
    while piece := os.pread(fd, _READ, len(raw)):
        raw += piece
    return raw


def _format_record(record: Recorded) -> bytes:
    line = b"%d %d %016x" % (record.range.start, len(record.range), record.checksum)
    return line + (b" " + quote(record.origin, _NAME_SAFE).encode() if record.origin else b"") + b"\n"


def _parse_record(line: bytes) -> Recorded | None:
    try:
        offset, length, checksum, *more = line.split(b" ")
        (origin,) = more or (b"",)
        found = Range(int(offset), int(offset) + int(length))
        return Recorded(found, int(checksum, 16), unquote(origin.decode("ascii")))
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
