"""An image of Docker's schema 1 as a source of the same image in schema 2.

Schema 1 says neither how large its blobs are nor what is in them, and an image cannot be planned without. So each blob
that is not known already is fetched and read first. A small one is held, a large one stays in the spool, where the pull
or copy then finds it whole; what lies on this machine is read twice.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncpull.errors import DigestMismatchError, DocumentTooLargeError, LayerError
from asyncpull.layer.codec import Inflater
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import UNKNOWN_SIZE, Descriptor, Index
from asyncpull.spec.schema1 import LayerFacts, convert_schema1, parse_schema1
from asyncpull.spec.source import BlobResponse, SourceDocument
from asyncpull.waiting import finish, run_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from asyncpull.fetch.fetcher import Fetcher
    from asyncpull.spec.source import Fault, Source

_READ = 1 << 20
_HELD_BYTES = 256 << 10


class Schema1Source:
    """The image of ``original``, which names ``source``'s, converted: implements asyncpull.spec.source.Source.

    Made by ``open_schema1``. Blobs come from ``source`` as they are, but for the config and others that are ``held``.
    """

    def __init__(
        self, source: Source, original: SourceDocument, manifest: SourceDocument, held: Mapping[Digest, bytes]
    ) -> None:
        self._source, self._manifest, self._held = source, manifest, held
        self.original = original

    @property
    def index(self) -> Index:
        """The original, as what the converted manifest was selected from: so a store keeps it, and knows its digest."""
        made = Descriptor(mediatype.DOCKER_MANIFEST, self._manifest.digest, len(self._manifest.raw))
        kind = self.original.media_type or mediatype.DOCKER_SCHEMA1_SIGNED
        return Index(self.original.raw, kind, self.original.digest, (made,))

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self._source.name

    @property
    def registry(self) -> str:
        """What limits per registry count by."""
        return self._source.registry

    @property
    def origins(self) -> tuple[str, ...]:
        """The endpoints of the source."""
        return self._source.origins

    def blame(self, origin: str, fault: Fault) -> None:
        """Tell the source."""
        self._source.blame(origin, fault)

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The converted manifest; by digest also whatever else the source has, the original included."""
        if digest in (None, self._manifest.digest):
            return self._manifest
        return await self._source.manifest(digest)

    async def digest(self) -> Digest:
        """The digest of what the reference names now: that of the original."""
        return await self._source.digest()

    async def blob_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """What is held, or a small blob of the source."""
        blob = self._held.get(descriptor.digest)
        if blob is None:
            return await self._source.blob_bytes(descriptor, limit)
        if len(blob) > limit:
            raise DocumentTooLargeError(f"blob {descriptor.digest} has {len(blob)} bytes, the limit is {limit}")
        return blob

    @asynccontextmanager
    async def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AsyncIterator[BlobResponse]:
        """What is held, or a blob of the source."""
        blob = self._held.get(descriptor.digest)
        if blob is not None and origin is None:
            part = blob[offset:end]
            yield BlobResponse(offset, offset + len(part), len(blob), _once(part))
            return
        async with self._source.open_blob(descriptor, offset, end, origin=origin) as response:
            yield response

    def __repr__(self) -> str:
        return f"<Schema1Source {self.name}>"


async def open_schema1(
    source: Source, original: SourceDocument, fetcher: Fetcher, known: Mapping[Digest, LayerFacts] | None = None
) -> Schema1Source:
    """Convert the manifest ``original`` that ``source`` gave. Its layers are fetched now, but for those ``known``.

    ``known`` has to be verified: what a store says of the blobs that its layers were made from. Raises DocumentError,
    SourceError, IntegrityError, LayerError, StoreError.
    """
    manifest = parse_schema1(original.raw, original.media_type)
    facts, held = dict(known or {}), dict[Digest, bytes]()
    missing = [blob for blob in dict.fromkeys(manifest.blobs) if blob not in facts]
    facts |= zip(missing, await run_all(_facts(source, blob, fetcher, held) for blob in missing), strict=True)
    converted = convert_schema1(manifest, facts)
    held[Digest.of(converted.config)] = converted.config
    document = SourceDocument(converted.manifest, mediatype.DOCKER_MANIFEST, Digest.of(converted.manifest))
    return Schema1Source(source, original, document, held)


async def _facts(source: Source, digest: Digest, fetcher: Fetcher, held: dict[Digest, bytes]) -> LayerFacts:
    """Fetch a blob and read it; into ``held`` if it is small."""
    size = await _size(source, digest)
    descriptor = Descriptor(mediatype.DOCKER_LAYER_GZIP, digest, size)
    contents = _Contents(descriptor)
    if size <= _HELD_BYTES:
        held[digest] = await source.blob_bytes(descriptor, _HELD_BYTES)
        await asyncio.to_thread(contents.feed, held[digest])
        return LayerFacts(size, contents.diff_id())
    if not source.registry:
        async with source.open_blob(descriptor) as response:
            async for chunk in response.chunks:
                await asyncio.to_thread(contents.feed, chunk)
        return LayerFacts(size, contents.diff_id())
    try:
        async with fetcher.open(descriptor, source) as blob:
            await blob.completed()
            reading = asyncio.ensure_future(asyncio.to_thread(_read, blob.fd, size, contents))
            await finish(reading)  # the descriptor is good until then
            reading.result()
            return LayerFacts(size, contents.diff_id())
    except DigestMismatchError:
        await fetcher.discard(digest)
        raise


async def _size(source: Source, digest: Digest) -> int:
    """How many bytes a blob has; it is read to its end only if the source does not say."""
    asked = Descriptor(mediatype.DOCKER_LAYER_GZIP, digest, UNKNOWN_SIZE)
    async with source.open_blob(asked, 0, 1) as response:
        if response.total is not None:
            return response.total
    async with source.open_blob(asked) as response:
        return sum([len(chunk) async for chunk in response.chunks])


class _Contents:
    """What is in a blob, read from its beginning to its end."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._digest = descriptor.digest
        self._blob, self._tar = self._digest.hasher(), Digest.of(b"").hasher()
        self._inflater = Inflater()
        self._failure: LayerError | None = None

    def feed(self, piece: bytes) -> None:
        """The next piece. Blocks, raises nothing: an error counts only if these are the right bytes."""
        self._blob.update(piece)
        try:
            for part in self._inflater.feed(piece) if self._failure is None else ():
                self._tar.update(part)
        except LayerError as error:
            self._failure = error

    def diff_id(self) -> Digest:
        """The digest of the tar stream. Raises DigestMismatchError, MalformedLayerError."""
        actual = Digest(self._digest.algorithm, self._blob.hexdigest())
        if actual != self._digest:
            raise DigestMismatchError(f"blob {self._digest}", str(self._digest), str(actual))
        if self._failure is not None:
            raise self._failure
        self._inflater.close()
        return Digest("sha256", self._tar.hexdigest())


def _read(fd: int, size: int, contents: _Contents) -> None:
    """Read a blob from a file. Blocks."""
    position = 0
    while piece := os.pread(fd, min(_READ, size - position), position):
        position += len(piece)
        contents.feed(piece)


async def _once(part: bytes) -> AsyncIterator[bytes]:
    yield part
