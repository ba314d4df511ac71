"""A pull, from a reference to an image in the store. This is the only module that knows the order of the stages::

    resolve   reference -> index? -> manifest -> config                                resolve, source
    plan      per layer: reuse, copy or fetch                                          plan
    stage     the download and the extraction of a layer overlap, layers run together  stage, fetch, extract
    commit    in order, under one short lock                                           store

Nothing is visible in the store before blob digest, size and diff ID of every layer have matched (``stage``).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from asyncpull.errors import NotInStoreError, PolicyError, SourceError
from asyncpull.estimate import estimate_pull, growth_of
from asyncpull.events import EventHub
from asyncpull.extract.pool import WorkerPool
from asyncpull.fetch.congestion import CongestionLimits
from asyncpull.fetch.fetcher import MEMORY, Fetcher
from asyncpull.fetch.scheduler import SchedulerLimits
from asyncpull.log import Log
from asyncpull.plan import LayerAction, PulledImage, PulledLayer, PullPlan, PullPolicy, ResolvedImage, plan_pull
from asyncpull.progress import (
    CommitCompleted,
    CommitStarted,
    Mounted,
    PullCompleted,
    PullFailed,
    PullStarted,
    Reporter,
    Resolved,
    ResolveStarted,
    Silent,
    Teller,
    Unmounted,
)
from asyncpull.registry.client import RegistryClient
from asyncpull.resolve import resolve_image, resolved_from_store
from asyncpull.sharing import Sharing
from asyncpull.source.registry import RegistrySource
from asyncpull.space import Space
from asyncpull.spec.layerid import layer_ids
from asyncpull.spec.platform import host_platform
from asyncpull.spec.reference import Reference, has_domain, parse_reference
from asyncpull.spool import recorded_bytes
from asyncpull.stage import LayerStager, StagedStep
from asyncpull.store.staging import NewImage
from asyncpull.waiting import run_beside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from asyncpull.estimate import PullEstimate
    from asyncpull.events import EventStream
    from asyncpull.registry.config import RegistryAccess
    from asyncpull.retry import RetryPolicy
    from asyncpull.sharing import Share
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.source import Source
    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord

# How many pulls ask for their manifests at once.
_RESOLVED_AT_ONCE = 8

# How often a plan is made again because somebody removed a layer that it reuses.
_ATTEMPTS = 3

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one Puller, however many pulls it does at once.

    ``max_parallel_downloads`` counts blobs on their way; ``workers`` extracting processes, None is cores + 2.
    ``connections`` is how many are open for blobs, in all, and ``connections_per_registry`` to any one registry.
    ``bandwidth`` is bytes a second over all downloads, None is no limit; ``memory`` is bytes that were received and are
    not written yet.
    """

    max_parallel_downloads: int = 6
    workers: int | None = None
    connections: int = 16
    connections_per_registry: int = 16
    bandwidth: float | None = None
    memory: int = MEMORY

    @property
    def of_scheduler(self) -> SchedulerLimits:
        """Those that are the scheduler's."""
        usual, most = CongestionLimits(), self.connections_per_registry
        window = replace(usual, first=min(usual.first, most), most=most)
        return SchedulerLimits(self.max_parallel_downloads, self.connections, congestion=window)


