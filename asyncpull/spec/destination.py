"""Where a copy of an image goes: the protocol that every transport implements that can be written to.

A destination takes one image, or an index with the manifests that it lists. First come the blobs, in any order and
several at a time, then the manifests that an index lists, then the document that gets the name. Until that ``commit``
has returned a reader finds what was there before; after it, the whole image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import SourceDocument


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a destination can hold.

    ``media_types`` are those of the manifests that it takes, the most wanted first; empty where it takes all.
    ``lists_referrers`` tells whether it lists manifests under what they say they are about, ``holds_indexes`` that it
    takes several manifests under one name, ``holds_artifacts`` that it takes what is not an image,
    ``wants_plain_layers`` that layers are to come uncompressed, ``wants_compressed_layers`` that those are to be
    compressed which a source keeps plain whatever they were, and ``spool_root`` where a blob is best received, because
    a file there becomes part of the destination without being copied.
    """

    media_types: tuple[str, ...] = ()
    lists_referrers: bool = False
    holds_indexes: bool = True
    holds_artifacts: bool = True
    wants_plain_layers: bool = False
    wants_compressed_layers: bool = False
    spool_root: Path | None = None


class Content(Protocol):
    """The bytes of a blob, which may still be arriving; they can be read several times, and from anywhere.

    They are verified: whoever has read from byte zero to the end without an error has what the descriptor says.
    """

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def chunks(self, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes from ``offset`` on. Close it (``aclosing``) where it is left early.

        Raises what the source raises, SourceError, StoreError, and IntegrityError at the end, before which nothing
        may be taken for good.
        """

    async def write_to(self, path: Path) -> None:
        """Make the file ``path``, which is not there yet: verified, synced, and moved there where that can be done.

        After an error there is no such file. Raises what ``chunks`` raises, and StoreWriteError.
        """


class Destination(Protocol):
    """One name in a registry, one image in a layout, a directory, an archive or a daemon; an async context manager.

    Left without a commit, nothing of it is seen: what was written is removed, or kept where the next copy goes on
    from it and nobody takes it for whole.
    """

    @property
    def name(self) -> str:
        """What messages call this destination; never holds a secret."""

    @property
    def abilities(self) -> Abilities:
        """What it can hold."""

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it has that blob already, whole. Raises SourceError, StoreError."""

    async def mount_blob(self, descriptor: Descriptor, repositories: Sequence[str]) -> bool:
        """Have the blob from one of other ``repositories`` (as ``domain/path``) without moving it; whether it could.

        Only registries can. Raises SourceError for what will not get better by sending the blob instead.
        """

    async def put_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Add a blob, verified. Raises what ``content`` raises, SourceError, StoreError."""

    async def put_manifest(self, document: SourceDocument) -> None:
        """Add a document that an index lists, or that refers to another one, by its digest alone."""

    async def commit(self, document: SourceDocument) -> Digest:
        """Let the name stand for ``document``, all whose parts are here; gives the digest that it has there.

        Raises SourceError, StoreError; then the name stands for what it stood for before.
        """


@runtime_checkable
class NamedDestination(Destination, Protocol):
    """A destination that can be asked what its name stands for before anything is copied."""

    async def digest(self) -> Digest | None:
        """The digest of the document that has the name now; None where it is free. Raises SourceError."""


@runtime_checkable
class SizingDestination(Destination, Protocol):
    """A destination that can be asked for blobs of which nothing but the digest is known."""

    async def blob_size(self, digest: Digest) -> int | None:
        """How many bytes a blob has that is there; None where it is not, or that is not said. Raises SourceError."""
