"""Compressing a layer: the tar stream in, a blob out that everybody can read.

- gzip is made of blocks of 1 MiB, compressed side by side on several cores; each knows the 32 KiB before it, so next to
  nothing is lost, and together they are one ordinary member. Without a level ISA-L compresses, several times as fast as
  zlib and as well as its level 1; a level is zlib's.
- zstd leaves the cores to its library. Every frame has a checksum.

The bytes do not depend on how they were fed nor on how many cores there are, so the same layer gets the same digest
again, with the same versions of the libraries.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol, Self

import zstandard
from isal import isal_zlib

from asyncpull.errors import UsageError
from asyncpull.layer.codec import Compression

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

__all__ = ["Encoder", "require_level"]

_BLOCK: Final = 1 << 20
_DICTIONARY: Final = 32 << 10
_ISAL_LEVEL: Final = 2
_ZSTD_LEVEL: Final = 3
# Magic, method, no flags, no time, no hint how it was made, no operating system (RFC 1952, section 2.3).
_GZIP_HEAD: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_THREADS_LIMIT: Final = 8

_LEVELS: Final = {Compression.GZIP: range(10), Compression.ZSTD: range(1, 23)}


def require_level(compression: Compression, level: int | None) -> None:
    """Raise UsageError unless layers can be given this compression at this level."""
    if compression is Compression.NONE:
        if level is not None:
            raise UsageError("what is not compressed has no level of compression")
        return
    levels = _LEVELS.get(compression)
    if levels is None:
        raise UsageError(f"layers are not compressed by {compression.name.lower()}", "choose gzip or zstd")
    if level is not None and level not in levels:
        name = compression.name.lower()
        raise UsageError(f"{name} has no level {level}", f"its levels are {levels.start} to {levels.stop - 1}")


class Encoder:
    """Turns a tar stream into a blob of one ``compression``; a context manager, which ends its threads.

    Obligations: exhaust what feed() returns before the next feed(), and what close() returns at the end. ``level`` is
    that of gzip (0 to 9) or zstd (1 to 22), None what is quick. The interpreter lock is free while it compresses.
    Raises UsageError.
    """

    def __init__(self, compression: Compression, level: int | None = None, *, threads: int | None = None) -> None:
        require_level(compression, level)
        threads = min(threads or os.cpu_count() or 1, _THREADS_LIMIT)
        self.compression = compression
        self._part: _Part
        if compression is Compression.GZIP:
            self._part = _Gzip(level, threads)
        elif compression is Compression.ZSTD:
            self._part = _Zstd(level, threads)
        else:
            self._part = _Plain()

    def stop(self) -> None:
        """End the threads, when they have done what they are at; it may be called several times."""
        self._part.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what there is of the blob."""
        return self._part.feed(data)

    def close(self) -> Iterator[bytes]:
        """Yield the rest of the blob."""
        return self._part.close()


class _Part(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def close(self) -> Iterator[bytes]: ...

    def stop(self) -> None: ...


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def close(self) -> Iterator[bytes]:
        yield from ()

    def stop(self) -> None:
        pass


class _Zstd:
    def __init__(self, level: int | None, threads: int) -> None:
        # The library cuts its jobs by level alone; with at least one thread, how many there are changes no byte.
        self._frame = zstandard.ZstdCompressor(
            level=_ZSTD_LEVEL if level is None else level, threads=threads, write_checksum=True
        ).compressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        done = self._frame.compress(data)
        if done:
            yield done

    def close(self) -> Iterator[bytes]:
        yield self._frame.flush()

    def stop(self) -> None:
        pass


class _Gzip:
    def __init__(self, level: int | None, threads: int) -> None:
        self._level = level
        self._backlog = threads + 1
        self._pool = ThreadPoolExecutor(threads, "gzip")
        self._blocks: deque[Future[bytes]] = deque()
        self._head = _GZIP_HEAD
        self._pending = bytearray()
        self._dictionary = b""
        self._crc = 0
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._pending += data
        # The last block is marked as such, so one is kept back until it is known whether more comes.
        while len(self._pending) > _BLOCK:
            block = bytes(self._pending[:_BLOCK])
            del self._pending[:_BLOCK]
            yield from self._add(block, is_last=False)

    def close(self) -> Iterator[bytes]:
        yield from self._add(bytes(self._pending), is_last=True)
        while self._blocks:
            yield self._blocks.popleft().result()
        yield self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _add(self, block: bytes, *, is_last: bool) -> Iterator[bytes]:
        self._blocks.append(self._pool.submit(_deflate, block, self._dictionary, self._level, is_last))
        self._dictionary = block[-_DICTIONARY:]
        self._crc = isal_zlib.crc32(block, self._crc)
        self._size += len(block)
        if self._head:
            yield self._head
            self._head = b""
        while len(self._blocks) > self._backlog:
            yield self._blocks.popleft().result()


def _deflate(block: bytes, dictionary: bytes, level: int | None, is_last: bool) -> bytes:
    """One block as part of a deflate stream; it ends at a whole byte."""
    if level is None:
        quick = isal_zlib.compressobj(_ISAL_LEVEL, wbits=-15, zdict=dictionary)
        return quick.compress(block) + quick.flush(isal_zlib.Z_FINISH if is_last else isal_zlib.Z_SYNC_FLUSH)
    slow = zlib.compressobj(level, wbits=-15, zdict=dictionary)
    return slow.compress(block) + slow.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)
