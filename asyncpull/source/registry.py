"""A repository on a registry as a source: ``docker://``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.source import BlobResponse, Fault, SourceDocument


class RegistrySource:
    """What ``reference`` names, asked for through ``client``. Implements asyncpull.spec.source.Source."""

    def __init__(self, client: RegistryClient, reference: Reference) -> None:
        self._client, self._reference = client, reference

    @property
    def name(self) -> str:
        """The reference, in full."""
        return str(self._reference)

    @property
    def registry(self) -> str:
        """The domain of the reference."""
        return self._reference.domain

    @property
    def origins(self) -> tuple[str, ...]:
        """The registry itself."""
        return (self._reference.domain,)

    def blame(self, origin: str, fault: Fault) -> None:
        """There is no other endpoint to ask."""

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The document that the reference names, or another one of its repository."""
        reference = self._reference if digest is None else self._reference.with_digest(digest)
        return await self._client.manifest(reference)

    async def digest(self) -> Digest:
        """The digest of what the reference names now."""
        return await self._client.digest(self._reference)

    async def blob_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, verified."""
        return await self._client.blob_bytes(self._reference, descriptor, limit)

    def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AbstractAsyncContextManager[BlobResponse]:
        """Part of a blob of this repository."""
        return self._client.open_blob(self._reference, descriptor, offset, end)

    def __repr__(self) -> str:
        return f"<RegistrySource {self.name}>"
