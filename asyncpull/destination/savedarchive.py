"""An archive as ``docker save`` writes it, in the making: for a file, a pipe, or a daemon that loads it.

Blobs come side by side and in any order, and each is to lie at its own place in the archive, which is the same whenever
it is made of the same images: so they are kept in a scratch file, and put in order when all are there.
"""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import aclosing
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, SizeMismatchError, StoreError
from asyncpull.layer.archive import END, format_member, padding
from asyncpull.layer.header import REGULAR, SYMLINK, Member
from asyncpull.scratch import write_all, writing
from asyncpull.spec import mediatype
from asyncpull.spec.destination import Abilities
from asyncpull.spec.dockerarchive import (
    MANIFEST,
    REPOSITORIES,
    ArchivedImage,
    config_member,
    format_images,
    format_repositories,
    layer_member,
    legacy_layers,
)
from asyncpull.spec.manifest import CONFIG_LIMIT, ImageConfig, Manifest, parse_document
from asyncpull.waiting import in_thread

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

    from asyncpull.spec.destination import Content
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.source import SourceDocument

T = TypeVar("T")

MEDIA_TYPES: Final = (mediatype.DOCKER_MANIFEST, mediatype.OCI_MANIFEST)
"""Manifests that can be archived. Neither is kept: of both there remain the config and the uncompressed layers."""

_PIECE: Final = 1 << 20
_AT_ONCE: Final = 8 << 20
_READ_ONLY: Final = 0o444


