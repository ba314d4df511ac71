"""From a reference to the documents of one image: index if there is one, manifest, config; all verified.

The policy decides about a registry's manifest before anything that it names is asked for.

They come from a registry, or from the store where what it has under that name will do. A short name may mean several
references; then the first that there is counts.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, NotInStoreError, PolicyError, SourceError
from asyncpull.log import Log
from asyncpull.plan import PullPolicy, ResolvedImage
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import CONFIG_LIMIT, ImageConfig, Index, Manifest, is_schema1, parse_document
from asyncpull.spec.platform import select_platform
from asyncpull.spec.reference import Reference, has_domain, parse_reference
from asyncpull.spec.schema1 import LayerFacts
from asyncpull.spec.source import RebuildingSource, SourceDocument
from asyncpull.trust.scopes import of_reference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncpull.fetch.fetcher import Fetcher
    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.signature import Signature
    from asyncpull.spec.source import Source
    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord
    from asyncpull.trust.gate import Gate

    Admit = Callable[[SourceDocument, bool], Awaitable[tuple[Signature, ...]]]
    """Lets a manifest through, which an index lists or not, with the signatures that it is to have; or raises."""

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Resolution:
    """An image and where its layers are to be had; ``is_in_store`` tells that they need not be."""

    source: Source
    image: ResolvedImage
    is_in_store: bool = False


class Resolver:
    """Finds out what references mean on ``platform``, by ``store`` and by the registries of ``client``.

    What ``gate`` does not let through is not resolved. An image of schema 1 has its layers fetched by ``fetcher``.
    """

    def __init__(self, store: Store, client: RegistryClient, platform: Platform, gate: Gate, fetcher: Fetcher) -> None:
        self._store, self._client, self._platform, self._gate = store, client, platform, gate
        self._fetcher = fetcher

    async def resolve(self, reference: str | Reference, when: PullPolicy) -> Resolution:
        """The image that is meant: that of the store if ``when`` is content with it, else the registry's.

        Raises InvalidReferenceError, SourceError, PolicyError, DocumentError, IntegrityError; for NEVER
        NotInStoreError. Where a short name means several and none is to be had, the error is that of the last one.
        """
        meanings = await self._meanings(reference)
        if when is not PullPolicy.ALWAYS:
            for wanted in meanings:
                with suppress(NotInStoreError):
                    record = await self._store.image(wanted.store_name)
                    source = RegistrySource(self._client, wanted)
                    if when is PullPolicy.NEWER and await _is_outdated(record, source):
                        return await self._from_registry(wanted)
                    return Resolution(source, await self._stored(wanted, record), is_in_store=True)
        if when is PullPolicy.NEVER:
            raise NotInStoreError(f"{reference} is not in the store", hint="pull it without --pull never")
        for wanted in meanings[:-1]:
            try:
                return await self._from_registry(wanted)
            except (SourceError, PolicyError) as error:
                _log.info("a short name is not what was tried first", tried=str(wanted), reason=str(error))
        return await self._from_registry(meanings[-1])

    async def tags(self, repository: str | Reference) -> tuple[Reference, ...]:
        """A reference for each tag of a repository, as its registry lists them. Raises SourceError, DocumentError."""
        meant = (await self._meanings(repository))[0]
        return tuple(meant.with_tag(tag) for tag in await self._client.tags(meant))

    async def _meanings(self, reference: str | Reference) -> tuple[Reference, ...]:
        """What may be named, in the order to be tried. Raises InvalidReferenceError, UsageError."""
        if isinstance(reference, Reference):
            return (reference,)
        if reference.startswith("docker://") or has_domain(reference):
            return (parse_reference(reference),)
        parse_reference(reference)  # what cannot be meant is told before anything is read
        return (await self._client.registries()).candidates(reference).unasked()

    async def _from_registry(self, wanted: Reference) -> Resolution:
        source = RegistrySource(self._client, wanted)
        where = self._gate.registry_signatures(self._client, wanted)
        named = await source.manifest()
        if is_schema1(named.raw, named.media_type):
            signatures = await self._gate.admit(of_reference(wanted), named.raw, where, is_instance=False)
            found = await self._converted(source, wanted, named)
            return replace(found, image=replace(found.image, signatures=signatures))
        index, manifest = await resolve_manifest(source, wanted, self._platform, named)
        signatures = await self._gate.admit(of_reference(wanted), manifest.raw, where, is_instance=index is not None)
        return Resolution(source, replace(await _with_config(source, wanted, index, manifest), signatures=signatures))

    async def read(self, source: Source, reference: Reference, admit: Admit) -> Resolution:
        """What an open source gives as the image ``reference``, if ``admit`` lets it through. Raises as ``resolve``."""
        named = await source.manifest()
        if is_schema1(named.raw, named.media_type):
            signatures = await admit(named, False)
            found = await self._converted(source, reference, named)
            return replace(found, image=replace(found.image, signatures=signatures))
        index, manifest = await resolve_manifest(source, reference, self._platform, named)
        judged = SourceDocument(manifest.raw, manifest.media_type, manifest.digest)
        signatures = await admit(judged, index is not None)
        image = await _with_config(source, reference, index, manifest)
        return Resolution(source, replace(image, signatures=signatures))

    async def _converted(self, source: Source, reference: Reference, named: SourceDocument) -> Resolution:
        from asyncpull.source.schema1 import open_schema1  # few images are that old

        converted = await open_schema1(source, named, self._fetcher, await self._known())
        image = await resolve_image(converted, reference, self._platform)
        return Resolution(converted, replace(image, index=converted.index))

    async def _known(self) -> dict[Digest, LayerFacts]:
        """What the store knows of the blobs that its layers were made from."""
        return {
            Digest.parse(layer.compressed_digest): LayerFacts(layer.compressed_size, Digest.parse(layer.diff_digest))
            for layer in (await self._store.snapshot()).layers.values()
            if layer.compressed_digest and layer.compressed_size > 0 and layer.diff_digest
        }

    async def _stored(self, wanted: Reference, record: ImageRecord) -> ResolvedImage:
        """The documents of an image that the store has, from its big data. Raises DocumentError, StoreError."""
        manifest = parse_document(await self._store.big_data(record, "manifest"))
        if not isinstance(manifest, Manifest):
            raise DocumentError(f"{wanted}: the stored manifest is an index")
        config = ImageConfig.from_bytes(
            await self._store.big_data(record, f"sha256:{record.id}"), manifest.config.digest
        )
        chosen_from: Index | Manifest | None = None
        if f"manifest-{record.digest}" in record.big_data_names:
            raw = await self._store.big_data(record, f"manifest-{record.digest}")
            chosen_from = None if is_schema1(raw) else parse_document(raw)
        return ResolvedImage(wanted, chosen_from if isinstance(chosen_from, Index) else None, manifest, config)


async def resolve_image(
    source: Source, reference: Reference, platform: Platform, named: SourceDocument | None = None
) -> ResolvedImage:
    """Ask ``source`` what ``reference`` is on ``platform``; ``named`` is as for ``resolve_manifest``.

    Raises SourceError, DocumentError, IntegrityError; NoMatchingPlatformError for an index without that platform.
    """
    return await _with_config(source, reference, *await resolve_manifest(source, reference, platform, named))


async def _with_config(source: Source, reference: Reference, index: Index | None, manifest: Manifest) -> ResolvedImage:
    config = await source.blob_bytes(manifest.config, CONFIG_LIMIT)
    given = await source.layers(manifest) if isinstance(source, RebuildingSource) else None
    return ResolvedImage(
        reference, index, manifest, ImageConfig.from_bytes(config, manifest.config.digest), given=given
    )


async def resolve_manifest(
    source: Source, reference: Reference | str, platform: Platform, named: SourceDocument | None = None
) -> tuple[Index | None, Manifest]:
    """The manifest, and the index it was selected from. An index may list indexes, but not below that.

    ``named`` is the document that ``source`` was pointed to, if it was asked for already.
    """
    document = named or await source.manifest()
    parsed = parse_document(document.raw, document.media_type)
    index: Index | None = None
    for _ in range(2):
        if isinstance(parsed, Manifest):
            break
        index = index or parsed
        chosen = select_platform(parsed.manifests, platform)
        document = await source.manifest(chosen.digest)
        parsed = parse_document(document.raw, document.media_type or chosen.media_type)
    if not isinstance(parsed, Manifest):
        raise DocumentError(f"{reference}: an index in an index in an index")
    return index, parsed


async def _is_outdated(record: ImageRecord, source: Source) -> bool:
    """Whether the source has another image now; what cannot be asked is taken for no."""
    try:
        return str(await source.digest()) not in record.digests
    except SourceError as error:
        _log.warning("cannot ask for a newer image, using the one in the store", reason=str(error))
        return False
