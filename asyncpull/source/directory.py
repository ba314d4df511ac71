"""``dir:``: an image in a flat directory, which spec/directory.py describes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import NotFoundError
from asyncpull.source.local import LocalSource, open_regular, read_small
from asyncpull.spec.directory import MANIFEST, VERSION, blob_name, check_version, manifest_name
from asyncpull.spec.manifest import KIB, MANIFEST_LIMIT
from asyncpull.spec.schema1 import document_digest, verify_document
from asyncpull.spec.source import SourceDocument

if TYPE_CHECKING:
    from asyncpull.source.local import FileRange
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import DirectoryLocation


class DirectorySource(LocalSource):
    """The image in the directory that ``location`` names."""

    def __init__(self, location: DirectoryLocation) -> None:
        self.location, self._root = location, Path(location.path)

    @property
    def name(self) -> str:
        """The location."""
        return str(self.location)

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """What was copied here, or that with ``digest``; media types are not kept in such a directory."""
        return await asyncio.to_thread(self._document, digest)

    def open_file(self, digest: Digest) -> FileRange:
        """A blob, from its file."""
        return open_regular(self._root / blob_name(digest))

    def _document(self, digest: Digest | None) -> SourceDocument:
        with suppress(NotFoundError):  # version 1.0 had none
            check_version(read_small(self._root / VERSION, KIB), str(self._root / VERSION))
        if digest is not None:
            path = self._root / manifest_name(digest)
            with suppress(NotFoundError):
                raw = read_small(path, MANIFEST_LIMIT)
                verify_document(str(path), raw, digest)
                return SourceDocument(raw, None, digest)
        raw = read_small(self._root / MANIFEST, MANIFEST_LIMIT)
        actual = document_digest(raw, digest.algorithm if digest else "sha256")
        if digest is not None and actual != digest:
            raise NotFoundError(f"{self.name} has no manifest {digest}")
        return SourceDocument(raw, None, actual)
