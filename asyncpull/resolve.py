"""From a reference to the documents of one image: index if there is one, manifest, config; all verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import DocumentError
from asyncpull.plan import ResolvedImage
from asyncpull.spec.manifest import CONFIG_LIMIT, ImageConfig, Index, Manifest, parse_document
from asyncpull.spec.platform import select_platform

if TYPE_CHECKING:
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.source import Source


async def resolve_image(source: Source, reference: Reference, platform: Platform) -> ResolvedImage:
    """Ask ``source`` what ``reference`` is on ``platform``.

    Raises SourceError, DocumentError, IntegrityError; NoMatchingPlatformError for an index without that platform.
    """
    index, manifest = await resolve_manifest(source, reference, platform)
    config = await source.blob_bytes(manifest.config, CONFIG_LIMIT)
    return ResolvedImage(reference, index, manifest, ImageConfig.from_bytes(config, manifest.config.digest))


async def resolve_manifest(source: Source, reference: Reference, platform: Platform) -> tuple[Index | None, Manifest]:
    """The manifest, and the index it was selected from. An index may list indexes, but not below that."""
    document = await source.manifest()
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


def resolved_from_store(
    reference: Reference, manifest: bytes, config: bytes, index: bytes | None = None
) -> ResolvedImage:
    """The documents of an image that a store has, from its big data. Raises DocumentError."""
    parsed = parse_document(manifest)
    if not isinstance(parsed, Manifest):
        raise DocumentError(f"{reference}: the stored manifest is an index")
    chosen_from = None if index is None else parse_document(index)
    return ResolvedImage(
        reference,
        chosen_from if isinstance(chosen_from, Index) else None,
        parsed,
        ImageConfig.from_bytes(config, parsed.config.digest),
    )
