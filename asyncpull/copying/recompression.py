"""A layer in another compression: the bytes of a blob in, a file with the new blob out, and what both of them are.

Three threads work on three pieces at the same time: one inflates, one hashes the tar stream, one compresses, hashes
and writes. No more than that is in memory, whatever the blob becomes.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import DiffIDMismatchError, LayerError
from asyncpull.journal import store_errors
from asyncpull.layer.codec import Compression, Inflater
from asyncpull.layer.encoder import Encoder
from asyncpull.scratch import write_all
from asyncpull.spec.digest import Digest
from asyncpull.waiting import finish, run_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from asyncpull.layer.ceilings import Ceilings

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recompressed:
    """A layer that was compressed anew: its new digest and size in bytes, its diff ID, and what it had been."""

    digest: Digest
    size: int
    diff_id: Digest
    before: Compression
    after: Compression


async def recompress(
    chunks: AsyncIterator[bytes],
    fd: int,
    path: Path,
    compression: Compression,
    level: int | None = None,
    *,
    subject: str = "layer",
    diff_id: Digest | None = None,
    algorithm: str = "sha256",
    ceilings: Ceilings | None = None,
) -> Recompressed:
    """Read a blob from ``chunks`` and write it to the open, empty file ``fd`` in another ``compression``.

    NONE writes the tar stream. ``diff_id`` is what the tar stream has to be; ``algorithm`` that of the digest made.
    The usual ``ceilings`` bound what it becomes, where there are no others.
    ``path`` and ``subject`` name the file and the layer in messages. The file is not synced. After an error, which
    leaves anything at all in it, and after a cancellation nothing uses the file any more.

    Raises UsageError for a level that is none, what ``chunks`` raises, LayerError, DiffIDMismatchError,
    StoreWriteError, NoSpaceError.
    """
    encoder = Encoder(compression, level)
    try:
        writer = _Writer(encoder, fd, path, algorithm)
        inflater = Inflater(ceilings)
        hasher = diff_id.hasher() if diff_id else Digest.of(b"").hasher()
        async with aclosing(_inflated(chunks, inflater)) as pieces:
            upcoming = asyncio.ensure_future(_next(pieces))
            try:
                while (piece := await upcoming) is not None:
                    upcoming = asyncio.ensure_future(_next(pieces))
                    await run_all((_in_thread(hasher.update, piece), _in_thread(writer.write, piece)))
            finally:
                upcoming.cancel()
                await finish(asyncio.gather(upcoming, return_exceptions=True))
        await _in_thread(writer.close)
    finally:
        await _in_thread(encoder.stop)
    actual = Digest(diff_id.algorithm if diff_id else "sha256", hasher.hexdigest())
    if diff_id is not None and actual != diff_id:
        raise DiffIDMismatchError(subject, str(diff_id), str(actual))
    return Recompressed(writer.digest, writer.size, actual, inflater.compression, compression)


class _Writer:
    """Compresses pieces of a tar stream into a file, and hashes what it writes."""

    def __init__(self, encoder: Encoder, fd: int, path: Path, algorithm: str) -> None:
        self._encoder, self._fd, self._path = encoder, fd, path
        self._algorithm = algorithm
        self._hasher = Digest.of(b"", algorithm).hasher()
        self.size = 0

    @property
    def digest(self) -> Digest:
        return Digest(self._algorithm, self._hasher.hexdigest())

    def write(self, piece: bytes) -> None:
        for part in self._encoder.feed(piece):
            self._write(part)

    def close(self) -> None:
        for part in self._encoder.close():
            self._write(part)

    def _write(self, part: bytes) -> None:
        self._hasher.update(part)
        self.size += len(part)
        with store_errors(self._path):
            write_all(self._fd, part)


async def _inflated(chunks: AsyncIterator[bytes], inflater: Inflater) -> AsyncGenerator[bytes, None]:
    """The tar stream in pieces. That it is damaged counts only if the blob, read to its end, is the right one."""
    try:
        async for chunk in chunks:
            pieces = inflater.feed(chunk)
            while (piece := await _in_thread(next, pieces, None)) is not None:
                yield piece
        inflater.close()
    except LayerError:
        async for _ in chunks:
            pass
        raise


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(pieces, None)


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work`` in a thread, which is not left behind where this is cancelled."""
    job = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    await finish(job)
    return job.result()
