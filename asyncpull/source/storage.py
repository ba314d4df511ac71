"""``containers-storage:``: an image of a store, whose layers are rebuilt.

The store keeps manifests and configs as they came, but of a layer its tree and what is needed to make its archive
again, bit for bit: plain, for how it was compressed nobody knows. So the blobs that the manifest lists are not to be
had, and ``layers`` says what there is instead, as LayerInfosForCopy of containers/image does.

A layer is verified while it is rebuilt. No lock is held meanwhile; an image that is removed by somebody else makes the
copy fail.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from asyncpull.errors import DocumentError, DocumentTooLargeError, NotFoundError, NotInStoreError, SizeMismatchError
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest, verify_bytes
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.source import BlobResponse, SourceDocument
from asyncpull.store.sizes import layers_of
from asyncpull.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpull.spec.location import StorageLocation
    from asyncpull.spec.manifest import Manifest
    from asyncpull.spec.source import Fault
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.views import ImageRecord, LayerRecord


@asynccontextmanager
async def open_storage(location: StorageLocation, config: StoreConfig) -> AsyncIterator[StorageSource]:
    """The image that ``location`` names in the store of ``config``. Raises NotInStoreError, StoreError."""
    async with Store.open(config) as store:
        yield StorageSource(location, store, await store.image(location.name.removeprefix("@")))


class StorageSource:
    """An image of an open store. Implements asyncpull.spec.source.RebuildingSource."""

    registry = ""
    origins: tuple[str, ...] = ()

    def __init__(self, location: StorageLocation, store: Store, image: ImageRecord) -> None:
        self._location, self._store, self.image = location, store, image

    @property
    def store(self) -> Store:
        """The store that the image is in."""
        return self._store

    @property
    def name(self) -> str:
        """The location."""
        return str(self._location)

    def blame(self, origin: str, fault: Fault) -> None:
        """Nothing: there is nobody else to be asked."""

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The manifest of the image, also where it came through an index, which is given by its digest only."""
        if digest is None:
            raw = await self._store.big_data(self.image, "manifest")
            return SourceDocument(raw, None, Digest.of(raw))
        for key in (f"manifest-{digest}", "manifest"):
            if self.image.big_data_digests.get(key) == str(digest):
                raw = await self._store.big_data(self.image, key)
                verify_bytes(f"{self.name}: {key}", raw, digest)
                return SourceDocument(raw, None, digest)
        raise NotFoundError(f"{self.name} has no manifest {digest}")

    async def digest(self) -> Digest:
        """The digest of its manifest."""
        return (await self.manifest()).digest

    async def blob_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """The config, or a small layer."""
        what = f"{self.name}: blob {descriptor.digest}"
        if descriptor.size > limit:
            raise DocumentTooLargeError(f"{what} has {descriptor.size} bytes, the limit is {limit}")
        if str(descriptor.digest) in self.image.big_data_names:
            raw = await self._store.big_data(self.image, str(descriptor.digest))
        else:
            async with self.open_blob(descriptor) as response:
                raw = b"".join([chunk async for chunk in response.chunks])
        if len(raw) != descriptor.size:
            raise SizeMismatchError(what, descriptor.size, len(raw))
        verify_bytes(what, raw, descriptor.digest)
        return raw

    @asynccontextmanager
    async def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AsyncIterator[BlobResponse]:
        """A layer as ``layers`` names it, from its beginning.

        Raises NotFoundError for one that the manifest lists and the store has only in another form; StoreError,
        IntegrityError while the chunks are read.
        """
        if origin is not None:
            raise ValueError(f"{self.name} has no endpoints")
        layer = next((each for each in await self._chain() if each.diff_digest == str(descriptor.digest)), None)
        if layer is None:
            raise NotFoundError(
                f"{self.name} has no blob {descriptor.digest}", "a store has layers only as they are uncompressed"
            )
        async with aclosing(self._store.export(layer)) as stream:
            yield BlobResponse(0, layer.diff_size, layer.diff_size, stream)

    async def layers(self, manifest: Manifest) -> tuple[Descriptor, ...]:
        """The layers of the image, plain. Raises DocumentError where they are not as many as in ``manifest``."""
        chain = await self._chain()
        if len(chain) != len(manifest.layers):
            raise DocumentError(f"{self.name} has {len(chain)} layers, and its manifest lists {len(manifest.layers)}")
        plain = mediatype.DOCKER_LAYER if manifest.media_type == mediatype.DOCKER_MANIFEST else mediatype.OCI_LAYER
        return tuple(Descriptor(plain, Digest.parse(layer.diff_digest), layer.diff_size) for layer in chain)

    async def _chain(self) -> list[LayerRecord]:
        """The layers of the image, the base layer first. Raises NotInStoreError if one is gone."""
        snapshot = await self._store.snapshot()
        chain = layers_of(self.image.layer, snapshot.layers)[::-1]
        if self.image.layer is not None and (not chain or chain[0].parent is not None):
            raise NotInStoreError(f"image {self.image.id} has lost layers", "asyncpull check tells more")
        return chain

    def __repr__(self) -> str:
        return f"<StorageSource {self.name}>"
