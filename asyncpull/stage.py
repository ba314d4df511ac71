"""Staging the layers of one plan: each is fetched and extracted at the same time, or copied, all of them together.

What comes out are the layers to commit, from the base layer up. A fetched one is made from ``Extracted``, which a
worker answers if and only if blob digest, blob size and diff ID are right.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import field, replace
from typing import TYPE_CHECKING, cast

from asyncpull.dataclass import dataclass
from asyncpull.errors import IntegrityError, NotInStoreError, StoreCorruptError, StoreError
from asyncpull.extract.processes import BlobFront
from asyncpull.extract.protocol import AdoptJob, ApplyJob, CopyJob, Extracted, ReapplyJob
from asyncpull.fetch.afresh import use_fetched
from asyncpull.fetch.fetcher import NotWantedError
from asyncpull.log import Log
from asyncpull.plan import LayerAction, PulledImage, PulledLayer, blob_bytes
from asyncpull.progress import (
    ExtractAdvanced,
    ExtractCompleted,
    ExtractStarted,
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchServed,
    FetchStarted,
    LayerQueued,
    LayerReused,
    VerifyCompleted,
    VerifyStarted,
)
from asyncpull.spec.digest import Digest
from asyncpull.spec.signature import signature_to_file
from asyncpull.store.staging import NewImage, NewLayer
from asyncpull.waiting import run_all

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from asyncpull.extract.pool import WorkerPool
    from asyncpull.fetch.fetcher import Fetcher, FetchingBlob
    from asyncpull.layer.ceilings import Ceilings
    from asyncpull.plan import LayerStep, PullPlan, ResolvedImage
    from asyncpull.progress import Teller
    from asyncpull.sharing import Share
    from asyncpull.spec.source import Source
    from asyncpull.store.staging import StagedLayer, Staging
    from asyncpull.store.store import Store
    from asyncpull.store.views import LayerRecord

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class StagedStep:
    """A step that was done.

    ``implied`` are the directories that the archive only implies. ``fetched`` bytes of the blob came over the network
    now, ``resumed`` bytes were here from an earlier pull. ``reused`` tells that the store had it, here or elsewhere.
    """

    layer: NewLayer
    implied: tuple[bytes, ...] = ()
    fetched: int = 0
    resumed: int = 0
    reused: bool = True


@dataclass(frozen=True, slots=True)
class LayerStager:
    """Does the steps of ``plan``, in one staging area of a store, as ``share`` allows."""

    plan: PullPlan
    store: Store
    staging: Staging
    source: Source
    fetcher: Fetcher
    pool: WorkerPool
    share: Share
    tell: Teller
    ceilings: Ceilings
    # What the steps came to, by layer ID, for those who need the layer below them complete.
    _done: dict[str, asyncio.Future[StagedLayer | None]] = field(default_factory=dict, init=False)

    async def stage(self) -> list[StagedStep]:
        """Do all steps. Raises what the first one that failed raised, when all others have ended.

        That is a SourceError, IntegrityError, LayerError, StoreError or WorkerError.
        """
        self.pool.prepare(sum(step.action is not LayerAction.REUSE for step in self.plan.steps))
        loop = asyncio.get_running_loop()
        self._done.update((step.id, loop.create_future()) for step in self.plan.steps)
        steps = await run_all(self._run_step(step) for step in self.plan.steps)
        if self.store.is_layered:
            await self._adopt(steps)
        return steps

    async def _run_step(self, step: LayerStep) -> StagedStep:
        done = await self._stage_step(step)
        self._done[step.id].set_result(done.layer.staged)
        return done

    async def _new_layer(self, step: LayerStep) -> StagedLayer:
        """Make room for a layer, as soon as what it needs of its parent is there.

        Of a layered driver that is nothing. In others the layers of an image are made one after the other, whatever
        the order in which they arrive. Nobody is kept waiting by that but this plan: the lock of a spool is given back
        when its blob is complete, and a worker is not taken before.
        """
        below = None
        if step.parent is not None and not self.store.is_layered:
            await asyncio.wait((self._done[step.parent],))
            below = self._done[step.parent].result()
        return await self.store.new_layer(self.staging, step.parent, below)

    async def _stage_step(self, step: LayerStep) -> StagedStep:
        if step.action is not LayerAction.REUSE:
            step = await self._turn(step)
        if step.action is LayerAction.REUSE:
            return self._reused(step)
        if step.action is LayerAction.COPY and step.copy_from is not None:
            try:
                return await self._copy(step, step.copy_from)
            except NotInStoreError:
                pass  # it has no tar-split, or somebody removed it while it was copied; it can still be fetched
        self.tell(LayerQueued, digest=str(step.blob.digest), size=step.blob.size)
        try:
            return await self._fetch(step)
        except NotWantedError:  # another process has brought it in while this waited for its turn
            return await self._stage_step(step.with_store(await self.store.snapshot()))

    async def _is_still_missing(self, step: LayerStep) -> bool:
        """Whether the layer has to be fetched, also now. A step that was to copy has tried to."""
        action = step.with_store(await self.store.snapshot()).action
        return action is LayerAction.FETCH or action is step.action

    async def _turn(self, step: LayerStep) -> LayerStep:
        """Wait for the earlier pulls that are to bring in the layer; the step as it is to be done after that."""
        earlier = self.share.holder(step.id)
        if earlier is None:
            return step
        while earlier is not None:
            self.tell(LayerQueued, digest=str(step.blob.digest), size=step.blob.size, behind=earlier.pull)
            if await earlier.ended():
                return replace(step, action=LayerAction.REUSE)
            earlier = self.share.holder(step.id)
        return step.with_store(await self.store.snapshot())

    def _reused(self, step: LayerStep) -> StagedStep:
        self.tell(LayerReused, digest=str(step.blob.digest), size=step.blob.size)
        return StagedStep(NewLayer(step.id, step.parent, None, step.diff_id))

    async def _copy(self, step: LayerStep, other: str) -> StagedStep:
        """Copy the layer ``other``. Raises NotInStoreError unless it was in the store, whole, until the end."""
        record, identity = await self._layer_to_copy(other)
        staged = await self._new_layer(step)
        try:
            implied = await self.pool.run(self._copy_job(step, other, staged), self.staging.lock_fds)
        except (IntegrityError, StoreCorruptError) as error:
            _log.warning("a layer is not what it was, and cannot be copied", layer=other, reason=str(error))
            raise NotInStoreError(f"layer {other} is damaged") from error
        except StoreError:
            await self._layer_to_copy(other)  # if it is gone, that was the reason
            raise
        if await self._layer_to_copy(other) != (record, identity):
            raise NotInStoreError(f"layer {other} was replaced while it was copied")
        self.tell(LayerReused, digest=str(step.blob.digest), size=step.blob.size)
        layer = NewLayer(
            id=step.id,
            parent=step.parent,
            staged=staged,
            diff_digest=step.diff_id,
            diff_size=record.diff_size,
            compressed_digest=Digest.parse(record.compressed_digest) if record.compressed_digest else None,
            compressed_size=record.compressed_size,
            compression=record.compression,
            uidset=record.uidset,
            gidset=record.gidset,
        )
        return StagedStep(layer, cast("tuple[bytes, ...] | None", implied) or ())

    def _copy_job(self, step: LayerStep, other: str, staged: StagedLayer) -> CopyJob | ReapplyJob:
        """How the layer ``other`` is made again elsewhere: of a complete tree only its archive can be."""
        source, tar_split = str(self.store.diff_path(other)), str(self.store.tar_split_path(other))
        config = self.store.config
        if self.store.is_layered:
            return CopyJob(source, tar_split, str(staged.diff), str(staged.tar_split), config.rootless)
        return ReapplyJob(
            source_diff=source,
            source_tar_split=tar_split,
            diff_id=step.diff_id,
            base=str(staged.base) if staged.base else None,
            diff=str(staged.diff),
            tar_split=str(staged.tar_split),
            marks=self.store.marks,
            in_userns=config.rootless,
            ignore_chown_errors=config.ignore_chown_errors,
        )

    async def _layer_to_copy(self, other: str) -> tuple[LayerRecord, tuple[int, int]]:
        """Its record, and what its tree is to the kernel, which is another if it was removed and made again.

        Raises NotInStoreError also if it has no tar-split, without which it cannot be made again elsewhere.
        """
        record = await self.store.layer(other)
        try:
            self.store.tar_split_path(other).stat()
            tree = self.store.diff_path(other).stat()
            return record, (tree.st_dev, tree.st_ino)
        except OSError as error:
            raise NotInStoreError(f"layer {other} is not there to be copied", hint="pull the image again") from error

    async def _fetch(self, step: LayerStep) -> StagedStep:
        """Fetch and extract a layer; where its digest is wrong, again from one endpoint alone (fetch/afresh.py)."""
        digest = str(step.blob.digest)
        front = BlobFront(step.blob.size)

        def opening(origin: str | None, afresh: bool) -> AbstractAsyncContextManager[FetchingBlob]:
            nonlocal front
            front = BlobFront(step.blob.size)
            return self.fetcher.open(
                step.blob,
                self.source,
                on_front=self.tell.position(FetchAdvanced, str(step.blob.digest), step.blob.size, front.advance),
                on_retry=lambda reason, delay: self.tell(FetchRetried, digest=digest, reason=reason, delay=delay),
                on_origin=lambda origin: self.tell(FetchServed, digest=digest, origin=origin),
                still_wanted=lambda: self._is_still_missing(step),
                afresh=afresh,
                origin=origin,
            )

        async def use(blob: FetchingBlob) -> StagedStep:
            front.advance(blob.front)
            self.tell(FetchStarted, digest=digest, size=step.blob.size, position=blob.front)
            staged, extracted = await self._extract(step, blob, front)
            return self._staged_step(step, staged, extracted, blob)

        return await use_fetched(self.fetcher, step.blob, self.source, opening, use)

    async def _extract(self, step: LayerStep, blob: FetchingBlob, front: BlobFront) -> tuple[StagedLayer, Extracted]:
        """Have a worker extract the blob while it arrives."""
        digest = str(step.blob.digest)

        async def arrival() -> None:
            await blob.completed()
            self.tell(FetchCompleted, digest=digest, size=step.blob.size)
            self.tell(VerifyStarted, digest=digest, size=step.blob.size)

        async def extraction() -> tuple[StagedLayer, Extracted]:
            staged = await self._new_layer(step)
            await front.begun()
            self.tell(ExtractStarted, digest=digest, size=step.blob.size)
            job = ApplyJob(
                blob=step.blob.digest,
                size=step.blob.size,
                diff_id=step.diff_id,
                diff=str(staged.diff),
                tar_split=str(staged.tar_split),
                front=front.position,
                marks=self.store.marks,
                in_userns=self.store.config.rootless,
                ignore_chown_errors=self.store.config.ignore_chown_errors,
                base=str(staged.base) if staged.base else None,
                ceilings=self.ceilings,
            )
            on_advance = self.tell.position(ExtractAdvanced, str(step.blob.digest), step.blob.size)
            fds = (blob.fd, *self.staging.lock_fds)
            result = await self.pool.apply(job, fds, front, on_advance, beside=self._bytes_left())
            return staged, cast("Extracted", result)

        _, result = await run_all((arrival(), extraction()))
        staged, extracted = cast("tuple[StagedLayer, Extracted]", result)
        self.tell(VerifyCompleted, digest=digest)
        self.tell(ExtractCompleted, digest=digest, size=extracted.diff_size)
        return staged, extracted

    def _bytes_left(self) -> int:
        """The size of all blobs whose layers are not done, each counted once."""
        return blob_bytes(step for step in self.plan.having(LayerAction.FETCH) if not self._done[step.id].done())

    def _staged_step(
        self, step: LayerStep, staged: StagedLayer, extracted: Extracted, blob: FetchingBlob
    ) -> StagedStep:
        layer = NewLayer(
            id=step.id,
            parent=step.parent,
            staged=staged,
            diff_digest=step.diff_id,
            diff_size=extracted.diff_size,
            compressed_digest=step.blob.digest,
            compressed_size=step.blob.size,
            compression=extracted.compression,
            uidset=extracted.uidset,
            gidset=extracted.gidset,
        )
        return StagedStep(layer, extracted.implied, 0 if blob.is_shared else blob.fetched, blob.resumed, reused=False)

    async def _adopt(self, steps: list[StagedStep]) -> None:
        """Let directories that a layer only implies be what they are in the layers below it."""
        implied = {index: step.implied for index, step in enumerate(steps) if index and step.implied}
        if not implied:
            return
        diffs = [
            str(step.layer.staged.diff if step.layer.staged else self.store.diff_path(step.layer.id)) for step in steps
        ]
        await self.pool.run(
            AdoptJob(tuple(diffs), implied, self.store.marks, self.store.config.rootless), self.staging.lock_fds
        )


def new_image(image: ResolvedImage, steps: list[StagedStep]) -> NewImage:
    """The image record to commit; its big data in podman's order (format, section 6.4)."""
    manifest = image.manifest
    documents = [(str(manifest.config.digest), image.config.raw)]
    if image.index is not None:
        documents.append((f"manifest-{image.index.digest}", image.index.raw))
    documents += [(f"manifest-{manifest.digest}", manifest.raw), ("manifest", manifest.raw)]
    signatures = [signature_to_file(each) for each in image.signatures]
    metadata: dict[str, object] = {}
    if signatures:
        sizes = [len(each) for each in signatures]
        metadata = {"signature-sizes": sizes, "signatures-sizes": {str(manifest.digest): sizes}}
        joined = b"".join(signatures)
        documents += [("signatures", joined), (f"signature-{manifest.digest.encoded}", joined)]
    return NewImage(
        id=image.id,
        digest=image.digest,
        names=tuple(dict.fromkeys(name.store_name for name in image.names or (image.reference,))),
        layers=tuple(step.layer for step in steps),
        big_data=tuple(documents),
        created=image.config.created,
        metadata=json.dumps(metadata, separators=(",", ":")),
    )


def pulled_image(reference: str, plan: PullPlan, steps: list[StagedStep], seconds: float) -> PulledImage:
    """What a pull came to that did ``steps``; none, if the store had the image."""
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
