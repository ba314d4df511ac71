"""Blobs on their way to a destination, from memory, and whatever can go wrong with them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asyncpull.errors import DigestMismatchError
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.images import Blob


def descriptor(blob: Blob, algorithm: str = "sha256") -> Descriptor:
    """What a manifest says of a blob."""
    return Descriptor(blob.media_type, Digest.of(blob.data, algorithm), len(blob.data))


class HeldContent:
    """Bytes in memory as a Content; ``reads`` counts how often they were asked for.

    After ``fails_at`` bytes comes ``error``; after ``stops_at`` bytes nothing comes any more, and ``stopped`` is set.
    """

    def __init__(
        self,
        data: bytes,
        *,
        digest: Digest | None = None,
        fails_at: int | None = None,
        error: Exception | None = None,
        stops_at: int | None = None,
        piece: int = 10_000,
    ) -> None:
        self.size, self.reads = len(data), 0
        self.stopped = asyncio.Event()
        self._data, self._digest, self._piece = data, digest or Digest.of(data), piece
        self._fails_at, self._error, self._stops_at = fails_at, error, stops_at

    async def chunks(self, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes from ``offset`` on, in small pieces."""
        self.reads += 1
        for start in range(offset, self.size, self._piece):
            await asyncio.sleep(0)
            if self._stops_at is not None and start >= self._stops_at:
                self.stopped.set()
                await asyncio.Event().wait()
            if self._error is not None and self._fails_at is not None and start >= self._fails_at:
                raise self._error
            yield self._data[start : start + self._piece]
        if self._error is not None:
            raise self._error
        actual = Digest.of(self._data, self._digest.algorithm)
        if actual != self._digest:
            raise DigestMismatchError("blob", str(self._digest), str(actual))

    async def write_to(self, path: Path) -> None:
        """The file ``path``, or none."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            async for chunk in self.chunks():
                os.write(fd, chunk)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)
