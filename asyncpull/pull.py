"""A pull, from a reference to an image in the store. This is the only module that knows the order of the stages::

    resolve   reference -> index? -> manifest -> is it accepted? -> config             resolve, source, trust
    plan      per layer: reuse, copy or fetch                                          plan
    stage     the download and the extraction of a layer overlap, layers run together  stage, fetch, extract
    commit    in order, under one short lock                                           store

Nothing is visible in the store before blob digest, size and diff ID of every layer have matched (``stage``).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from asyncpull.errors import NotInStoreError
from asyncpull.estimate import estimate_pull, growth_of
from asyncpull.events import EventHub
from asyncpull.fetch.fetcher import Fetcher
from asyncpull.limits import Limits
from asyncpull.lockfile import LockWait, hearing_waits
from asyncpull.log import Log
from asyncpull.plan import LayerAction, PulledImage, PullPlan, PullPolicy, plan_pull
from asyncpull.progress import (
    CommitCompleted,
    CommitStarted,
    LockAwaited,
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
from asyncpull.resolve import Resolution, Resolver
from asyncpull.sharing import Sharing
from asyncpull.space import Space
from asyncpull.spec.layerid import layer_ids
from asyncpull.spec.platform import host_platform
from asyncpull.spool import recorded_bytes
from asyncpull.stage import LayerStager, StagedStep, new_image, pulled_image
from asyncpull.trust.gate import Gate
from asyncpull.waiting import run_all, run_beside
from asyncpull.workers import prepare_for, workers_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from asyncpull.estimate import PullEstimate
    from asyncpull.events import EventStream
    from asyncpull.extract.pool import WorkerPool
    from asyncpull.plan import ResolvedImage
    from asyncpull.registry.config import RegistryAccess
    from asyncpull.resolve import Admit
    from asyncpull.retry import RetryPolicy
    from asyncpull.sharing import Share
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.source import Source
    from asyncpull.store.store import Store
    from asyncpull.trust.policyfile import TrustOptions

# How many pulls ask for their manifests at once.
_RESOLVED_AT_ONCE = 8

# How often a plan is made again because somebody removed a layer that it reuses.
_ATTEMPTS = 3

_log = Log(__name__)


class Puller:
    """Pulls images into ``store``; an async context manager, and one scheduler for all pulls made through it.

    ``platform`` is that of this machine unless given. ``access`` says how registries are trusted and where credentials
    are; ``trust`` which policy decides about images, that of this machine if not given. ``reporter`` hears of every
    pull's progress, on the event loop. ``retry`` says how patient to be with registries. ``keep_blobs`` leaves what was
    fetched in the spool after the commit, to be served to others. A reference that is text may be a short name, which
    means what registries.conf says; where that is several, the first that there is. ``workers``, if they are given, are
    used for its layers and left to whoever gave them. A Puller belongs to the event loop that entered it.
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
        trust: TrustOptions | None = None,
        workers: WorkerPool | None = None,
    ) -> None:
        limits = limits or Limits()
        self._keeps_blobs = keep_blobs
        self._store = store
        self._client = RegistryClient(access, retry=retry)
        self._fetcher = Fetcher(
            store.spool_root,
            limits=limits.of_scheduler,
            retry=retry,
            bandwidth=limits.bandwidth,
            memory=limits.memory,
        )
        self._resolver = Resolver(store, self._client, platform or host_platform(), Gate(trust), self._fetcher)
        self._workers = workers or workers_of(store, limits.workers)
        self._owns_workers = workers is None
        self._ceilings = limits.ceilings
        self._sharing = Sharing()
        self._space = Space(store.spool_root, store.config.graph_root)
        self._events = EventHub(reporter or Silent())
        self._resolving = asyncio.Semaphore(_RESOLVED_AT_ONCE)
        self._numbers = itertools.count(1)
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entered:
            if self._owns_workers:
                await entered.enter_async_context(self._workers)
            for part in (self._client, self._fetcher):
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
        LayerError if what it gives is refused; PolicyError if the policy refuses it; StoreError; NotInStoreError for
        NEVER; WorkerError.
        """
        tell = Teller(self._events, next(self._numbers), str(reference))
        return await self._pull(reference, lambda: self._resolve(reference, when), tell)

    async def _resolve(self, reference: str | Reference, when: PullPolicy) -> Resolution:
        """Resolve; while the registry is asked, a worker starts for an image that the store does not know."""
        if when is not PullPolicy.NEVER:
            await prepare_for((reference,), self._store, self._workers)
        return await self._resolver.resolve(reference, when)

    async def pull_from(self, source: Source, reference: Reference, *names: Reference, admit: Admit) -> PulledImage:
        """Pull what an open source gives, wherever it is, and call it ``reference`` in the store, and ``names``.

        Of an index the instance for the platform is taken. ``admit`` decides about its manifest, in place of this
        Puller's policy, which knows registries only; the image has the signatures that it gives. Otherwise as ``pull``.
        """
        tell = Teller(self._events, next(self._numbers), source.name)

        async def resolve() -> Resolution:
            found = await self._resolver.read(source, reference, admit)
            return replace(found, image=replace(found.image, names=(reference, *names)))

        return await self._pull(source.name, resolve, tell)

    @asynccontextmanager
    async def mounted(
        self, reference: str | Reference, *, when: PullPolicy = PullPolicy.MISSING
    ) -> AsyncIterator[Path]:
        """Pull an image and mount it, read-only, for the time of the body; gives the path.

        Raises what ``pull`` raises, and MountError where it cannot be mounted here.
        """
        tell = Teller(self._events, next(self._numbers), str(reference))
        pulled = await self._pull(reference, lambda: self._resolver.resolve(reference, when), tell)
        async with AsyncExitStack() as exits:
            path = await exits.enter_async_context(self._store.mounted(await self._store.image(pulled.id)))
            tell(Mounted, path=str(path))
            try:
                yield path
            finally:
                await exits.aclose()
                tell(Unmounted, path=str(path))

    async def _pull(
        self, reference: str | Reference, resolve: Callable[[], Awaitable[Resolution]], tell: Teller
    ) -> PulledImage:
        started = time.monotonic()
        tell(PullStarted)
        try:
            with hearing_waits(lambda wait: _tell_of_wait(tell, wait)):
                async with self._resolving:
                    tell(ResolveStarted)
                    found = await resolve()
                if found.is_in_store:
                    plan, steps = plan_pull(found.image, await self._store.snapshot()), list[StagedStep]()
                else:
                    plan, steps = await self._bring_in(found.image, found.source, tell)
        except BaseException as error:
            tell(PullFailed, reason=str(error) or type(error).__name__)
            raise
        pulled = pulled_image(str(reference), plan, steps, time.monotonic() - started)
        tell(PullCompleted, image_id=pulled.id, bytes_fetched=pulled.bytes_fetched, seconds=pulled.seconds)
        return pulled

    async def plan(self, reference: str | Reference) -> PullEstimate:
        """What a pull of ``reference`` would do and cost. The registry is asked for the documents and for no layer.

        Raises what ``pull`` raises before it fetches anything.
        """
        found = await self._resolver.resolve(reference, PullPolicy.ALWAYS)
        return await self._estimate(found.image)

    async def tags(self, repository: str | Reference) -> tuple[Reference, ...]:
        """A reference for each tag of a repository, as its registry lists them. Raises SourceError, DocumentError."""
        return await self._resolver.tags(repository)

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
        layers, blobs = layer_ids(image.config.diff_ids), [blob.digest for blob in image.layers]
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
        if not self._keeps_blobs:  # all of them: a pull that was killed after its commit has left spools behind
            await run_all(self._fetcher.discard(blob) for blob in set(blobs) if share.is_last_to_want(blob))
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
            stager = LayerStager(
                plan, self._store, staging, source, self._fetcher, self._workers, share, tell, self._ceilings
            )
            async with self._store.writing_out():
                steps = await run_beside(stager.stage(), room.refused())
            tell(CommitStarted)
            await self._store.commit(staging, new_image(image, steps))
            share.is_committed = True
            tell(CommitCompleted)
        return plan, steps


def _tell_of_wait(tell: Teller, wait: LockWait) -> None:
    tell(LockAwaited, path=str(wait.path), seconds=wait.seconds, holders=", ".join(map(str, wait.holders)))
