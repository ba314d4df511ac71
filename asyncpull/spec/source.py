"""Where the bytes of one repository come from: the protocol that every transport implements.

A source is bound to what a reference names (a repository on a registry, a directory of an image layout …). Documents
come whole and verified; blobs come as streams of ranges, unverified, because their reader hashes them anyway.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor, Manifest


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A manifest or an index as it was transferred; ``media_type`` is what the source said, which may be nothing.

    ``is_made`` tells that the source has just made it, of what it has instead: nobody knows the image by that digest.
    """

    raw: bytes = field(repr=False)
    media_type: str | None
    digest: Digest
    is_made: bool = False


@dataclass(frozen=True, slots=True)
class BlobResponse:
    """Part of a blob, from byte ``start`` on, as a source sends it.

    ``start`` is at or before the offset that was asked for: a source that cannot send ranges sends everything.
    ``end`` is where the source said it will stop (exclusive) and ``total`` the size that it gives the whole blob;
    None where it did not say. ``chunks`` may yield fewer bytes than promised only if it raises a SourceError, and it
    may yield more: whoever reads it counts. ``origin`` names the endpoint that sends it.
    """

    start: int
    end: int | None
    total: int | None
    chunks: AsyncIterator[bytes]
    origin: str = ""


class Fault(Enum):
    """What an endpoint did wrong while it sent a blob."""

    BROKEN = "broken"  # the connection was lost, or the body ended too early
    STALLED = "stalled"  # nothing came, or next to nothing
    CORRUPT = "corrupt"  # other bytes than those of the blob


class Source(Protocol):
    """One repository, image layout or store, at one or several endpoints.

    An endpoint that fails to give what it should is left alone for a while, and another one is asked. What goes wrong
    before a response is there the source sees itself; of what comes after that it is told by ``blame``.
    """

    @property
    def name(self) -> str:
        """What messages call this source; never holds a secret."""

    @property
    def registry(self) -> str:
        """What limits per registry count by, such as ``docker.io``."""

    @property
    def origins(self) -> tuple[str, ...]:
        """The names of the endpoints that may serve blobs, the preferred one first, whatever they did so far."""

    def blame(self, origin: str, fault: Fault) -> None:
        """Take note that the endpoint called ``origin`` was at ``fault``."""

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The document that the reference names, or that with ``digest``; verified where a digest is known.

        Raises SourceError, IntegrityError, and DocumentTooLargeError.
        """

    async def digest(self) -> Digest:
        """The digest of the document that the reference names, without its bytes where the source can do that."""

    async def blob_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, whole, its size and digest verified.

        Raises SourceError, IntegrityError, and DocumentTooLargeError where it is larger than ``limit`` bytes.
        """

    def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AbstractAsyncContextManager[BlobResponse]:
        """Ask for the bytes from ``offset`` to ``end`` (exclusive; None is the end of the blob).

        Only the endpoint called ``origin`` is asked where that is given; else the best, and after it the others.
        Raises SourceError, also while the chunks are read.
        """


@runtime_checkable
class RebuildingSource(Source, Protocol):
    """A source that no longer has the blobs that its manifests list, but the same layers in another form."""

    async def layers(self, manifest: Manifest) -> tuple[Descriptor, ...]:
        """What it has for each layer of ``manifest``, in order, to be asked for instead. Raises DocumentError."""


@runtime_checkable
class ReferredSource(Source, Protocol):
    """A source that knows which manifests say that they are about another one."""

    async def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """The manifests that are about that with the digest ``subject``. Raises SourceError, DocumentError."""
