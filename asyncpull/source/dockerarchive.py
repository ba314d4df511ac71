"""An image in what ``docker save`` writes as a source: ``docker-archive:``, and what a daemon sends.

The archive is read where it lies; see memberindex.py for what is not. So is a layer in it, unless that is compressed:
the image is known by the digests and sizes of uncompressed layers, so that one is uncompressed before the first look.
"""

from __future__ import annotations

import os
import threading
from contextlib import asynccontextmanager
from dataclasses import field
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, NotFoundError
from asyncpull.layer.codec import Compression, detect
from asyncpull.memberindex import Extent, MemberIndex, Reception, open_members
from asyncpull.source.local import PIECE, FileRange, LocalSource, reading
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.dockerarchive import MANIFEST, MANIFEST_LIMIT, choose_image, made_manifest, parse_images
from asyncpull.spec.manifest import CONFIG_LIMIT, ImageConfig
from asyncpull.spec.source import SourceDocument
from asyncpull.waiting import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpull.spec.dockerarchive import ArchivedImage
    from asyncpull.spec.location import DockerArchiveLocation
    from asyncpull.spec.reference import Reference


class DockerArchiveSource(LocalSource):
    """One image of an archive that stays open as long as this is used. Implements asyncpull.spec.source.Source.

    Its manifest is made here, of what is in the archive (spec/dockerarchive.py).
    """

    def __init__(self, name: str, image: _Image) -> None:
        self._name, self._image = name, image

    @property
    def name(self) -> str:
        """The location, in full."""
        return self._name

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The manifest of the image; there is no other."""
        raw = self._image.manifest
        made = Digest.of(raw)
        if digest not in (None, made):
            raise NotFoundError(f"{self._name}: has no manifest {digest}", "an archive of this kind has no indexes")
        return SourceDocument(raw, mediatype.DOCKER_MANIFEST, made, is_made=True)

    def open_file(self, digest: Digest) -> FileRange:
        """Where the config or an uncompressed layer is."""
        extent = self._image.blobs.get(digest)
        if extent is None:
            raise NotFoundError(f"{self._name}: has no blob {digest}")
        with reading(self._name):
            return FileRange(os.dup(extent.fd), extent.offset, extent.size, f"{self._name}: {digest}")


@asynccontextmanager
async def open_docker_archive(location: DockerArchiveLocation) -> AsyncIterator[DockerArchiveSource]:
    """The image that ``location`` names, while the body runs.

    Raises NotFoundError, UsageError where the archive has several images and none is named, DocumentError, SourceError,
    NoSpaceError, StoreWriteError.
    """
    async with (
        open_members(location.path, follow_links=True) as members,
        open_image(str(location), members, location.reference, location.number) as source,
    ):
        yield source


@asynccontextmanager
async def open_image(
    name: str, members: MemberIndex, reference: Reference | None = None, number: int | None = None
) -> AsyncIterator[DockerArchiveSource]:
    """The image with a tag, at a number or the only one in an archive, as a source called ``name``.

    Raises as open_docker_archive.
    """
    stop = threading.Event()
    image = _Image()
    try:
        await in_thread(lambda: _read_image(image, members, reference, number, stop), stop.set)
        yield DockerArchiveSource(name, image)
    finally:
        image.close()


@dataclass(slots=True)
class _Image:
    """A manifest, where its blobs are, and the files that had to be made for that."""

    manifest: bytes = b""
    blobs: dict[Digest, Extent] = field(default_factory=dict)
    made: list[int] = field(default_factory=list)

    def close(self) -> None:
        while self.made:
            os.close(self.made.pop())


def _read_image(
    image: _Image, members: MemberIndex, reference: Reference | None, number: int | None, stop: threading.Event
) -> None:
    """Fill ``image``, which is to be closed also after an error; ends early when ``stop`` is set."""
    chosen = choose_image(images_in(members), reference, number, members.path)
    raw = members.document(chosen.config, CONFIG_LIMIT)
    config = ImageConfig.from_bytes(raw)
    if len(config.diff_ids) != len(chosen.layers):
        counts = f"{len(chosen.layers)} layers are listed in {MANIFEST}, {len(config.diff_ids)} in the config"
        raise DocumentError(f"{members.path}: {counts}")
    for diff_id, layer in zip(config.diff_ids, chosen.layers, strict=True):
        if diff_id not in image.blobs:
            image.blobs[diff_id] = _uncompressed(image, members, layer, stop)
    image.manifest = made_manifest(raw, [(diff_id, image.blobs[diff_id].size) for diff_id in config.diff_ids])
    image.blobs[config.digest] = members.extent(chosen.config)


def images_in(members: MemberIndex) -> tuple[ArchivedImage, ...]:
    """The images of an open archive. Raises DocumentError, SourceError. Blocks."""
    if not members.has(MANIFEST):
        hint = None
        if members.has("oci-layout"):
            hint = f"it holds an image layout: say oci-archive:{members.path}"
        elif members.has("repositories"):
            hint = "it was written by docker before 1.10; load and save it with a newer one"
        raise DocumentError(f"{members.path}: is not what docker save writes: it has no {MANIFEST}", hint)
    return parse_images(members.document(MANIFEST, MANIFEST_LIMIT), members.path)


def _uncompressed(image: _Image, members: MemberIndex, layer: str, stop: threading.Event) -> Extent:
    extent, where = members.extent(layer), f"{members.path}: {layer}"
    with reading(where):
        if detect(extent.read(0, 6)) is Compression.NONE:
            return extent
        with Reception(where) as reception:
            for at in range(0, extent.size, PIECE):
                if stop.is_set():
                    return extent
                reception.feed(extent.read(at, PIECE))
            reception.close()
            image.made.append(os.dup(reception.fd))
            return Extent(image.made[-1], 0, reception.size)
