"""``oci:``: an image in an image layout, beside others (image-spec, image-layout.md; spec/layout.py).

A blob is there for all as soon as it is whole, under its digest, which means nothing to those who read the layout: what
they find is what ``index.json`` lists. That is replaced in one piece by the commit, read and written under a lock that
all our copies take. containers/image takes no locks: who runs both at once may lose the name of one of the images, but
none of their blobs, and the next copy gives it back at once.

Blobs of images that lost their names stay, for nobody knows who else uses them.
"""

from __future__ import annotations

import stat
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.destination.workshop import NAME, Workshop, in_thread, open_workshop
from asyncpull.errors import DocumentError, DocumentTooLargeError, UsageError
from asyncpull.lockfile import LockMode, locked
from asyncpull.spec import mediatype
from asyncpull.spec.destination import Abilities
from asyncpull.spec.layout import (
    BLOBS,
    INDEX,
    INDEX_LIMIT,
    MARKER,
    MARKER_LIMIT,
    TORN_SECONDS,
    VERSION,
    LayoutIndex,
    blob_path,
    check_version,
)
from asyncpull.spec.manifest import parse_document
from asyncpull.store.files import sync_file
from asyncpull.waiting import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpull.spec.destination import Content
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import LayoutLocation
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import SourceDocument

MEDIA_TYPES = (mediatype.OCI_MANIFEST, mediatype.OCI_INDEX, mediatype.DOCKER_MANIFEST, mediatype.DOCKER_LIST)
"""What a layout may list; the readers of containers/image, crane and containerd take Docker's types there too."""


@asynccontextmanager
async def open_layout(location: LayoutLocation, shared_blobs: Path | None = None) -> AsyncIterator[LayoutDestination]:
    """The image that ``location`` names, to be written; blobs go to ``shared_blobs`` where that is given.

    Other images in the layout stay, and others may be written at the same time. Raises UsageError for a number,
    DocumentError for a layout that cannot be read, StoreWriteError, NoSpaceError, StoreError.
    """
    if location.number is not None:
        raise UsageError(f"{location}: an image is written under a name, not at a number")
    root = Path(location.path)
    async with AsyncExitStack() as opened:
        workshop = await opened.enter_async_context(open_workshop(root / NAME, alone=False))
        blobs_workshop = workshop
        if shared_blobs is not None:
            blobs_workshop = await opened.enter_async_context(open_workshop(shared_blobs / NAME, alone=False))
        destination = LayoutDestination(location, workshop, shared_blobs or root / BLOBS, blobs_workshop)
        # What cannot be added to is told before anything is copied.
        await settled(lambda: in_thread(root, lambda: read_index(root)), DocumentError, TORN_SECONDS)
        yield destination


class LayoutDestination:
    """One name in a layout, from ``open_layout``. Implements asyncpull.spec.destination.Destination."""

    def __init__(self, location: LayoutLocation, workshop: Workshop, blobs: Path, blobs_workshop: Workshop) -> None:
        self.location = location
        self._root, self._workshop = Path(location.path), workshop
        self._blobs, self._blobs_workshop = blobs, blobs_workshop
        self._algorithms: set[str] = set()

    @property
    def name(self) -> str:
        """The location."""
        return str(self.location)

    @property
    def abilities(self) -> Abilities:
        """Images, indexes and artifacts, as they are."""
        return Abilities(MEDIA_TYPES, wants_compressed_layers=True, spool_root=self._blobs_workshop.spool_root)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether there is a file of that name and size: it came there whole."""
        path = self._blobs / blob_path(descriptor.digest)
        found = await in_thread(path, lambda: _is_file(path, descriptor.size))
        if found:
            self._algorithms.add(descriptor.digest.algorithm)
        return found

    async def mount_blob(self, descriptor: Descriptor, repositories: Sequence[str]) -> bool:
        """False: a layout has one place for blobs."""
        return False

    async def put_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Add a blob, under its digest."""
        new, target = self._blobs_workshop.new(), self._blobs / blob_path(descriptor.digest)
        await content.write_to(new)
        await in_thread(target, lambda: self._blobs_workshop.publish(new, target))
        self._algorithms.add(descriptor.digest.algorithm)

    async def put_manifest(self, document: SourceDocument) -> None:
        """Add a document that has no name."""
        target = self._blobs / blob_path(document.digest)
        await in_thread(target, lambda: self._blobs_workshop.write(target, document.raw))
        self._algorithms.add(document.digest.algorithm)

    async def commit(self, document: SourceDocument) -> Digest:
        """List the document in ``index.json``; see ``LayoutIndex.with_image``."""
        await self.put_manifest(document)
        async with locked(self._workshop.index_lock, LockMode.EXCLUSIVE):
            await settled(lambda: in_thread(self._root, lambda: self._list(document)), DocumentError, TORN_SECONDS)
        self._workshop.is_done = self._blobs_workshop.is_done = True
        return document.digest

    def _list(self, document: SourceDocument) -> None:
        """Everything is on the disk before it is listed; needs the lock. Raises OSError."""
        for algorithm in self._algorithms:
            sync_file(self._blobs / algorithm)
        sync_file(self._blobs)
        if not (self._root / MARKER).exists():
            self._workshop.write(self._root / MARKER, VERSION)
        media_type = parse_document(document.raw, document.media_type, with_artifacts=True).media_type
        index = read_index(self._root).with_image(self.location.name, media_type, document.digest, len(document.raw))
        self._workshop.write(self._root / INDEX, index)
        sync_file(self._root)

    def __repr__(self) -> str:
        return f"<LayoutDestination {self.name}>"


def read_index(root: Path) -> LayoutIndex:
    """What the layout in ``root`` lists now; nothing, where there is none. Blocks. Raises DocumentError, OSError."""
    marker, index = root / MARKER, root / INDEX
    with suppress(FileNotFoundError):
        check_version(read_limited(marker, MARKER_LIMIT), str(marker))
    with suppress(FileNotFoundError):
        return LayoutIndex.from_bytes(read_limited(index, INDEX_LIMIT), str(index))
    return LayoutIndex.empty(str(index))


def read_limited(path: Path, limit: int) -> bytes:
    """A file of at most ``limit`` bytes. Blocks. Raises DocumentTooLargeError, OSError."""
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise DocumentTooLargeError(f"{path} has more than {limit} bytes, which is the limit")
    return raw


def _is_file(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size
