"""The bytes of blobs on their way from a source to a destination: what implements ``spec.destination.Content``.

::

    fetched      received from a registry into a spool, several connections at once, to be resumed; read meanwhile
    lying        in a file of a local source, read where it lies
    received     from a source that can only send: taken into a file without a name first
    HeldContent  small, verified and in memory
    FileContent  what all others are: a descriptor that can be read up to a front, and a digest that is verified once

Each blob is hashed once, in threads, beside whatever else is done with it, however often and by whomever it is read;
nobody comes to the end of it before the hash has.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from asyncpull.errors import DigestMismatchError, SizeMismatchError, UnavailableError
from asyncpull.extract.writeback import begin_writing
from asyncpull.journal import store_errors
from asyncpull.scratch import open_scratch, write_all
from asyncpull.source.local import reading
from asyncpull.spool import move_spooled
from asyncpull.waiting import finish, run_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from asyncpull.fetch.fetcher import FetchingBlob
    from asyncpull.source.local import LocalSource
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import Source

T = TypeVar("T")
Mover = Callable[["Path"], Awaitable[bool]]

PIECE: Final = 1 << 20
_FICLONE: Final = 0x40049409
_UNABLE: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EBADF)
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Front:
    """How many bytes of a blob are here without a gap, and who waits for more."""

    def __init__(self, position: int, size: int) -> None:
        self.position, self.size = position, size
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._failure: BaseException | None = None

    def advance(self, position: int) -> None:
        """So many bytes are here."""
        self.position = position
        for least, future in self._waiting:
            if position >= least and not future.done():
                future.set_result(None)
        self._waiting = [each for each in self._waiting if not each[1].done()]

    def fail(self, failure: BaseException) -> None:
        """No more bytes come."""
        self._failure = failure
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def beyond(self, position: int) -> int:
        """Wait for a piece from ``position`` on, or the rest: how far it goes. Raises what ended the download."""
        least = min(position + PIECE, self.size)
        while self.position < least:
            if self._failure is not None:
                raise self._failure
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((least, future))
            await future
        return self.position


class FileContent:
    """The bytes of a blob from ``start`` on of the open file ``fd``, here up to a front; an async context manager.

    Implements asyncpull.spec.destination.Content. ``mover`` makes a file of the whole by moving it, where that can be
    done, once it is verified. ``is_verified`` says that whoever made the file has hashed it. The descriptor is the
    caller's to close, after the context.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        fd: int,
        start: int = 0,
        *,
        front: Front | None = None,
        mover: Mover | None = None,
        is_verified: bool = False,
        on_read: Callable[[int], None] = lambda position: None,
    ) -> None:
        self.descriptor = descriptor
        self._fd, self._start = fd, start
        self._front = front or Front(descriptor.size, descriptor.size)
        self._mover = mover
        self._is_verified = is_verified
        self._hashing: asyncio.Task[None] | None = None
        self._on_read = on_read

    async def __aenter__(self) -> FileContent:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._hashing is not None:
            self._hashing.cancel()
            await finish(self._hashing)
            if not self._hashing.cancelled():
                self._hashing.exception()  # whoever read to the end was told

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self.descriptor.size

    async def chunks(self, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes from ``offset`` on, a MiB at most each, as they arrive; verified before the last one has ended.

        Raises IntegrityError, SourceError, StoreError.
        """
        self._begin_hashing()
        position = offset
        while position < self.size:
            front = await self._front.beyond(position)
            if front == self.size and front - position <= PIECE:
                await self.verified()  # before the last piece, so that a body that is complete is a body that is right
            piece = await self._thread(self._read, min(PIECE, front - position), position)
            if not piece:
                raise SizeMismatchError(f"blob {self.descriptor.digest}", self.size, position)
            position += len(piece)
            self._on_read(position)
            yield piece
        await self.verified()

    async def write_to(self, path: Path) -> None:
        """Make the file ``path``, verified and synced: moved there, or sharing its blocks, or copied.

        Raises IntegrityError, SourceError, StoreError; then there is no such file.
        """
        if self._mover is not None:
            await self.verified()
            if await self._mover(path):
                self._on_read(self.size)
                return
        with store_errors(path):
            fd = os.open(path, _CREATE, 0o644)
        try:
            try:
                await run_all((self.verified(), self._copy_to(path, fd)))
            finally:
                os.close(fd)
        except BaseException:
            _remove(path)
            raise
        self._on_read(self.size)

    async def verified(self) -> None:
        """Wait until all bytes are here and hashed. Raises IntegrityError, SourceError, StoreError."""
        self._begin_hashing()
        if self._hashing is not None:
            await asyncio.wait((self._hashing,))
            self._hashing.result()

    def _begin_hashing(self) -> None:
        if self._hashing is None and not self._is_verified:
            self._hashing = asyncio.ensure_future(self._hash())

    async def _hash(self) -> None:
        digest, position = self.descriptor.digest, 0
        hasher, buffer = digest.hasher(), memoryview(bytearray(min(PIECE, self.size)))

        def take(start: int, end: int) -> int:
            while start < end:
                view = buffer[: end - start]
                with reading(f"blob {digest}"):
                    count = os.preadv(self._fd, (view,), self._start + start)
                if not count:
                    break
                hasher.update(view[:count])
                start += count
            if self._mover is not None:  # it is to be synced: the disk may begin with what is here
                begin_writing(self._fd)
            return start

        while position < self.size:
            front = await self._front.beyond(position)
            reached = await self._thread(take, position, front)
            if reached < front:
                raise SizeMismatchError(f"blob {digest}", self.size, reached)
            position = front
        if hasher.hexdigest() != digest.encoded:
            raise DigestMismatchError(f"blob {digest}", str(digest), f"{digest.algorithm}:{hasher.hexdigest()}")

    def _read(self, count: int, position: int) -> bytes:
        with reading(f"blob {self.descriptor.digest}"):
            return os.pread(self._fd, count, self._start + position)

    async def _copy_to(self, path: Path, fd: int) -> None:
        position = 0
        while position < self.size:
            front = await self._front.beyond(position)
            await self._thread(self._copy, path, fd, position, front)
            position = front
        await self._thread(_sync, path, fd)

    def _copy(self, path: Path, fd: int, start: int, end: int) -> None:
        """Bring the bytes from ``start`` to ``end`` into ``fd``, by the cheapest way that there is."""
        with store_errors(path):
            if (start, end, self._start) == (0, self.size, 0) and os.fstat(self._fd).st_size == self.size:
                try:
                    fcntl.ioctl(fd, _FICLONE, self._fd)
                    return
                except OSError as error:
                    if error.errno not in _UNABLE:
                        raise
            is_able = True
            while start < end:
                try:
                    if is_able:
                        count = os.copy_file_range(self._fd, fd, end - start, self._start + start, start)
                    else:
                        count = os.pwrite(fd, os.pread(self._fd, min(PIECE, end - start), self._start + start), start)
                except OSError as error:
                    if not is_able or error.errno not in _UNABLE:
                        raise
                    is_able = False
                    continue
                if not count:
                    raise SizeMismatchError(f"blob {self.descriptor.digest}", self.size, start)
                start += count

    async def _thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run ``function`` in a thread to its end, for it uses descriptors of ours; a cancellation waits for it."""
        job = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
        await finish(job)
        return job.result()

    def __repr__(self) -> str:
        return f"<FileContent {self.descriptor.digest} {self._front.position}/{self.size}>"


class HeldContent:
    """Bytes in memory, verified by whoever got them. Implements asyncpull.spec.destination.Content."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    async def chunks(self, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes from ``offset`` on, in one piece, if there are any."""
        if offset < len(self._data):
            yield self._data[offset:]

    async def write_to(self, path: Path) -> None:
        """Make the file ``path``, synced. Raises StoreError; then there is no such file."""
        await _finished(_write_file, path, self._data)


@asynccontextmanager
async def fetched(
    blob: FetchingBlob, front: Front, spool_root: Path, on_read: Callable[[int], None] = lambda position: None
) -> AsyncIterator[FileContent]:
    """What is being received into a spool below ``spool_root``; ``front`` is told of its progress by the caller.

    ``write_to`` moves the file of the spool, if it can be renamed to there, and then there is no spool any more.
    """
    front.advance(blob.front)

    async def arrival() -> None:
        try:
            await blob.completed()
        except Exception as error:
            front.fail(error)
        else:
            front.advance(front.size)

    async def move(path: Path) -> bool:
        await asyncio.wait((arriving,))
        return await move_spooled(spool_root, blob.descriptor.digest, blob.fd, path)

    arriving = asyncio.ensure_future(arrival())
    try:
        async with FileContent(blob.descriptor, blob.fd, front=front, mover=move, on_read=on_read) as content:
            yield content
    finally:
        arriving.cancel()
        await finish(arriving)


@asynccontextmanager
async def lying(
    source: LocalSource, descriptor: Descriptor, on_read: Callable[[int], None] = lambda position: None
) -> AsyncIterator[FileContent]:
    """What lies in a file of ``source``. Raises NotFoundError, SizeMismatchError, SourceError."""
    async with (
        source.opened(descriptor) as file,
        FileContent(descriptor, file.fd, file.offset, on_read=on_read) as content,
    ):
        yield content


@asynccontextmanager
async def received(
    source: Source, descriptor: Descriptor, room: Path, on_read: Callable[[int], None] = lambda position: None
) -> AsyncIterator[FileContent]:
    """What ``source`` sends, in a file without a name in the directory ``room``; here when the body begins.

    Raises SourceError, SizeMismatchError, StoreError.
    """
    fd = open_scratch(room)
    try:
        async with source.open_blob(descriptor) as response:
            if response.start:
                raise UnavailableError(f"{source.name} sends blob {descriptor.digest} from byte {response.start} on")
            position = 0
            async for chunk in response.chunks:
                if position + len(chunk) > descriptor.size:
                    raise SizeMismatchError(f"blob {descriptor.digest}", descriptor.size, position + len(chunk))
                await _finished(_append, room, fd, chunk)
                position += len(chunk)
        if position != descriptor.size:
            raise SizeMismatchError(f"blob {descriptor.digest}", descriptor.size, position)
        async with FileContent(descriptor, fd, mover=linker(fd), on_read=on_read) as content:
            yield content
    finally:
        os.close(fd)


def linker(fd: int) -> Mover:
    """What gives the nameless file ``fd`` a name, where its file system can do that; it is synced before."""

    def link(path: Path) -> bool:
        with store_errors(path):
            os.fsync(fd)
            try:
                # Python asks for the link in /proc to be followed only where it is told a directory, whichever.
                os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
            except FileExistsError:
                raise
            except OSError:
                return False  # another file system, or one that cannot do it: it is copied then
            return True

    return lambda path: _finished(link, path)


def _append(path: Path, fd: int, data: bytes) -> None:
    with store_errors(path):
        write_all(fd, data)


def _write_file(path: Path, data: bytes) -> None:
    with store_errors(path):
        fd = os.open(path, _CREATE, 0o644)
    try:
        try:
            _append(path, fd, data)
            _sync(path, fd)
        finally:
            os.close(fd)
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _sync(path: Path, fd: int) -> None:
    with store_errors(path):
        os.fsync(fd)


async def _finished(function: Callable[..., T], *arguments: object) -> T:
    job = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    await finish(job)
    return job.result()
