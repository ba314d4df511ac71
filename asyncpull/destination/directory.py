"""``dir:``: an image in a flat directory of its own (spec/directory.py).

Until the commit everything that is new waits in the workshop, and the image that is there stays whole. The commit moves
the blobs out, whose names say what they are, then replaces ``manifest.json`` in one piece, and last removes what only
the old image had. A reader finds the old manifest with its blobs or the new one with its own.

One copy at a time writes to a directory. One with other things in it than an image is not touched.
"""

from __future__ import annotations

import stat
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.destination.workshop import NAME, Workshop, in_thread, open_workshop
from asyncpull.errors import DocumentError, StoreWriteError
from asyncpull.log import Log
from asyncpull.spec.destination import Abilities
from asyncpull.spec.directory import (
    MANIFEST,
    VERSION,
    blob_name,
    check_version,
    is_of_image,
    manifest_name,
    version_for,
)
from asyncpull.spec.schema1 import document_digest
from asyncpull.spec.signature import signature_to_file
from asyncpull.store.files import sync_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpull.spec.destination import Content
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import DirectoryLocation
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.signature import Signature
    from asyncpull.spec.source import SourceDocument

_log = Log(__name__)


@asynccontextmanager
async def open_directory(location: DirectoryLocation) -> AsyncIterator[DirectoryDestination]:
    """The image in the directory that ``location`` names, to be written; waits while another copy writes there.

    Raises StoreWriteError for a directory with other things in it, DocumentError for an image of a newer version,
    NoSpaceError, StoreError.
    """
    root = Path(location.path)
    await in_thread(root, lambda: _check(root))
    async with open_workshop(root / NAME, alone=True) as workshop:
        destination = DirectoryDestination(location, workshop)
        await in_thread(root, destination.begin)
        try:
            yield destination
        finally:
            await in_thread(root, destination.end)


class DirectoryDestination:
    """One directory, from ``open_directory``. Implements asyncpull.spec.destination.Destination."""

    def __init__(self, location: DirectoryLocation, workshop: Workshop) -> None:
        self.location = location
        self._root, self._workshop = Path(location.path), workshop
        self._names: set[str] = set()

    @property
    def name(self) -> str:
        """The location."""
        return str(self.location)

    @property
    def abilities(self) -> Abilities:
        """Everything, as it is."""
        return Abilities(spool_root=self._workshop.spool_root)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the image that is there has it, or an earlier copy brought it that was not finished."""
        name = blob_name(descriptor.digest)
        paths = (self._workshop.kept / name, self._root / name)
        found = await in_thread(self._root, lambda: any(_is_file(path, descriptor.size) for path in paths))
        if found:
            self._names.add(name)
        return found

    async def mount_blob(self, descriptor: Descriptor, repositories: Sequence[str]) -> bool:
        """False: a directory has one place for blobs."""
        return False

    async def put_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Add a blob; it is seen after the commit."""
        new, name = self._workshop.new(), blob_name(descriptor.digest)
        await content.write_to(new)
        await in_thread(new, lambda: self._workshop.publish(new, self._workshop.kept / name))
        self._names.add(name)

    async def put_manifest(self, document: SourceDocument) -> None:
        """Add a manifest that an index lists; it is seen after the commit."""
        name = manifest_name(document.digest)
        await in_thread(self._root, lambda: self._workshop.write(self._workshop.kept / name, document.raw))
        self._names.add(name)

    async def put_signatures(
        self, document: SourceDocument, signatures: Sequence[Signature], *, is_instance: bool
    ) -> None:
        """Add signatures of the document, or of a manifest that it lists; they are seen after the commit."""
        prefix = f"{blob_name(document_digest(document.raw))}." if is_instance else ""
        for number, signature in enumerate(signatures, 1):
            name, raw = f"{prefix}signature-{number}", signature_to_file(signature)
            await in_thread(self._root, partial(self._workshop.write, self._workshop.kept / name, raw))
            self._names.add(name)

    async def commit(self, document: SourceDocument) -> Digest:
        """Let the directory hold what was put, and the document; what else an image had there goes."""
        await in_thread(self._root, lambda: self._replace(document.raw))
        self._workshop.is_done = True
        return document.digest

    def begin(self) -> None:
        """Make a new directory one that will be an image's, for containers/image too. Blocks. Raises OSError."""
        if not (self._root / VERSION).exists():
            self._workshop.write(self._root / VERSION, version_for(frozenset()))

    def end(self) -> None:
        """Leave no sign in a directory that got no image, and where nothing waits for another try. Blocks."""
        if {each.name for each in self._root.iterdir()} <= {VERSION, NAME} and not self._waits():
            (self._root / VERSION).unlink(missing_ok=True)

    def _waits(self) -> bool:
        """Whether the workshop has what another try could use."""
        return any(
            place.is_dir() and any(place.iterdir()) for place in (self._workshop.kept, self._workshop.spool_root)
        )

    def _replace(self, manifest: bytes) -> None:
        version = version_for(frozenset(self._names))
        if (self._root / VERSION).read_bytes() < version:
            self._workshop.write(self._root / VERSION, version)
        for name in sorted(self._names):
            with suppress(FileNotFoundError):  # then it is where it belongs already
                (self._workshop.kept / name).rename(self._root / name)
        sync_file(self._root)
        self._workshop.write(self._root / MANIFEST, manifest)
        sync_file(self._root)
        try:
            for entry in self._root.iterdir():
                if is_of_image(entry.name) and entry.name not in self._names:
                    entry.unlink()
            self._workshop.write(self._root / VERSION, version)
        except OSError as error:
            _log.warning("what the last image left cannot be removed", path=str(self._root), reason=str(error))

    def __repr__(self) -> str:
        return f"<DirectoryDestination {self.name}>"


def _check(root: Path) -> None:
    """Refuse a directory that holds anything but an image. Raises StoreWriteError, DocumentError, OSError."""
    try:
        names = {entry.name for entry in root.iterdir()}
    except FileNotFoundError:
        return
    if VERSION in names:
        try:
            check_version((root / VERSION).read_bytes(), str(root / VERSION))
        except DocumentError as error:
            raise StoreWriteError(str(error), str(root), "choose an empty directory") from error
    elif names - {NAME}:
        raise StoreWriteError(
            "the directory holds other things than an image, which are not overwritten",
            str(root),
            "choose another directory, or an empty one",
        )


def _is_file(path: Path, size: int) -> bool:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size
