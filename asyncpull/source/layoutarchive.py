"""``oci-archive:``: an image in an image layout in a tar file, read where it lies in there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpull.errors import NotFoundError
from asyncpull.source.layout import LayoutReader
from asyncpull.source.local import FileRange
from asyncpull.spec.layout import BLOBS, blob_path

if TYPE_CHECKING:
    from asyncpull.memberindex import MemberIndex
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import LayoutArchiveLocation


class LayoutArchiveSource(LayoutReader):
    """The image that ``location`` names, in an archive that is open as ``members`` for as long as this is used."""

    def __init__(self, location: LayoutArchiveLocation, members: MemberIndex) -> None:
        super().__init__(location)
        self._members = members

    def read_file(self, name: str, limit: int) -> bytes:
        """A small file of the layout."""
        if not self._members.has(name):
            raise NotFoundError(f"{self.location.path}: the archive has no {name!r}, it is not that of an image layout")
        return self._members.document(name, limit)

    def open_file(self, digest: Digest) -> FileRange:
        """A blob, from its place in the archive."""
        name = f"{BLOBS}/{blob_path(digest)}"
        if not self._members.has(name):
            raise NotFoundError(f"{self.location.path}: the archive has no {name!r}")
        extent = self._members.extent(name)
        return FileRange(os.dup(extent.fd), extent.offset, extent.size, f"{self.location.path}: {name}")
