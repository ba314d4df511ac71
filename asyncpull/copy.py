"""A copy of an image from any place to any other. This is the only module that knows the order of its stages::

    open      source and destination                                             source.opening, destination.opening
    resolve   document -> the instances that are wanted of an index                            copyplan
    per instance, side by side:
        plan      per layer: pass on, decompress or recompress                                 copyplan
        move      blobs, each once, none that is there; made anew where they change            transfer, remake
        put       the manifest, converted where it changes
    commit    the document that gets the name, last

A copy into a containers/storage store is a pull from another source.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import tempfile
import time
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from asyncpull.access import Access
from asyncpull.copyplan import CopyOptions, Instances, plan_copy, selected
from asyncpull.destination.opening import open_destination
from asyncpull.errors import DocumentError, UsageError
from asyncpull.events import EventHub
from asyncpull.fetch.fetcher import Fetcher
from asyncpull.journal import store_errors
from asyncpull.limits import Limits
from asyncpull.progress import (
    CommitCompleted,
    CommitStarted,
    CopyCompleted,
    CopyFailed,
    CopyResolved,
    CopyStarted,
    Silent,
    Teller,
)
from asyncpull.registry.client import RegistryClient
from asyncpull.source.opening import open_source
from asyncpull.spec.location import RegistryLocation, parse_location
from asyncpull.spec.manifest import Index, Manifest, parse_document
from asyncpull.spec.mediatype import is_index
from asyncpull.spec.platform import host_platform
from asyncpull.transfer import Transfer
from asyncpull.waiting import run_all

if TYPE_CHECKING:
    from types import TracebackType

    from asyncpull.events import EventStream
    from asyncpull.progress import Reporter
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import Location
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.source import SourceDocument

# How many manifests of an index are worked on at once; the blobs of all of them are bounded by themselves.
_INSTANCES_AT_ONCE = 4

# An index may list indexes, but not below that.
_DEPTH = 2


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """What a copy came to: ``digest`` is that of the document at the destination.

    ``digests`` has, for each manifest that was copied, what it is there by what it was. ``bytes_copied`` were given to
    the destination, blobs that it had not counted.
    """

    source: str
    destination: str
    digest: Digest
    digests: dict[Digest, Digest]
    bytes_copied: int
    seconds: float


class Copier:
    """Copies images between any two places; an async context manager.

    ``source`` and ``destination`` say how either side is reached. ``platform`` is that of this machine unless given;
    it chooses from an index, where one instance is wanted. ``reporter`` hears of every copy's progress, on the event
    loop. A Copier belongs to the event loop that entered it.
    """

    def __init__(
        self,
        *,
        source: Access | None = None,
        destination: Access | None = None,
        platform: Platform | None = None,
        limits: Limits | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self._source, self._destination = source or Access(), destination or source or Access()
        self._platform = platform or host_platform()
        self._limits = limits or Limits()
        self._events = EventHub(reporter or Silent())
        self._numbers = itertools.count(1)
        self._clients: dict[int, RegistryClient] = {}
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._exits.aclose()
        finally:
            self._events.close()

    def events(self) -> EventStream:
        """The events of all copies from now on, as an async iterator that ends when the Copier is closed."""
        return self._events.stream()

    async def copy(
        self, source: str | Location, destination: str | Location, options: CopyOptions | None = None
    ) -> CopiedImage:
        """Copy what is at ``source`` to ``destination``, which has all of it afterwards, or what it had before.

        What was received stays for the next copy, where the destination has a place for it. Raises
        InvalidReferenceError and UsageError for what cannot be meant; SourceError where a side does not answer;
        DocumentError, IntegrityError, LayerError if what the source gives is refused; StoreError.
        """
        places = _location(source), _location(destination)
        tell = Teller(self._events, next(self._numbers), str(places[0]))
        started = time.monotonic()
        tell(CopyStarted, destination=str(places[1]))
        try:
            copied = await self._copy(*places, options or CopyOptions(), tell)
        except BaseException as error:
            tell(CopyFailed, reason=str(error) or type(error).__name__)
            raise
        seconds = time.monotonic() - started
        tell(CopyCompleted, digest=str(copied.digest), bytes_copied=copied.bytes_copied, seconds=seconds)
        return replace(copied, seconds=seconds)

    async def _copy(self, source: Location, destination: Location, options: CopyOptions, tell: Teller) -> CopiedImage:
        async with AsyncExitStack() as opened:
            client = await self._client(self._source) if isinstance(source, RegistryLocation) else None
            origin = await opened.enter_async_context(open_source(source, self._source, client=client))
            client = await self._client(self._destination) if isinstance(destination, RegistryLocation) else None
            target = await opened.enter_async_context(
                open_destination(destination, self._destination, client=client, names=options.tags)
            )
            room = await asyncio.to_thread(_room, target.abilities.spool_root, opened)
            limits = self._limits
            fetcher = await opened.enter_async_context(
                Fetcher(
                    room,
                    limits=limits.of_scheduler,
                    retry=self._source.retry,
                    bandwidth=limits.bandwidth,
                    memory=limits.memory,
                )
            )
            transfer = Transfer(
                origin,
                target,
                fetcher,
                room,
                tell,
                repositories=(*_repositories(source), *options.repositories),
                at_once=limits.max_parallel_downloads,
            )
            return await _Copy(transfer, options, self._platform).run()

    async def _client(self, access: Access) -> RegistryClient:
        """The client for one side; both have the same where they are reached in the same way."""
        if id(access) not in self._clients:
            client = RegistryClient(access.registry, retry=access.retry)
            self._clients[id(access)] = await self._exits.enter_async_context(client)
        return self._clients[id(access)]


class _Copy:
    """One image, or one index, on its way."""

    def __init__(self, transfer: Transfer, options: CopyOptions, platform: Platform) -> None:
        self._transfer, self._options, self._platform = transfer, options, platform
        self._source, self._destination = transfer.source, transfer.destination
        self._tell = transfer.tell
        self._digests: dict[Digest, Digest] = {}
        self._slots = asyncio.Semaphore(_INSTANCES_AT_ONCE)

    async def run(self) -> CopiedImage:
        document = await self._source.manifest()
        parsed = parse_document(document.raw, document.media_type)
        for _ in range(_DEPTH):
            if isinstance(parsed, Manifest) or self._options.selection.instances is not Instances.SYSTEM:
                break
            chosen = selected(parsed, self._options.selection, self._platform)[0]
            document, parsed = await self._document(chosen)
        if isinstance(parsed, Index):
            document = await self._index(document, parsed, _DEPTH)
        else:
            document = await self._manifest(document, parsed)
        self._tell(CommitStarted)
        digest = await self._destination.commit(document)
        self._tell(CommitCompleted)
        return CopiedImage(
            self._source.name, self._destination.name, digest, self._digests, self._transfer.bytes_copied, 0.0
        )

    async def _index(self, document: SourceDocument, index: Index, depth: int) -> SourceDocument:
        """Copy what is wanted of an index; the document that stands for it at the destination."""
        if not self._destination.abilities.holds_indexes:
            raise UsageError(
                f"{self._destination.name} holds one image, and {self._source.name} has an index of several",
                "choose one with --multi-arch system, and --platform",
            )
        if not depth:
            raise DocumentError(f"{self._source.name}: an index in an index in an index")
        wanted = selected(index, self._options.selection, self._platform)

        async def instance(descriptor: Descriptor) -> tuple[Descriptor, SourceDocument]:
            async with self._slots if depth == _DEPTH else nullcontext():
                document, parsed = await self._document(descriptor)
                if isinstance(parsed, Index):
                    document = await self._index(document, parsed, depth - 1)
                else:
                    document = await self._manifest(document, parsed)
                await self._destination.put_manifest(document)
                return descriptor, document

        copied = await run_all(instance(descriptor) for descriptor in wanted)
        return self._edited(document, index, {before.digest: after for before, after in copied})

    def _edited(self, document: SourceDocument, index: Index, copied: dict[Digest, SourceDocument]) -> SourceDocument:
        """The index as it is to be at the destination."""
        changed = any(digest != after.digest for digest, after in copied.items())
        dropped = self._options.selection.is_stripped and len(copied) < len({each.digest for each in index.manifests})
        takes = [each for each in self._destination.abilities.media_types if is_index(each)]
        if not changed and not dropped and (not takes or index.media_type in takes):
            return replace(document, media_type=index.media_type)
        raise UsageError(f"index {index.digest} would have to be changed")

    async def _manifest(self, document: SourceDocument, manifest: Manifest) -> SourceDocument:
        """Bring the blobs of a manifest; the document that stands for it at the destination."""
        abilities, options = self._destination.abilities, self._options
        plan = plan_copy(manifest, manifest.layers, abilities, options)
        blobs = {blob.digest: blob for blob in (manifest.config, *manifest.layers) if not self._is_foreign(blob)}
        size = sum(blob.size for blob in blobs.values())
        self._tell(CopyResolved, digest=str(manifest.digest), blobs=len(blobs), bytes_to_copy=size)
        if not plan.is_unchanged:
            raise UsageError(f"manifest {manifest.digest} would have to be changed")
        largest_first = sorted(blobs.values(), key=lambda blob: blob.size, reverse=True)
        await run_all(self._transfer.bring(blob) for blob in largest_first)
        self._digests[manifest.digest] = manifest.digest
        return replace(document, media_type=manifest.media_type)

    def _is_foreign(self, blob: Descriptor) -> bool:
        """Whether a layer stays where its URLs say that it is."""
        return bool(blob.urls) and not self._options.takes_foreign_layers

    async def _document(self, descriptor: Descriptor) -> tuple[SourceDocument, Manifest | Index]:
        document = await self._source.manifest(descriptor.digest)
        media_type = document.media_type or descriptor.media_type
        return replace(document, media_type=media_type), parse_document(document.raw, media_type)


def _location(place: str | Location) -> Location:
    return parse_location(place) if isinstance(place, str) else place


def _repositories(source: Location) -> tuple[str, ...]:
    """Where a registry has the blobs of ``source``, if it is one."""
    return (source.reference.name,) if isinstance(source, RegistryLocation) else ()


def _room(wanted: Path | None, opened: AsyncExitStack) -> Path:
    """A directory for what is on its way: that of the destination, or one that this user's copies have together.

    Where somebody else has made one of that name, it is one for this copy alone. Raises StoreError.
    """
    large = os.environ.get("TMPDIR") or "/var/tmp"  # as containers/image does it: /tmp is often memory
    directory = wanted or Path(large) / f"asyncpull-{os.geteuid()}"
    with store_errors(directory):
        directory.mkdir(0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if wanted or (stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077):
            return directory
        own = tempfile.TemporaryDirectory(prefix="asyncpull-", dir=large)
        return Path(opened.enter_context(own))
