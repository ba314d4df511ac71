"""A repository on a registry as a destination: ``docker://``, by the registry itself and never by a mirror.

What a registry has got by its digest is there for whoever knows that digest; what a name stands for changes in one
request, the last one. A copy that ends before leaves blobs and manifests that the registry collects some day, or that
the next copy finds there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import DigestMismatchError, NotFoundError, UsageError
from asyncpull.spec.destination import Abilities

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from asyncpull.registry.client import RegistryClient
    from asyncpull.registry.repository import Repository
    from asyncpull.spec.destination import Content
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.source import SourceDocument


class RegistryDestination:
    """What ``reference`` names, and ``names`` of the same repository besides, written through ``client``.

    Implements SizingDestination and NamedDestination of asyncpull.spec.destination. Raises UsageError for names of
    other repositories; entering it raises ConfigurationError and PolicyError.
    """

    def __init__(self, client: RegistryClient, reference: Reference, names: Sequence[Reference] = ()) -> None:
        for name in names:
            if name.name != reference.name or name.digest is not None:
                raise UsageError(f"{name} is no tag of {reference.name}, to which the copy goes")
        self._client, self._reference = client, reference
        self._tags = tuple(dict.fromkeys(each.tag for each in (reference, *names) if each.tag is not None))
        self._opened: Repository | None = None

    async def __aenter__(self) -> Self:
        self._opened = await self._client.repository(self._reference)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._repository.aclose()

    @property
    def name(self) -> str:
        """The reference, in full."""
        return str(self._reference)

    @property
    def abilities(self) -> Abilities:
        """All of them: what a registry does not take, it says when it is given that."""
        return Abilities(lists_referrers=True, wants_compressed_layers=True)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the repository has the blob. Raises SourceError, SizeMismatchError."""
        return await self._repository.has_blob(descriptor)

    async def blob_size(self, digest: Digest) -> int | None:
        """How many bytes a blob has that the repository has; None if it is not known. Raises SourceError."""
        return await self._repository.blob_size(digest)

    async def digest(self) -> Digest | None:
        """The digest of what the name stands for now; None where it is free. Raises SourceError, DocumentError."""
        endpoint = (await self._client.registries()).home(self._reference)
        try:
            return await self._client.digest(endpoint, self._tags[0] if self._tags else self._reference.digest or "")
        except NotFoundError:
            return None

    async def mount_blob(self, descriptor: Descriptor, repositories: Sequence[str]) -> bool:
        """Have the blob from one of ``repositories`` that are at the same registry; whether that could be done."""
        domain = self._reference.domain
        for name in dict.fromkeys(repositories):
            at, _, path = name.partition("/")
            if at == domain and path != self._reference.path and await self._repository.mount_blob(descriptor, path):
                return True
        return False

    async def put_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Upload a blob, whether it is there or not. Raises what the content raises, SourceError, IntegrityError."""
        await self._repository.put_blob(descriptor, content)

    async def put_manifest(self, document: SourceDocument) -> None:
        """Add a document by its digest alone. Raises SourceError, DigestMismatchError, DocumentError."""
        await self._repository.put_manifest(document.digest, document)

    async def commit(self, document: SourceDocument) -> Digest:
        """Let the tags stand for ``document``, or have it by its digest where there is none; gives that.

        Raises DigestMismatchError where the reference asks for another digest, and what ``put_manifest`` raises.
        """
        wanted = self._reference.digest
        if wanted is not None and wanted != document.digest:
            raise DigestMismatchError(f"what is copied to {self.name}", str(wanted), str(document.digest))
        for tag in self._tags:
            await self._repository.put_manifest(tag, document)
        if not self._tags:
            await self._repository.put_manifest(document.digest, document)
        return document.digest

    @property
    def _repository(self) -> Repository:
        if self._opened is None:
            raise RuntimeError("RegistryDestination is used outside of its async with")
        return self._opened

    def __repr__(self) -> str:
        return f"<RegistryDestination {self.name}>"