class Puller:
    """Pulls images into ``store``; an async context manager, and one scheduler for all pulls made through it.

    ``platform`` is that of this machine unless given. ``access`` says how registries are trusted and where
    credentials are. ``reporter`` hears of every pull's progress, on the event loop. ``retry`` says how patient to be
    with registries. ``keep_blobs`` leaves what was fetched in the spool after the commit, to be served to others. A
    reference that is text may be a short name, which means what registries.conf says; where that is several, the first
    that there is. A Puller belongs to the event loop that entered it.
    """

    def __init__(
        self,
        store: Store,
        *,
        platform: Platform | None = None,
        access: RegistryAccess | None = None,
        limits: Limits | None = None,
        reporter: Reporter | None = None,
        retry: RetryPolicy | None = None,
        keep_blobs: bool = False,
    ) -> None:
        limits = limits or Limits()
        self._keeps_blobs = keep_blobs
        self._store = store
        self._platform = platform or host_platform()
        self._client = RegistryClient(access, retry=retry)
        self._fetcher = Fetcher(
            store.spool_root,
            limits=limits.of_scheduler,
            retry=retry,
            bandwidth=limits.bandwidth,
            memory=limits.memory,
        )
        self._pool = WorkerPool(limits.workers)
        self._sharing = Sharing()
        self._space = Space(store.spool_root, store.config.graph_root)
        self._events = EventHub(reporter or Silent())
        self._resolving = asyncio.Semaphore(_RESOLVED_AT_ONCE)
        self._numbers = itertools.count(1)
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entered:
            for part in (self._pool, self._client, self._fetcher):
                await entered.enter_async_context(part)
            self._exits = entered.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._exits.aclose()
        finally:
            self._events.close()

    def events(self) -> EventStream:
        """The events of all pulls from now on, as an async iterator that ends when the Puller is closed.

        There may be several, each for one reader. A slow one gets the latest of what it missed (``events``).
        """
        return self._events.stream()

    async def pull(self, reference: str | Reference, *, when: PullPolicy = PullPolicy.ALWAYS) -> PulledImage:
        """Pull what ``reference`` names, unless ``when`` says that what the store has will do.

        After it returns the image is in the store under that name, whole, and survives a power cut. After an error
        the store lists what it listed before; what was received stays for the next pull. The same goes for a
        cancellation, but for a commit that has begun: that runs to its end.

        Raises InvalidReferenceError; SourceError if the registry does not give it; DocumentError, IntegrityError,
        LayerError if what it gives is refused; StoreError; NotInStoreError for NEVER; WorkerError.
        """
        return await self._pull(reference, when, Teller(self._events, next(self._numbers), str(reference)))

    @asynccontextmanager
    async def mounted(
        self, reference: str | Reference, *, when: PullPolicy = PullPolicy.MISSING
    ) -> AsyncIterator[Path]:
        """Pull an image and mount it, read-only, for the time of the body; gives the path.

        Raises what ``pull`` raises, and MountError where it cannot be mounted here.
        """
        tell = Teller(self._events, next(self._numbers), str(reference))
        pulled = await self._pull(reference, when, tell)
        async with AsyncExitStack() as exits:
            path = await exits.enter_async_context(self._store.mounted(await self._store.image(pulled.id)))
            tell(Mounted, path=str(path))
            try:
                yield path
            finally:
                await exits.aclose()
                tell(Unmounted, path=str(path))

    async def _pull(self, reference: str | Reference, when: PullPolicy, tell: Teller) -> PulledImage:
        started = time.monotonic()
        tell(PullStarted)
        try:
            async with self._resolving:
                tell(ResolveStarted)
                source, image, is_here = await self._resolve(reference, when)
            if is_here:
                plan, steps = plan_pull(image, await self._store.snapshot()), list[StagedStep]()
            else:
                plan, steps = await self._bring_in(image, source, tell)
        except BaseException as error:
            tell(PullFailed, reason=str(error) or type(error).__name__)
            raise
        pulled = _pulled_image(str(reference), plan, steps, time.monotonic() - started)
        tell(PullCompleted, image_id=pulled.id, bytes_fetched=pulled.bytes_fetched, seconds=pulled.seconds)
        return pulled

    async def plan(self, reference: str | Reference) -> PullEstimate:
        """What a pull of ``reference`` would do and cost. The registry is asked for the documents and for no layer.

        Raises what ``pull`` raises before it fetches anything.
        """
        _, image, _ = await self._resolve(reference, PullPolicy.ALWAYS)
        return await self._estimate(image)

    async def _estimate(self, image: ResolvedImage) -> PullEstimate:
        """Plan, at the price it has now."""
        snapshot = await self._store.snapshot()
        plan = plan_pull(image, snapshot)
        blobs = {step.blob.digest: step.blob.size for step in plan.having(LayerAction.FETCH)}
        recorded = await asyncio.to_thread(self._recorded, blobs)
        copied = {layer.id: layer.diff_size for layer in snapshot.layers.values()}
        return estimate_pull(plan, growth_of(snapshot.layers.values()), recorded, copied)

    def _recorded(self, blobs: Mapping[Digest, int]) -> dict[Digest, int]:
        return {digest: recorded_bytes(self._store.spool_root, digest, size) for digest, size in blobs.items()}

    async def _bring_in(self, image: ResolvedImage, source: Source, tell: Teller) -> tuple[PullPlan, list[StagedStep]]:
        """Plan, stage and commit; again, if a layer that was to be reused has gone in the meantime."""
        layers, blobs = layer_ids(image.config.diff_ids), [blob.digest for blob in image.manifest.layers]
        async with self._store.image_lock(image.manifest.digest):
            with self._sharing.joined(tell.pull, layers, blobs) as share:
                for attempt in itertools.count(1):
                    try:
                        plan, steps = await self._attempt(image, source, share, tell)
                        break
                    except NotInStoreError:
                        if attempt == _ATTEMPTS:
                            raise
                        _log.info("a layer to be reused went away, planning again", image=str(image.reference))
        for blob in blobs:  # all of them: a pull that was killed after its commit has left spools behind
            if not self._keeps_blobs and share.is_last_to_want(blob):
                await self._fetcher.discard(blob)
        return plan, steps

    async def _attempt(
        self, image: ResolvedImage, source: Source, share: Share, tell: Teller
    ) -> tuple[PullPlan, list[StagedStep]]:
        """Plan, stage and commit. Raises NotInStoreError if a layer that was to be reused is gone."""
        estimate = await self._estimate(image)
        plan = estimate.plan
        tell(
            Resolved,
            digest=str(image.digest),
            layers=len(plan.steps),
            reused=len(plan.steps) - len(plan.having(LayerAction.FETCH)),
            bytes_to_fetch=plan.bytes_to_fetch,
        )
        async with self._store.stage() as staging, self._space.reserved(share.place, estimate, tell.reporter) as room:
            tell = replace(tell, reporter=room)
            stager = LayerStager(self._store, staging, source, self._fetcher, self._pool, share, tell)
            steps = await run_beside(stager.stage(plan), room.refused())
            tell(CommitStarted)
            await self._store.commit(staging, _new_image(image, steps))
            share.is_committed = True
            tell(CommitCompleted)
        return plan, steps

    async def _resolve(self, reference: str | Reference, when: PullPolicy) -> tuple[Source, ResolvedImage, bool]:
        """The image that is meant and its source; true if ``when`` is content with that of the store.

        Raises NotInStoreError for NEVER, and where a short name means several, the error of the last one.
        """
        meanings = (reference,) if isinstance(reference, Reference) else await self._meanings(reference)
        for wanted in meanings if when is not PullPolicy.ALWAYS else ():
            source = RegistrySource(self._client, wanted)
            with suppress(NotInStoreError):
                record = await self._store.image(wanted.store_name)
                if when is PullPolicy.NEWER and await _is_outdated(record, source):
                    meanings = (wanted,)
                    break
                return source, await self._stored_image(wanted, record), True
        if when is PullPolicy.NEVER:
            raise NotInStoreError(f"{reference} is not in the store", hint="pull it without --pull never")
        for wanted in meanings[:-1]:
            source = RegistrySource(self._client, wanted)
            try:
                return source, await resolve_image(source, wanted, self._platform), False
            except (SourceError, PolicyError) as error:
                _log.info("a short name is not what was tried first", tried=str(wanted), reason=str(error))
        source = RegistrySource(self._client, meanings[-1])
        return source, await resolve_image(source, meanings[-1], self._platform), False

    async def _meanings(self, text: str) -> tuple[Reference, ...]:
        """What ``text`` may name, in the order to be tried. Raises InvalidReferenceError, UsageError."""
        if text.startswith("docker://") or has_domain(text):
            return (parse_reference(text),)
        parse_reference(text)  # what cannot be meant is told before anything is read
        return (await self._client.registries()).candidates(text).unasked()

    async def tags(self, repository: str | Reference) -> tuple[Reference, ...]:
        """A reference for each tag of a repository, as its registry lists them. Raises SourceError, DocumentError."""
        meanings = (repository,) if isinstance(repository, Reference) else await self._meanings(repository)
        return tuple(parse_reference(f"{meanings[0].name}:{tag}") for tag in await self._client.tags(meanings[0]))

    async def _stored_image(self, wanted: Reference, record: ImageRecord) -> ResolvedImage:
        index_key = f"manifest-{record.digest}"
        return resolved_from_store(
            wanted,
            manifest=await self._store.big_data(record, "manifest"),
            config=await self._store.big_data(record, f"sha256:{record.id}"),
            index=await self._store.big_data(record, index_key) if index_key in record.big_data_names else None,
        )


