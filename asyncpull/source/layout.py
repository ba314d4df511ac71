"""``oci:``: an image in an image layout (image-spec, image-layout.md), which spec/layout.py describes.

The file ``oci-layout`` may be missing, as with containers/image; one of another version is refused.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import DocumentError, NotFoundError, SizeMismatchError
from asyncpull.source.local import LocalSource, open_regular, read_small
from asyncpull.spec.layout import (
    BLOBS,
    INDEX,
    INDEX_LIMIT,
    MARKER,
    MARKER_LIMIT,
    TORN_SECONDS,
    LayoutIndex,
    blob_path,
    check_version,
)
from asyncpull.waiting import settled

if TYPE_CHECKING:
    from asyncpull.source.local import FileRange
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import LayoutArchiveLocation, LayoutLocation
    from asyncpull.spec.source import SourceDocument


class LayoutReader(LocalSource):
    """The image that ``location`` names, in a layout wherever its files are."""

    def __init__(self, location: LayoutLocation | LayoutArchiveLocation) -> None:
        self.location = location

    @property
    def name(self) -> str:
        """The location."""
        return str(self.location)

    @abstractmethod
    def read_file(self, name: str, limit: int) -> bytes:
        """A small file of the layout. Blocks.

        Raises NotFoundError, SourceError, DocumentError, DocumentTooLargeError.
        """

    async def index(self) -> LayoutIndex:
        """What the layout lists now. Raises NotFoundError, SourceError, DocumentError."""
        return await asyncio.to_thread(self._index)

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The document that the location names, or that with ``digest``, whether or not it is listed."""
        index = await self.index()
        if digest is None:
            chosen = index.choose(self.location.name, self.location.number)
            document = await self.document(chosen.digest, chosen.media_type or None)
            if len(document.raw) != chosen.size:
                raise SizeMismatchError(f"{self.name}: {chosen.digest}", chosen.size, len(document.raw))
            return document
        listed = next((entry.media_type for entry in index.entries if entry.digest == digest), "")
        return await self.document(digest, listed or None)

    async def digest(self) -> Digest:
        """The digest that ``index.json`` gives the image."""
        return (await self.index()).choose(self.location.name, self.location.number).digest

    def _index(self) -> LayoutIndex:
        with suppress(NotFoundError):
            check_version(self.read_file(MARKER, MARKER_LIMIT), f"{self.location.path}: {MARKER}")
        return LayoutIndex.from_bytes(self.read_file(INDEX, INDEX_LIMIT), f"{self.location.path}: {INDEX}")


class LayoutSource(LayoutReader):
    """``oci:``: a layout in a directory, its blobs in ``shared_blobs`` where that is given."""

    def __init__(self, location: LayoutLocation, shared_blobs: Path | None = None) -> None:
        super().__init__(location)
        self._root = Path(location.path)
        self._blobs = shared_blobs or self._root / BLOBS

    async def index(self) -> LayoutIndex:
        """What the layout lists now."""
        return await settled(super().index, DocumentError, TORN_SECONDS)

    def read_file(self, name: str, limit: int) -> bytes:
        """A small file of the layout."""
        return read_small(self._root / name, limit)

    def open_file(self, digest: Digest) -> FileRange:
        """A blob, from its file."""
        return open_regular(self._blobs / blob_path(digest))
