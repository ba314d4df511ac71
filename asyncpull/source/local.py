"""What all sources have in common whose bytes lie in files of this machine, open to be read anywhere at any time."""

from __future__ import annotations

import asyncio
import os
import stat
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, DocumentTooLargeError, NotFoundError, SizeMismatchError, SourceError
from asyncpull.spec.digest import verify_bytes
from asyncpull.spec.manifest import MANIFEST_LIMIT, UNKNOWN_SIZE
from asyncpull.spec.schema1 import verify_document
from asyncpull.spec.source import BlobResponse, SourceDocument
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import Fault

PIECE = 1 << 20
"""How many bytes are read at once."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """``size`` bytes from ``offset`` on of the open file ``fd``; ``path`` is what messages call it."""

    fd: int
    offset: int
    size: int
    path: str


class LocalSource(ABC):
    """A source without endpoints; a transport says where the bytes of a digest are, and what its name means.

    Implements asyncpull.spec.source.Source. Nothing is retried: a file that cannot be read now cannot be read later.
    """

    registry = ""
    origins: tuple[str, ...] = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call this source."""

    @abstractmethod
    def open_file(self, digest: Digest) -> FileRange:
        """Where the blob or document ``digest`` is, open; the caller closes the descriptor. Blocks.

        Raises NotFoundError where there is none, SourceError, DocumentError.
        """

    @abstractmethod
    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The document that the location names, or that with ``digest``; verified where a digest is known."""

    async def digest(self) -> Digest:
        """The digest of the document that the location names."""
        return (await self.manifest()).digest

    def blame(self, origin: str, fault: Fault) -> None:  # noqa: B027 - the same for all of them
        """Nothing: there is nobody else to be asked."""

    async def blob_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, whole, its size and digest verified."""
        if descriptor.size > limit:
            raise DocumentTooLargeError(f"blob {descriptor.digest} has {descriptor.size} bytes, the limit is {limit}")
        async with self.opened(descriptor) as file:
            raw = b"".join([chunk async for chunk in _chunks(file, 0, file.size)])
        verify_bytes(file.path, raw, descriptor.digest)
        return raw

    @asynccontextmanager
    async def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AsyncIterator[BlobResponse]:
        """The bytes from ``offset`` to ``end`` of a blob that has the size it should have; not verified.

        Raises NotFoundError, SizeMismatchError, SourceError, also while the chunks are read; ValueError for an
        ``origin``, for there are none.
        """
        if origin is not None:
            raise ValueError(f"{self.name} has no endpoints")
        async with self.opened(descriptor) as file:
            stop = file.size if end is None else min(end, file.size)
            yield BlobResponse(offset, stop, file.size, _chunks(file, offset, stop))

    @asynccontextmanager
    async def opened(self, descriptor: Descriptor) -> AsyncIterator[FileRange]:
        """The file of a blob while the body runs, for who can do better than to have its bytes read to him.

        Raises NotFoundError, SizeMismatchError, SourceError.
        """
        async with self._opened(descriptor.digest) as file:
            if descriptor.size not in (file.size, UNKNOWN_SIZE):
                raise SizeMismatchError(f"{self.name}: {file.path}", descriptor.size, file.size)
            yield file

    async def document(self, digest: Digest, media_type: str | None) -> SourceDocument:
        """A manifest or an index, verified.

        Raises NotFoundError, SourceError, IntegrityError, DocumentTooLargeError.
        """
        async with self._opened(digest) as file:
            if file.size > MANIFEST_LIMIT:
                raise DocumentTooLargeError(f"{file.path} has {file.size} bytes, the limit is {MANIFEST_LIMIT}")
            raw = b"".join([chunk async for chunk in _chunks(file, 0, file.size)])
        verify_document(file.path, raw, digest)
        return SourceDocument(raw, media_type, digest)

    @asynccontextmanager
    async def _opened(self, digest: Digest) -> AsyncIterator[FileRange]:
        job = asyncio.get_running_loop().run_in_executor(None, self.open_file, digest)
        try:
            await finish(job)
            yield job.result()
        finally:
            if job.exception() is None:
                os.close(job.result().fd)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def open_regular(path: Path) -> FileRange:
    """Open a whole file, links followed; whatever else there may be at ``path`` is refused and not waited for. Blocks.

    Raises NotFoundError, SourceError, DocumentError.
    """
    with reading(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise DocumentError(f"{path} is not a regular file")
    return FileRange(fd, 0, status.st_size, str(path))


def read_small(path: Path, limit: int) -> bytes:
    """A file of at most ``limit`` bytes, whole. Blocks.

    Raises NotFoundError, SourceError, DocumentError, DocumentTooLargeError.
    """
    file = open_regular(path)
    try:
        if file.size > limit:
            raise DocumentTooLargeError(f"{path} has {file.size} bytes, the limit is {limit}")
        with reading(path):
            return os.pread(file.fd, limit, 0)
    finally:
        os.close(file.fd)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn an OSError of the body, which reads ``path``, into NotFoundError or SourceError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{path} is not there") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


async def _chunks(file: FileRange, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes from ``start`` to ``end`` of a range, read in threads."""
    loop = asyncio.get_running_loop()
    position = start
    while position < end:
        job = loop.run_in_executor(None, os.pread, file.fd, min(PIECE, end - position), file.offset + position)
        await finish(job)  # a thread that reads a descriptor which is closed would read another file
        with reading(file.path):
            chunk = job.result()
        if not chunk:
            raise SourceError(f"{file.path} ended at byte {position}, before byte {end}", "somebody changes the file")
        position += len(chunk)
        yield chunk