@dataclass(slots=True)
class _Place:
    """Where a blob is or will be in the scratch file; ``is_whole`` if it is there. Whoever writes it has the lock."""

    offset: int
    size: int
    is_whole: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SavedArchive:
    """A tar file of images that is called ``name`` in messages; ``scratch`` is an empty file for what it will hold.

    Images are put and added first; then it is read, as often as it takes. The file is not closed.
    """

    def __init__(self, name: str, scratch: int) -> None:
        self.name = name
        self._scratch, self._end = scratch, 0
        self._places: dict[Digest, _Place] = {}
        self._members: dict[str, _Place | bytes] = {}  # in their order; with headers those that are no blobs
        self._images: dict[Digest, ArchivedImage] = {}
        self._tops: dict[Reference, str] = {}

    @property
    def has_images(self) -> bool:
        """Whether there is anything in it."""
        return bool(self._images)

    @property
    def size(self) -> int:
        """How many bytes it has with the images that were added."""
        return sum(part.size if isinstance(part, _Place) else len(part) for part in self._parts())

    def has(self, digest: Digest) -> bool:
        """Whether that blob is here, whole."""
        place = self._places.get(digest)
        return place is not None and place.is_whole

    async def put(self, descriptor: Descriptor, content: Content) -> None:
        """Keep a blob for the images that will be added; one that is here already is not written again.

        Raises what ``content`` raises, SizeMismatchError, StoreWriteError, NoSpaceError.
        """
        place = self._places.get(descriptor.digest)
        if place is None:
            place = self._places[descriptor.digest] = _Place(self._end, descriptor.size)
            self._end += descriptor.size
        async with place.lock:
            if not place.is_whole:
                await self._write_content(place, content)
                place.is_whole = True

    async def add(self, document: SourceDocument, names: Sequence[Reference]) -> None:
        """List an image, all whose blobs are here, under ``names``; one that is listed already gets them besides.

        Raises DocumentError for what is no image of uncompressed layers, StoreError.
        """
        manifest = parse_document(document.raw, document.media_type)
        if not isinstance(manifest, Manifest):
            raise DocumentError(f"{self.name}: an archive of this kind holds single images, not an index of them")
        config = await self._config(manifest)
        layers = tuple(layer.digest for layer in manifest.layers)
        if layers != config.diff_ids:
            raise DocumentError(
                f"{self.name}: the layers of {manifest.digest} are not those of its config, uncompressed",
                "an archive of this kind holds uncompressed layers only",
            )
        for digest in layers:
            if not self.has(digest):
                raise StoreError(f"layer {digest} is not in the archive", self.name)
        legacy = legacy_layers(config.raw, layers)
        for digest in layers:
            self._members[layer_member(digest)] = self._places[digest]
        self._members[config_member(config.digest)] = self._places[config.digest]
        for layer in legacy:
            self._members[layer.link[0]] = _link(*layer.link)
            self._members |= {name: _file(name, data) for name, data in layer.files}
        image = self._images.get(config.digest) or ArchivedImage(
            config_member(config.digest), tuple(map(layer_member, layers))
        )
        tags = tuple(dict.fromkeys((*image.tags, *(f"{each.name}:{each.tag}" for each in names))))
        self._images[config.digest] = replace(image, tags=tags)
        if legacy:
            self._tops.update((each, legacy[-1].id) for each in names)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The archive, from its beginning. Raises StoreError."""
        for part in self._parts():
            if isinstance(part, bytes):
                yield part
                continue
            for at in range(0, part.size, _PIECE):
                yield await self._in_thread(os.pread, self._scratch, min(_PIECE, part.size - at), part.offset + at)

    def write_to(self, fd: int, stop: threading.Event) -> None:
        """Write the archive to a file, or the beginning of it once ``stop`` is set. Blocks. Raises OSError."""
        for part in self._parts():
            if isinstance(part, bytes):
                write_all(fd, part)
                continue
            at, end = part.offset, part.offset + part.size
            while at < end and not stop.is_set():
                sent = os.sendfile(fd, self._scratch, at, min(_AT_ONCE, end - at))
                if not sent:
                    raise OSError(errno.EIO, "a file became shorter")
                at += sent

    def _parts(self) -> Iterator[bytes | _Place]:
        """What it is made of, in order."""
        for name, part in self._members.items():
            if isinstance(part, _Place):
                yield _header(name, part.size)
                yield part
                yield padding(part.size)
            else:
                yield part
        yield _file(MANIFEST, format_images(self._images.values()))
        yield _file(REPOSITORIES, format_repositories(self._tops))
        yield END

    async def _config(self, manifest: Manifest) -> ImageConfig:
        place = self._places.get(manifest.config.digest)
        if place is None or not place.is_whole or place.size > CONFIG_LIMIT:
            raise StoreError(f"config {manifest.config.digest} is not in the archive", self.name)
        raw = await self._in_thread(os.pread, self._scratch, place.size, place.offset)
        return ImageConfig.from_bytes(raw, manifest.config.digest)

    async def _write_content(self, place: _Place, content: Content) -> None:
        at = 0
        async with aclosing(cast("AsyncGenerator[bytes]", content.chunks())) as chunks:
            async for chunk in chunks:
                if at + len(chunk) > place.size:
                    raise SizeMismatchError(self.name, place.size, at + len(chunk))
                await self._in_thread(_write_at, self._scratch, chunk, place.offset + at)
                at += len(chunk)
        if at != place.size:
            raise SizeMismatchError(self.name, place.size, at)

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        """Do it, whole: a cancellation waits, for a thread must not write to a descriptor that is closed."""
        with writing(self.name):
            return await in_thread(partial(call, *arguments))


class ArchiveDestination:
    """One image in an archive in the making. Implements asyncpull.spec.destination.Destination.

    After the commit has listed the image, ``then`` is awaited, which does the rest where that is to be done.
    """

    abilities = Abilities(MEDIA_TYPES, holds_indexes=False, holds_artifacts=False, wants_plain_layers=True)

    def __init__(
        self, name: str, archive: SavedArchive, names: Sequence[Reference], then: Callable[[], Awaitable[None]]
    ) -> None:
        self._name, self._archive, self._names, self._then = name, archive, names, then

    @property
    def name(self) -> str:
        """The location, in full."""
        return self._name

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether an image that was put there before has that blob."""
        return self._archive.has(descriptor.digest)

    async def mount_blob(self, descriptor: Descriptor, repositories: Sequence[str]) -> bool:
        """Never: there are no repositories."""
        return False

    async def put_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Add a config or an uncompressed layer."""
        await self._archive.put(descriptor, content)

    async def put_manifest(self, document: SourceDocument) -> None:
        """Nothing: no manifest is kept, and an index that would list it is refused by ``commit``."""

    async def commit(self, document: SourceDocument) -> Digest:
        """Let the image be one of the archive's. Its manifest is not kept."""
        await self._archive.add(document, self._names)
        await self._then()
        return document.digest

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"


def _header(name: str, size: int) -> bytes:
    return format_member(Member(name.encode(), REGULAR, _READ_ONLY, 0, 0, size, 0, 0, b"", 0, 0, {}, 0))


def _file(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + padding(len(data))


def _link(name: str, target: str) -> bytes:
    return format_member(Member(name.encode(), SYMLINK, 0, 0, 0, 0, 0, 0, target.encode(), 0, 0, {}, 0))


def _write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