async def _is_outdated(record: ImageRecord, source: Source) -> bool:
    """Whether the source has another image now; what cannot be asked is taken for no."""
    try:
        return str(await source.digest()) not in record.digests
    except SourceError as error:
        _log.warning("cannot ask for a newer image, using the one in the store", reason=str(error))
        return False


def _new_image(image: ResolvedImage, steps: list[StagedStep]) -> NewImage:
    """The image record to commit; its big data in podman's order (format, section 6.4)."""
    manifest = image.manifest
    documents = [(str(manifest.config.digest), image.config.raw)]
    if image.index is not None:
        documents.append((f"manifest-{image.index.digest}", image.index.raw))
    documents += [(f"manifest-{manifest.digest}", manifest.raw), ("manifest", manifest.raw)]
    return NewImage(
        id=image.id,
        digest=image.digest,
        names=(image.reference.store_name,),
        layers=tuple(step.layer for step in steps),
        big_data=tuple(documents),
        created=image.config.created,
    )


def _pulled_image(reference: str, plan: PullPlan, steps: list[StagedStep], seconds: float) -> PulledImage:
    fetched = {step.layer.id for step in steps if not step.reused}
    layers = tuple(
        PulledLayer(step.id, step.blob.digest, step.diff_id, step.blob.size, reused=step.id not in fetched)
        for step in plan.steps
    )
    return PulledImage(
        reference=reference,
        id=plan.image.id,
        digest=plan.image.digest,
        layers=layers,
        bytes_fetched=sum(step.fetched for step in steps),
        bytes_resumed=sum(step.resumed for step in steps),
        seconds=seconds,
    )
