"""An archive as ``docker save`` writes it, in the making: for a file, a pipe, or a daemon that loads it.

The size of a blob is known before its bytes are, so each gets its place in the file at once, and blobs are written side
by side. The header is written last: a member is what it should be, or there is none. ``manifest.json`` comes when the
archive is finished.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from asyncpull.errors import DocumentError, SizeMismatchError, StoreError
from asyncpull.layer.archive import END, format_member
from asyncpull.layer.header import BLOCK, REGULAR, SYMLINK, Member
from asyncpull.scratch import writing
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
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from asyncpull.spec.destination import Content
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.source import SourceDocument

T = TypeVar("T")

MEDIA_TYPES: Final = (mediatype.DOCKER_MANIFEST, mediatype.OCI_MANIFEST)
"""Manifests that can be archived. Neither is kept: of both there remain the config and the uncompressed layers."""

_PIECE: Final = 1 << 20
_READ_ONLY: Final = 0o444


@dataclass(slots=True)
class _Place:
    """Where a blob is or will be; ``is_whole`` if it is there. Whoever writes it has the lock."""

    offset: int
    size: int
    is_whole: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SavedArchive:
    """A tar file of images, written to the empty file ``fd``, which messages call ``name`` and which is not closed.

    After ``finish`` it has ``size`` bytes, and is not written any more.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name, self.fd, self.size = name, fd, 0
        self._places: dict[Digest, _Place] = {}
        self._images: dict[Digest, ArchivedImage] = {}
        self._tops: dict[Reference, str] = {}
        self._legacy: set[str] = set()

    @property
    def has_images(self) -> bool:
        """Whether there is anything in it."""
        return bool(self._images)

    def has(self, digest: Digest) -> bool:
        """Whether that blob is in it, whole."""
        place = self._places.get(digest)
        return place is not None and place.is_whole

    async def put(self, descriptor: Descriptor, content: Content) -> None:
        """Write a blob; one that is there already is not written again.

        Raises what ``content`` raises, SizeMismatchError, StoreWriteError, NoSpaceError.
        """
        is_config = mediatype.is_config(descriptor.media_type)
        name = (config_member if is_config else layer_member)(descriptor.digest)
        header = _header(name, descriptor.size)
        place = self._places.get(descriptor.digest)
        if place is None:
            place = self._places[descriptor.digest] = _Place(self._reserve(header, descriptor.size), descriptor.size)
        async with place.lock:
            if not place.is_whole:
                await self._write_content(place, content)
                await self._write(header, place.offset - len(header))
                place.is_whole = True

    async def add(self, document: SourceDocument, names: Sequence[Reference]) -> None:
        """List an image, all whose blobs are there, under ``names``; one that is listed already gets them besides.

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
        for layer in legacy:
            if layer.id not in self._legacy:
                await self._append(_link(*layer.link))
                for name, data in layer.files:
                    await self._append(_header(name, len(data)), data)
                self._legacy.add(layer.id)
        image = self._images.get(config.digest) or ArchivedImage(
            config_member(config.digest), tuple(map(layer_member, layers))
        )
        tags = tuple(dict.fromkeys((*image.tags, *(f"{each.name}:{each.tag}" for each in names))))
        self._images[config.digest] = replace(image, tags=tags)
        if legacy:
            self._tops.update((each, legacy[-1].id) for each in names)

    async def finish(self) -> None:
        """Write what is left to write. Raises StoreError if a blob was begun and is not whole, StoreWriteError."""
        for digest, place in self._places.items():
            if not place.is_whole:
                raise StoreError(f"blob {digest} is not complete, and neither is the archive", self.name)
        for name, data in (
            (MANIFEST, format_images(self._images.values())),
            (REPOSITORIES, format_repositories(self._tops)),
        ):
            await self._append(_header(name, len(data)), data)
        await self._append(END)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The finished archive, from its beginning. Raises StoreError."""
        at = 0
        while at < self.size:
            piece = await self._in_thread(os.pread, self.fd, min(_PIECE, self.size - at), at)
            if not piece:
                raise StoreError(f"ends at byte {at} of {self.size}", self.name)
            at += len(piece)
            yield piece

    async def _config(self, manifest: Manifest) -> ImageConfig:
        place = self._places.get(manifest.config.digest)
        if place is None or not place.is_whole or place.size > CONFIG_LIMIT:
            raise StoreError(f"config {manifest.config.digest} is not in the archive", self.name)
        raw = await self._in_thread(os.pread, self.fd, place.size, place.offset)
        return ImageConfig.from_bytes(raw, manifest.config.digest)

    async def _write_content(self, place: _Place, content: Content) -> None:
        at = 0
        async with aclosing(cast("AsyncGenerator[bytes]", content.chunks())) as chunks:
            async for chunk in chunks:
                if at + len(chunk) > place.size:
                    raise SizeMismatchError(self.name, place.size, at + len(chunk))
                await self._write(chunk, place.offset + at)
                at += len(chunk)
        if at != place.size:
            raise SizeMismatchError(self.name, place.size, at)

    async def _append(self, header: bytes, data: bytes = b"") -> None:
        at = self._reserve(header, len(data))
        await self._write(header + data, at - len(header))

    def _reserve(self, header: bytes, size: int) -> int:
        """Take room for a member; where its contents begin. What is between members is a hole, which reads as zeros."""
        begin = self.size + len(header)
        self.size = begin + size + -size % BLOCK
        return begin

    async def _write(self, data: bytes, at: int) -> None:
        await self._in_thread(_write_at, self.fd, data, at)

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


def _link(name: str, target: str) -> bytes:
    return format_member(Member(name.encode(), SYMLINK, 0, 0, 0, 0, 0, 0, target.encode(), 0, 0, {}, 0))


def _write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
