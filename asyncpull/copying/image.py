"""One image, or one index, on its way from an open source to an open destination: what it consists of, in order.

Blobs first, then the manifests that an index lists, then the document that gets the name. What need not change is
passed on bit for bit; what changes is converted by ``spec.conversion``, from the bottom up.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncpull.copying.plan import COMPRESSIONS, CopyOptions, Instances, ManifestFormat, is_left, plan_copy, selected
from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, SourceError, UsageError
from asyncpull.layer.codec import Compression
from asyncpull.log import Log
from asyncpull.progress import CommitCompleted, CommitStarted, CopyResolved
from asyncpull.spec.conversion import (
    convert_index,
    convert_manifest,
    instance_of,
    missing_variants,
    replaced_layer,
)
from asyncpull.spec.destination import NamedDestination
from asyncpull.spec.manifest import CONFIG_LIMIT, ImageConfig, Index, Manifest, is_schema1, parse_document
from asyncpull.spec.mediatype import OCI_INDEX, is_index
from asyncpull.spec.source import RebuildingSource, ReferredSource, SourceDocument
from asyncpull.waiting import run_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncpull.copying.notary import Notary
    from asyncpull.copying.plan import CopyPlan, LayerStep
    from asyncpull.copying.transfer import Transfer
    from asyncpull.spec.destination import Destination
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.source import Source

# How many manifests of an index are worked on at once; the blobs of all of them are bounded by themselves.
_INSTANCES_AT_ONCE = 4

# An index may list indexes, but not below that.
_DEPTH = 2

# So many manifests are copied because they are about others.
_REFERRERS_LIMIT = 1000

_NAMES = {compression: name for name, compression in COMPRESSIONS.items()}

_log = Log(__name__)


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


def copies_referrers(options: CopyOptions, source: Source, destination: Destination) -> bool:
    """Whether what is about a manifest is copied together with it: with all of an image, between registries."""
    is_whole = options.selection.instances is Instances.ALL
    return is_whole and isinstance(source, ReferredSource) and destination.abilities.lists_referrers


class ImageCopy:
    """Copies by one ``transfer`` what its source names, as ``options`` say; ``platform`` chooses from an index.

    ``notary`` decides about each manifest before anything that it names is asked for.
    """

    def __init__(self, transfer: Transfer, options: CopyOptions, platform: Platform, notary: Notary) -> None:
        self._transfer, self._options, self._platform, self._notary = transfer, options, platform, notary
        self._source, self._destination = transfer.source, transfer.destination
        self._tell = transfer.tell
        self._digests: dict[Digest, Digest] = {}
        self._slots = asyncio.Semaphore(_INSTANCES_AT_ONCE)

    async def run(self) -> CopiedImage:
        """Do it, and give the name to it in the end. Raises what ``Copier.copy`` raises."""
        named = await self._source.manifest()
        if is_schema1(named.raw, named.media_type):
            document, parsed = await self._converted(named)
            is_instance = False
        else:
            named, parsed, is_instance = await self._chosen(named)
            document = named
            await self._judge(document, parsed, is_instance=is_instance)
        if await self._is_there(document, parsed):
            return self._copied(document.digest)
        if isinstance(parsed, Index):
            document = await self._index(document, parsed, _DEPTH)
        else:
            document = await self._manifest(document, parsed)
        await self._notary.certify(named.digest, document, is_instance=False)
        if copies_referrers(self._options, self._source, self._destination):
            same = {digest for digest, after in self._digests.items() if digest == after}
            await self._referrers(same | ({document.digest} & {named.digest}))
        self._tell(CommitStarted)
        digest = await self._destination.commit(document)
        self._tell(CommitCompleted)
        return self._copied(digest)

    async def _converted(self, named: SourceDocument) -> tuple[SourceDocument, Manifest | Index]:
        """What an image of schema 1 is read as, which takes its layers: it is judged before they are asked for."""
        if self._options.preserve_digests:
            raise UsageError(f"{named.digest} is of schema 1", "copy it without --preserve-digests")
        await self._notary.admit(named.raw, is_instance=False)
        self._source = await self._transfer.convert(named)
        document = await self._source.manifest()
        return document, parse_document(document.raw, document.media_type, document.digest, with_artifacts=True)

    async def _chosen(self, named: SourceDocument) -> tuple[SourceDocument, Manifest | Index, bool]:
        """What is copied of what the source names: all of it, or one instance, and whether it is one."""
        document = named
        parsed = parse_document(document.raw, document.media_type, document.digest, with_artifacts=True)
        for _ in range(_DEPTH):
            if isinstance(parsed, Manifest) or self._options.selection.instances is not Instances.SYSTEM:
                break
            document, parsed = await self._document(selected(parsed, self._options.selection, self._platform)[0])
        return document, parsed, document is not named

    async def _judge(self, document: SourceDocument, parsed: Manifest | Index, *, is_instance: bool) -> None:
        """Have a manifest judged; of an index that is copied it is what it lists that is judged, one by one."""
        if isinstance(parsed, Index) and self._options.selection.instances is not Instances.INDEX_ONLY:
            await self._notary.bring(document.raw)
        else:
            await self._notary.admit(document.raw, is_instance=is_instance)

    async def _is_there(self, document: SourceDocument, parsed: Manifest | Index) -> bool:
        """Whether the name stands for the document already and that is good enough."""
        options = self._options
        if not options.skips_equal or not isinstance(self._destination, NamedDestination):
            return False
        is_other = (options.format, options.compression, options.variants, options.tags) != (None, None, (), ())
        is_whole = isinstance(parsed, Manifest) or options.selection.instances is Instances.ALL
        if is_other or not is_whole or self._notary.signs(document.digest):
            return False
        return await self._destination.digest() == document.digest

    def _copied(self, digest: Digest) -> CopiedImage:
        bytes_copied = self._transfer.bytes_copied
        return CopiedImage(self._source.name, self._destination.name, digest, self._digests, bytes_copied, 0.0)

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
        missing = self._missing(index) if depth == _DEPTH else ()

        async def instance(descriptor: Descriptor) -> tuple[Descriptor, SourceDocument]:
            async with self._slots if depth == _DEPTH else nullcontext():
                document, parsed = await self._document(descriptor)
                if isinstance(parsed, Index):
                    document = await self._index(document, parsed, depth - 1)
                else:
                    await self._notary.admit(document.raw, is_instance=True)
                    document = await self._manifest(document, parsed)
                await self._destination.put_manifest(document)
                await self._notary.certify(descriptor.digest, document, is_instance=True)
                return descriptor, document

        copied = await run_all(instance(descriptor) for descriptor in wanted)
        # After all others, whose blobs they are made from.
        added = await run_all(self._variant(origin, compression) for origin, compression in missing)
        return self._edited(document, index, {before.digest: after for before, after in copied}, added)

    async def _referrers(self, subjects: Iterable[Digest]) -> None:
        """Copy what is about these manifests, and about that again: signatures, bills of materials.

        It is there by its digest before anything has the name. A registry that cannot list it has none.
        """
        source = self._source
        assert isinstance(source, ReferredSource)  # as copies_referrers says
        waiting, seen = list(subjects), set(self._digests)
        while waiting:
            subject = waiting.pop()
            try:
                found = await source.referrers(subject)
            except (SourceError, DocumentError) as error:
                _log.warning("what is about a manifest cannot be listed", manifest=str(subject), reason=str(error))
                continue
            for descriptor in found:
                if descriptor.digest in seen:
                    continue
                seen.add(descriptor.digest)
                if len(seen) > _REFERRERS_LIMIT:
                    raise DocumentError(f"{source.name}: more than {_REFERRERS_LIMIT} manifests are about it")
                document, parsed = await self._document(descriptor)
                if self._notary.leaves_behind(document.raw):
                    continue
                if isinstance(parsed, Index):
                    _log.warning("an index that is about a manifest is left out", index=str(descriptor.digest))
                    continue
                if parsed.is_image:
                    await self._notary.admit(document.raw, is_instance=True)
                await self._destination.put_manifest(await self._manifest(document, parsed, CopyOptions()))
                waiting.append(descriptor.digest)

    def _missing(self, index: Index) -> tuple[tuple[Descriptor, str], ...]:
        """The instances to be added in another compression. Raises UsageError where that cannot be."""
        missing = missing_variants(index, [_NAMES[each] for each in self._options.variants])
        if missing and self._options.selection.instances is not Instances.ALL:
            raise UsageError("a compression is added to an index that is copied as a whole", "copy it with --all")
        if missing and self._options.preserve_digests:
            raise UsageError(f"{index.digest} would have to be changed", "copy it without --preserve-digests")
        return missing

    async def _variant(self, origin: Descriptor, compression: str) -> Descriptor:
        """Add an instance that is there once more, in another compression; what the index is to say of it."""
        async with self._slots:
            options = replace(
                self._options,
                format=ManifestFormat.OCI,
                compression=COMPRESSIONS[compression],
                level=None,
                force_compression=True,
            )
            document, parsed = await self._document(origin)
            if isinstance(parsed, Index):
                raise DocumentError(f"index {origin.digest} is listed as {origin.media_type}")
            made = await self._manifest(document, parsed, options)
            await self._destination.put_manifest(made)
            await self._notary.certify(origin.digest, made, is_instance=True)
            return _instance(origin, made)

    def _edited(
        self,
        document: SourceDocument,
        index: Index,
        copied: dict[Digest, SourceDocument],
        added: Sequence[Descriptor],
    ) -> SourceDocument:
        """The index as it is to be at the destination. Raises UsageError if it would change and must not."""
        takes = [each for each in self._destination.abilities.media_types if is_index(each)]
        wanted = index.media_type if not takes or index.media_type in takes else takes[0]
        if self._options.format is not None:
            wanted = self._options.format.index_type
        elif added:
            wanted = OCI_INDEX
        replaced = {
            before.digest: _instance(before, after)
            for before, after in ((each, copied[each.digest]) for each in index.manifests if each.digest in copied)
            if after.digest != before.digest
        }
        is_stripped = self._options.selection.is_stripped
        dropped = {each.digest for each in index.manifests if is_stripped and each.digest not in copied}
        edited = convert_index(index, wanted, replaced=replaced, dropped=dropped, added=added)
        return self._document_of(document, index, edited)

    def _document_of(
        self, document: SourceDocument, before: Manifest | Index, after: Manifest | Index
    ) -> SourceDocument:
        """``document``, or what came of it. Raises UsageError if digests are to be preserved and cannot be."""
        if after is before:
            return replace(document, media_type=before.media_type)
        if self._options.preserve_digests:
            raise UsageError(f"{before.digest} would have to be changed", "copy it without --preserve-digests")
        return SourceDocument(after.raw, after.media_type, after.digest)

    async def _manifest(
        self, document: SourceDocument, manifest: Manifest, other: CopyOptions | None = None
    ) -> SourceDocument:
        """Bring the blobs of a manifest; the document that stands for it at the destination.

        With ``other`` options it is one more that is made from it.
        """
        abilities, options = self._destination.abilities, other or self._options
        if not manifest.is_image and not abilities.holds_artifacts:
            raise UsageError(f"{self._destination.name} holds images, and {manifest.digest} is none")
        plan = await self._plan(manifest, options, is_made=document.is_made)
        blobs = (manifest.config, *(step.blob for step in plan.steps))
        moved = {blob.digest: blob.size for blob in blobs if not is_left(blob, abilities, options)}
        self._tell(CopyResolved, digest=str(manifest.digest), blobs=len(moved), bytes_to_copy=sum(moved.values()))
        diff_ids = await self._diff_ids(plan)

        async def layer(step: LayerStep) -> Descriptor:
            before = manifest.layers[step.number]
            if step.to is not None:
                made = await self._transfer.remake(step.blob, step.to, options.level, diff_ids.get(step.number))
                return replaced_layer(before, made.digest, made.size, _NAMES[step.to])
            if not is_left(step.blob, abilities, options):
                await self._transfer.bring(step.blob)
            if step.blob.digest == before.digest:
                return before
            return replaced_layer(before, step.blob.digest, step.blob.size, _NAMES[Compression.NONE])

        async def config() -> Descriptor:
            await self._transfer.bring(manifest.config)
            return manifest.config

        largest_first = sorted(plan.steps, key=lambda step: step.blob.size, reverse=True)
        _, *layers = await run_all((config(), *(layer(step) for step in largest_first)))
        placed = {step.number: made for step, made in zip(largest_first, layers, strict=True)}
        converted = convert_manifest(manifest, plan.media_type, [placed[number] for number in range(len(plan.steps))])
        if other is None:
            self._digests[manifest.digest] = converted.digest
        return self._document_of(document, manifest, converted)

    async def _plan(self, manifest: Manifest, options: CopyOptions, *, is_made: bool) -> CopyPlan:
        """What is to be done, with what the source has and the destination has already."""
        abilities = self._destination.abilities
        given = manifest.layers
        if isinstance(self._source, RebuildingSource):
            given = await self._source.layers(manifest)
        plan = plan_copy(manifest, given, abilities, replace(options, preserve_digests=False), is_made=is_made)
        there: set[Digest] = set()
        if not abilities.wants_plain_layers and not options.force_compression:
            changing = {manifest.layers[step.number] for step in plan.steps if plan.changes(step)}
            there = {each.digest for each in changing if await self._destination.has_blob(each)}
        return plan_copy(manifest, given, abilities, options, there, is_made=is_made)

    async def _diff_ids(self, plan: CopyPlan) -> dict[int, Digest]:
        """What the tar streams are to be of those layers that are made anew, as far as a config says it."""
        made = [step.number for step in plan.steps if step.to is not None]
        if not made or not plan.manifest.is_image:
            return {}
        raw = await self._source.blob_bytes(plan.manifest.config, CONFIG_LIMIT)
        diff_ids = ImageConfig.from_bytes(raw, plan.manifest.config.digest).diff_ids
        if len(diff_ids) != len(plan.steps):
            return {}
        return {number: diff_ids[number] for number in made}

    async def _document(self, descriptor: Descriptor) -> tuple[SourceDocument, Manifest | Index]:
        document = await self._source.manifest(descriptor.digest)
        media_type = document.media_type or descriptor.media_type
        return document, parse_document(document.raw, media_type, document.digest, with_artifacts=True)


def _instance(origin: Descriptor, made: SourceDocument) -> Descriptor:
    """What an index says of a document that was made from the instance ``origin``."""
    return instance_of(origin, parse_document(made.raw, made.media_type, made.digest, with_artifacts=True))
