"""A copy of an image from any place to any other. This is the only module that knows the order of its stages::

    open      source and destination                                   source.opening, destination.opening
    resolve   document -> the instances that are wanted of an index                  copying.plan, .image
    per instance, side by side:
        judge     by the policy, before anything that it names is asked for          copying.notary
        plan      per layer: pass on, decompress or recompress                       copying.plan
        move      blobs, each once, none that is there; made anew where they change  copying.transfer
        put       the manifest, converted where it changes, and its signatures       copying.image, .notary
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
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from asyncpull.access import Access
from asyncpull.copying.blobinfo import BlobInfoCache
from asyncpull.copying.image import CopiedImage, ImageCopy, copies_referrers
from asyncpull.copying.notary import open_notary
from asyncpull.copying.plan import CopyOptions, Instances
from asyncpull.copying.transfer import Transfer
from asyncpull.dataclass import dataclass
from asyncpull.destination.opening import open_destination
from asyncpull.errors import UsageError
from asyncpull.events import EventHub
from asyncpull.fetch.fetcher import Fetcher
from asyncpull.limits import Limits
from asyncpull.progress import (
    CopyCompleted,
    CopyFailed,
    CopyStarted,
    Silent,
    Teller,
)
from asyncpull.registry.client import RegistryClient
from asyncpull.scratch import scratch_directory, writing
from asyncpull.source.foreign import ForeignSource
from asyncpull.source.opening import open_source
from asyncpull.spec.location import RegistryLocation, StorageLocation, parse_location
from asyncpull.spec.platform import host_platform
from asyncpull.spec.reference import parse_reference
from asyncpull.trust.gate import Gate
from asyncpull.trust.signing import Signing

if TYPE_CHECKING:
    from types import TracebackType

    from asyncpull.copying.notary import Notary
    from asyncpull.events import EventStream
    from asyncpull.progress import Event, Reporter
    from asyncpull.spec.location import Location
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.signature import Signature
    from asyncpull.spec.source import Source, SourceDocument
    from asyncpull.trust.policyfile import TrustOptions

# Bytes a second that leave nothing to be won by more connections: what a blob is hashed at, for nothing is extracted.
_ENOUGH_RATE = float(1 << 30)


class Copier:
    """Copies images between any two places; an async context manager.

    ``source`` and ``destination`` say how either side is reached. ``platform`` is that of this machine unless given;
    it chooses from an index, where one instance is wanted. ``trust`` says which policy decides about what is copied,
    that of this machine if not given. ``reporter`` hears of every copy's progress, on the event loop. ``blob_info`` is
    the file that says which registry has which blob (``blobinfo.cache_path`` is podman's), and is told; None for none.
    A Copier belongs to the event loop that entered it.
    """

    def __init__(
        self,
        *,
        source: Access | None = None,
        destination: Access | None = None,
        platform: Platform | None = None,
        limits: Limits | None = None,
        reporter: Reporter | None = None,
        trust: TrustOptions | None = None,
        blob_info: Path | None = None,
    ) -> None:
        self._gate = Gate(trust)
        self._source, self._destination = source or Access(), destination or source or Access()
        self._platform = platform or host_platform()
        self._limits = limits or Limits()
        self._events = EventHub(reporter or Silent())
        self._numbers = itertools.count(1)
        self._clients: dict[int, tuple[Access, RegistryClient]] = {}
        self._blob_info = blob_info
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
        self,
        source: str | Location,
        destination: str | Location,
        options: CopyOptions | None = None,
        signing: Signing | None = None,
        *,
        access: Access | None = None,
    ) -> CopiedImage:
        """Copy what is at ``source`` to ``destination``, which has all of it afterwards, or what it had before.

        Signatures go along where the destination can hold them; ``signing`` says which are made, or left behind.
        ``access`` is how this source is reached, where that is not as the others are.

        What was received stays for the next copy, where the destination has a place for it. Raises
        InvalidReferenceError and UsageError for what cannot be meant; SourceError where a side does not answer;
        DocumentError, IntegrityError, LayerError if what the source gives is refused; PolicyError if the policy refuses
        it; ConfigurationError where a policy or a key cannot be used; StoreError.
        """
        places = _location(source), _location(destination)
        tell = Teller(self._events, next(self._numbers), str(places[0]))
        started = time.monotonic()
        tell(CopyStarted, destination=str(places[1]))
        try:
            copied = await self._copy(
                *places, options or CopyOptions(), signing or Signing(), access or self._source, tell
            )
        except BaseException as error:
            tell(CopyFailed, reason=str(error) or type(error).__name__)
            raise
        seconds = time.monotonic() - started
        tell(CopyCompleted, digest=str(copied.digest), bytes_copied=copied.bytes_copied, seconds=seconds)
        return replace(copied, seconds=seconds)

    async def _copy(
        self,
        source: Location,
        destination: Location,
        options: CopyOptions,
        signing: Signing,
        access: Access,
        tell: Teller,
    ) -> CopiedImage:
        async with AsyncExitStack() as opened:
            client = await self._client(access) if isinstance(source, RegistryLocation) else None
            origin = await opened.enter_async_context(open_source(source, access, client=client))
            if options.takes_foreign_layers and isinstance(source, RegistryLocation):
                origin = await opened.enter_async_context(ForeignSource(origin, retry=access.retry))
            if isinstance(destination, StorageLocation):
                notary = await open_notary(self._gate, signing, source, origin, client, destination)
                return await self._pull(origin, destination, options, notary, tell)
            writer = await self._client(self._destination) if isinstance(destination, RegistryLocation) else None
            target = await opened.enter_async_context(
                open_destination(destination, self._destination, client=writer, names=options.tags)
            )
            notary = await open_notary(
                self._gate,
                signing,
                source,
                origin,
                client,
                destination,
                target,
                writer,
                referrers_follow=copies_referrers(options, origin, target),
            )
            room = await asyncio.to_thread(_room, target.abilities.spool_root, opened)
            limits = self._limits
            fetcher = await opened.enter_async_context(
                Fetcher(
                    room,
                    limits=replace(limits.of_scheduler, enough_rate=_ENOUGH_RATE),
                    retry=access.retry,
                    bandwidth=limits.bandwidth,
                    memory=limits.memory,
                )
            )
            cache = await opened.enter_async_context(BlobInfoCache(self._blob_info))
            transfer = Transfer(
                origin,
                target,
                fetcher,
                room,
                tell,
                repositories=(*_repositories(source), *options.repositories),
                repository=next(iter(_repositories(destination)), None),
                cache=cache,
                at_once=limits.max_parallel_downloads,
                ceilings=limits.ceilings,
            )
            return await ImageCopy(transfer, options, self._platform, notary).run()

    async def _pull(
        self, source: Source, destination: StorageLocation, options: CopyOptions, notary: Notary, tell: Teller
    ) -> CopiedImage:
        """A copy into a store: what is stored is what the source says, to the bit, and nothing can be chosen."""
        from asyncpull.pull import Puller  # these two bring along what other copies do not need
        from asyncpull.store.store import Store

        if options.selection.instances is not Instances.SYSTEM:
            raise UsageError(f"{destination}: a store holds one image of an index", "leave out --all and --multi-arch")
        if options.format is not None or options.compression is not None:
            raise UsageError(f"{destination}: a store holds an image as it comes, not in another format or compression")
        name = parse_reference(destination.name)

        async def admit(document: SourceDocument, is_instance: bool) -> tuple[Signature, ...]:
            await notary.admit(document.raw, is_instance=is_instance)
            return await notary.signatures(document.digest, document)

        access = self._destination
        async with (
            Store.open(access.store_at(destination)) as store,
            Puller(
                store,
                platform=self._platform,
                access=access.registry,
                limits=self._limits,
                reporter=_Renumbered(self._events, tell.pull),
                retry=self._source.retry,
            ) as puller,
        ):
            pulled = await puller.pull_from(source, name, *options.tags, admit=admit)
        digests = {pulled.digest: pulled.digest}
        return CopiedImage(source.name, str(destination), pulled.digest, digests, pulled.bytes_fetched, pulled.seconds)

    async def _client(self, access: Access) -> RegistryClient:
        """The client for one side; both have the same where they are reached in the same way, and all copies."""
        if id(access) not in self._clients:
            client = RegistryClient(access.registry, retry=access.retry)
            self._clients[id(access)] = access, await self._exits.enter_async_context(client)
        return self._clients[id(access)][1]


@dataclass(frozen=True, slots=True)
class _Renumbered:
    """Passes on the events of a pull as those of the copy that it is."""

    reporter: Reporter
    number: int

    def report(self, event: Event) -> None:
        self.reporter.report(replace(event, pull=self.number))


def _location(place: str | Location) -> Location:
    return parse_location(place) if isinstance(place, str) else place


def _repositories(place: Location) -> tuple[str, ...]:
    """The repository that ``place`` is, if it is one."""
    return (place.reference.name,) if isinstance(place, RegistryLocation) else ()


def _room(wanted: Path | None, opened: AsyncExitStack) -> Path:
    """A directory for what is on its way: that of the destination, or one that this user's copies have together.

    Where somebody else has made one of that name, it is one for this copy alone. Raises StoreError.
    """
    directory = wanted or Path(scratch_directory()) / f"asyncpull-{os.geteuid()}"
    with writing(directory):
        directory.mkdir(0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if wanted or (stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077):
            return directory
        own = tempfile.TemporaryDirectory(prefix="asyncpull-", dir=scratch_directory())
        return Path(opened.enter_context(own))
