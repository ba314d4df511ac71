"""``oci-archive:``: an image in an image layout in a tar file, one image per file.

The blobs wait in a workshop beside the file, where the next copy finds them if this one comes to nothing. The commit
writes the archive anew, beside the old one, which it replaces in one piece. The same image makes the same bytes. What
is not a file, such as ``/dev/stdout``, gets the archive as it is written.

An archive of one image also has the ``manifest.json`` that ``docker save`` puts beside a layout, without which dockerd
loads nothing. Readers of layouts pass it over.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.destination.layout import MEDIA_TYPES
from asyncpull.destination.tararchive import write_tar
from asyncpull.destination.workshop import NAME, Workshop, in_thread, open_workshop
from asyncpull.errors import InvalidReferenceError, StoreWriteError, UsageError
from asyncpull.scratch import scratch_directory
from asyncpull.spec.destination import Abilities
from asyncpull.spec.dockerarchive import MANIFEST, ArchivedImage, format_images
from asyncpull.spec.layout import BLOBS, INDEX, MARKER, VERSION, LayoutIndex, blob_path
from asyncpull.spec.manifest import Manifest, parse_document
from asyncpull.spec.reference import parse_reference
from asyncpull.store.files import sync_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpull.spec.destination import Content
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import LayoutArchiveLocation
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import SourceDocument


@asynccontextmanager
async def open_layout_archive(location: LayoutArchiveLocation) -> AsyncIterator[LayoutArchiveDestination]:
    """The archive that ``location`` names, to be written anew; waits while another copy writes it.

    Raises UsageError for a number, StoreWriteError for a directory and where one may not write, NoSpaceError,
    StoreError.
    """
    if location.number is not None:
        raise UsageError(f"{location}: an image is written under a name, not at a number")
    path = Path(location.path)
    async with AsyncExitStack() as opened:
        workshop_path = path.parent / f".{path.name}{NAME}"
        is_stream = await in_thread(path, lambda: _is_stream(path))
        if is_stream:
            folder = opened.enter_context(tempfile.TemporaryDirectory(dir=scratch_directory(), prefix="asyncpull-"))
            workshop_path = Path(folder) / NAME
        workshop = await opened.enter_async_context(open_workshop(workshop_path, alone=True))
        yield LayoutArchiveDestination(location, workshop, is_stream=is_stream)


class LayoutArchiveDestination:
    """One archive, from ``open_layout_archive``. Implements asyncpull.spec.destination.Destination."""

    def __init__(self, location: LayoutArchiveLocation, workshop: Workshop, *, is_stream: bool) -> None:
        self.location = location
        self._path, self._workshop, self._is_stream = Path(location.path), workshop, is_stream
        self._blobs: set[Digest] = set()

    @property
    def name(self) -> str:
        """The location."""
        return str(self.location)

    @property
    def abilities(self) -> Abilities:
        """Images, indexes and artifacts, as they are."""
        return Abilities(MEDIA_TYPES, wants_compressed_layers=True, spool_root=self._workshop.spool_root)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it was put, or an earlier copy brought it that was not finished."""
        path = self._kept(descriptor.digest)
        found = await in_thread(path, lambda: path.exists() and path.stat().st_size == descriptor.size)
        if found:
            self._blobs.add(descriptor.digest)
        return found

    async def mount_blob(self, descriptor: Descriptor, repositories: Sequence[str]) -> bool:
        """False: an archive has one place for blobs."""
        return False

    async def put_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Add a blob; it is in the archive after the commit."""
        new = self._workshop.new()
        await content.write_to(new)
        await in_thread(new, lambda: self._workshop.publish(new, self._kept(descriptor.digest)))
        self._blobs.add(descriptor.digest)

    async def put_manifest(self, document: SourceDocument) -> None:
        """Add a document that has no name; it is in the archive after the commit."""
        path = self._kept(document.digest)
        await in_thread(path, lambda: self._workshop.write(path, document.raw))
        self._blobs.add(document.digest)

    async def commit(self, document: SourceDocument) -> Digest:
        """Write the archive, and let it take the place of the one that was there."""
        await self.put_manifest(document)
        parsed = parse_document(document.raw, document.media_type, with_artifacts=True)
        name, size = self.location.name, len(document.raw)
        members: dict[str, bytes | Path] = {_member(digest): self._kept(digest) for digest in self._blobs}
        members[INDEX] = LayoutIndex.empty(INDEX).with_image(name, parsed.media_type, document.digest, size)
        members[MARKER] = VERSION
        if isinstance(parsed, Manifest) and parsed.is_image:
            blobs = [blob.digest for blob in (parsed.config, *parsed.layers)]
            if self._blobs.issuperset(blobs):  # else it has layers that are to be had elsewhere only
                config, *layers = map(_member, blobs)
                members[MANIFEST] = format_images([ArchivedImage(config, tuple(layers), _tags(name))])
        stop = threading.Event()
        await in_thread(self._path, lambda: self._write(members, stop), stop.set)
        self._workshop.is_done = True
        return document.digest

    def _kept(self, digest: Digest) -> Path:
        return self._workshop.kept / f"{digest.algorithm}-{digest.encoded}"

    def _write(self, members: dict[str, bytes | Path], stop: threading.Event) -> None:
        new = self._path if self._is_stream else self._workshop.new()
        out = os.open(new, os.O_WRONLY | os.O_CLOEXEC | (0 if self._is_stream else os.O_CREAT | os.O_EXCL), 0o600)
        try:
            write_tar(out, members, stop)
            if self._is_stream or stop.is_set():
                return
            os.fsync(out)
        finally:
            os.close(out)
        self._workshop.publish(new, self._path)
        sync_file(self._path.parent)

    def __repr__(self) -> str:
        return f"<LayoutArchiveDestination {self.name}>"


def _member(digest: Digest) -> str:
    return f"{BLOBS}/{blob_path(digest)}"


def _tags(name: str | None) -> tuple[str, ...]:
    """The name as a tag that docker takes; a tag without a repository says nothing to it."""
    try:
        reference = parse_reference(name or "")
    except InvalidReferenceError:
        return ()
    is_tagged = name is not None and name.endswith(f":{reference.tag}")  # and not by default
    return (str(reference),) if is_tagged else ()


def _is_stream(path: Path) -> bool:
    """Whether what is at ``path`` is written to, and not replaced. Raises StoreWriteError for a directory."""
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise StoreWriteError("is a directory, not an archive", str(path), "name a file, or use oci: for a layout")
        return not stat.S_ISREG(mode)
    return False
