"""The blobs of one copy, moved side by side: each once, and none that the destination has.

A blob goes, by the first of these that there is:

1. nowhere: the destination has it, or can have it from another repository of the same registry
2. through memory, if it is small
3. out of the file in which it lies at a local source
4. through a spool, while it is received from a registry; a copy that ends too early is resumed from there
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncpull.copying.blobinfo import BlobInfoCache
from asyncpull.copying.content import FileContent, Front, HeldContent, fetched, linker, lying, received
from asyncpull.copying.plan import COMPRESSIONS
from asyncpull.copying.recompression import Recompressed, recompress
from asyncpull.fetch.afresh import use_fetched
from asyncpull.fetch.fetcher import NotWantedError
from asyncpull.progress import (
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchServed,
    FetchStarted,
    LayerReused,
    PutAdvanced,
    PutCompleted,
    PutStarted,
)
from asyncpull.scratch import open_scratch
from asyncpull.source.local import LocalSource
from asyncpull.source.schema1 import open_schema1
from asyncpull.spec.destination import SizingDestination
from asyncpull.spec.manifest import UNKNOWN_SIZE
from asyncpull.spec.mediatype import compression_of
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asyncpull.fetch.fetcher import Fetcher, FetchingBlob
    from asyncpull.layer.ceilings import Ceilings
    from asyncpull.layer.codec import Compression
    from asyncpull.progress import Teller
    from asyncpull.source.schema1 import Schema1Source
    from asyncpull.spec.destination import Content, Destination
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import Source, SourceDocument

# Below this a blob is not worth a file.
HELD_BYTES = 256 << 10


class Transfer:
    """Moves blobs from ``source`` to ``destination``, at most ``at_once`` at a time.

    ``fetcher`` receives what comes from registries into spools in ``room``, a directory in which files without a name
    can be made too. ``repositories`` are where a registry may have the blobs, as ``domain/path``, and ``repository`` is
    the destination, if it is at one; ``cache`` knows of more, and is told. ``bytes_copied`` counts the bytes that the
    destination was given. Layers that are compressed anew stay below ``ceilings``, those usual where none are given.
    """

    def __init__(
        self,
        source: Source,
        destination: Destination,
        fetcher: Fetcher,
        room: Path,
        tell: Teller,
        *,
        repositories: tuple[str, ...] = (),
        repository: str | None = None,
        cache: BlobInfoCache | None = None,
        at_once: int = 6,
        ceilings: Ceilings | None = None,
    ) -> None:
        self.source, self.destination, self.room, self.tell = source, destination, room, tell
        self._fetcher = fetcher
        self._repositories, self._repository = repositories, repository
        self._cache = cache or BlobInfoCache(None)
        self._slots = asyncio.Semaphore(at_once)
        self._ceilings = ceilings
        self._jobs: dict[Digest, asyncio.Future[None]] = {}
        self._made: dict[tuple[Digest, Compression], asyncio.Task[Recompressed]] = {}
        self.bytes_copied = 0

    async def convert(self, document: SourceDocument) -> Schema1Source:
        """Take the image of schema 1 that the source has as one of schema 2. Raises as ``open_schema1``."""
        self.source = converted = await open_schema1(self.source, document, self._fetcher)
        return converted

    async def bring(self, blob: Descriptor) -> None:
        """Have a blob at the destination as it is. Raises SourceError, IntegrityError, StoreError."""
        await self._once(blob.digest, lambda: self._bring(blob))

    async def remake(
        self, blob: Descriptor, to: Compression, level: int | None, diff_id: Digest | None
    ) -> Recompressed:
        """Have a layer at the destination in another compression; its tar stream is to have that ``diff_id``.

        Raises SourceError, IntegrityError, LayerError, StoreError.
        """
        key = blob.digest, to
        job = self._made.get(key)
        if job is None:
            job = self._made[key] = asyncio.ensure_future(self._remake(blob, to, level, diff_id))
        try:
            await asyncio.wait((job,))
        except asyncio.CancelledError:
            job.cancel()
            await finish(job)
            raise
        return job.result()

    @asynccontextmanager
    async def content(self, blob: Descriptor) -> AsyncIterator[FileContent]:
        """A blob of the source to be read here. Raises SourceError, IntegrityError, StoreError."""
        if isinstance(self.source, LocalSource):
            async with lying(self.source, blob) as content:
                yield content
        elif not self.source.registry:
            async with received(self.source, blob, self.room) as content:
                yield content
        else:
            front = Front(0, blob.size)
            async with (
                self._opened(blob, front, None, afresh=False, is_for_reading=True) as fetching,
                fetched(fetching, front, self.room) as content,
            ):
                yield content

    async def _once(self, digest: Digest, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work`` for a blob unless that is done, or being done; who comes second fails with the first."""
        job = self._jobs.get(digest)
        if job is not None:
            await asyncio.wait((job,))
            job.result()
            return
        job = self._jobs[digest] = asyncio.get_running_loop().create_future()
        try:
            async with self._slots:
                await work()
        except BaseException:
            del self._jobs[digest]
            job.cancel()
            raise
        job.set_result(None)

    async def _bring(self, blob: Descriptor) -> None:
        if await self._is_there(blob):
            self.tell(LayerReused, digest=str(blob.digest), size=blob.size)
            return
        if blob.size <= HELD_BYTES:
            held = HeldContent(await self.source.blob_bytes(blob, HELD_BYTES))
            await self._put(blob, held)
        elif isinstance(self.source, LocalSource):
            async with lying(
                self.source, blob, self.tell.position(PutAdvanced, str(blob.digest), blob.size)
            ) as content:
                await self._put(blob, content)
        elif not self.source.registry:
            async with received(
                self.source, blob, self.room, self.tell.position(PutAdvanced, str(blob.digest), blob.size)
            ) as content:
                await self._put(blob, content)
        else:
            await self._fetch(blob)

    async def _is_there(self, blob: Descriptor) -> bool:
        if not await self.destination.has_blob(blob):
            repositories = self._repositories
            if self._repository is not None:
                repositories += await self._cache.locations(blob.digest, self._repository.partition("/")[0])
            if not repositories or not await self.destination.mount_blob(blob, repositories):
                return False
        self._remember(blob)
        return True

    def _remember(self, blob: Descriptor) -> None:
        """Take note that the destination has a blob."""
        if self._repository is not None:
            self._cache.record_location(blob.digest, self._repository)

    async def _remake(
        self, blob: Descriptor, to: Compression, level: int | None, diff_id: Digest | None
    ) -> Recompressed:
        if level is None and diff_id is not None:
            found = await self._made_before(blob, to, diff_id)
            if found is not None:
                return found
        subject = f"layer {blob.digest}"
        fd = open_scratch(self.room)
        try:
            async with self._slots:
                async with self.content(blob) as content, aclosing(content.chunks()) as chunks:
                    made = await recompress(
                        chunks,
                        fd,
                        self.room,
                        to,
                        level,
                        subject=subject,
                        diff_id=diff_id,
                        algorithm=blob.digest.algorithm,
                        ceilings=self._ceilings,
                    )
                new = replace(blob, digest=made.digest, size=made.size)
                mover = linker(fd)
                async with FileContent(
                    new,
                    fd,
                    mover=mover,
                    is_verified=True,
                    on_read=self.tell.position(PutAdvanced, str(new.digest), new.size),
                ) as content:
                    self._cache.record_contents(blob.digest, made.diff_id, made.before)
                    self._cache.record_contents(made.digest, made.diff_id, made.after)
                    if await self._is_there(new):
                        self.tell(LayerReused, digest=str(new.digest), size=new.size)
                    else:
                        await self._put(new, content)
        finally:
            os.close(fd)
        if self.source.registry:
            await self._fetcher.discard(blob.digest)
        return made

    async def _made_before(self, blob: Descriptor, to: Compression, diff_id: Digest) -> Recompressed | None:
        """The layer in that compression, if the cache knows one, and the registry has it."""
        place = self.destination
        if self._repository is None or not isinstance(place, SizingDestination):
            return None
        if await self._cache.diff_id(blob.digest) != diff_id:
            return None
        for each in await self._cache.candidates(blob.digest, self._repository.partition("/")[0]):
            if each.compression is not to or each.digest == blob.digest:
                continue
            size = await place.blob_size(each.digest)
            if size is None and each.repository is not None:
                wanted = replace(blob, digest=each.digest, size=UNKNOWN_SIZE)
                if await place.mount_blob(wanted, (each.repository,)):
                    size = await place.blob_size(each.digest)
            if size is not None:
                self.tell(LayerReused, digest=str(each.digest), size=size)
                self._cache.record_location(each.digest, self._repository)
                before = COMPRESSIONS[compression_of(blob.media_type) or "none"]
                return Recompressed(each.digest, size, diff_id, before, to)
        return None

    async def _put(self, blob: Descriptor, content: Content, *, is_fetched: bool = False) -> None:
        self.tell(PutStarted, digest=str(blob.digest), size=blob.size)
        await self.destination.put_blob(blob, content)
        if is_fetched:
            self.tell(FetchCompleted, digest=str(blob.digest), size=blob.size)
        self.bytes_copied += blob.size
        self._remember(blob)
        self.tell(PutCompleted, digest=str(blob.digest), size=blob.size)

    async def _fetch(self, blob: Descriptor) -> None:
        """Put a blob while it is received; where its digest is wrong, again from one endpoint alone."""
        front = Front(0, blob.size)

        def opening(origin: str | None, afresh: bool) -> AbstractAsyncContextManager[FetchingBlob]:
            nonlocal front
            front = Front(0, blob.size)
            return self._opened(blob, front, origin, afresh=afresh)

        async def use(fetching: FetchingBlob) -> None:
            self.tell(FetchStarted, digest=str(blob.digest), size=blob.size, position=fetching.front)
            async with fetched(
                fetching, front, self.room, self.tell.position(PutAdvanced, str(blob.digest), blob.size)
            ) as content:
                await self._put(blob, content, is_fetched=True)

        try:
            await use_fetched(self._fetcher, blob, self.source, opening, use)
        except NotWantedError:  # another process has brought it while this waited for its turn
            self.tell(LayerReused, digest=str(blob.digest), size=blob.size)
        else:
            await self._fetcher.discard(blob.digest)

    def _opened(
        self, blob: Descriptor, front: Front, origin: str | None, *, afresh: bool, is_for_reading: bool = False
    ) -> AbstractAsyncContextManager[FetchingBlob]:
        """Have a blob of a registry received, unless the destination has it by the time; to be read here, anyway."""
        digest = str(blob.digest)

        async def is_missing() -> bool:
            return not await self.destination.has_blob(blob)

        return self._fetcher.open(
            blob,
            self.source,
            on_front=self.tell.position(FetchAdvanced, str(blob.digest), blob.size, front.advance),
            on_retry=lambda reason, delay: self.tell(FetchRetried, digest=digest, reason=reason, delay=delay),
            on_origin=lambda origin: self.tell(FetchServed, digest=digest, origin=origin),
            still_wanted=None if is_for_reading else is_missing,
            afresh=afresh,
            origin=origin,
        )
