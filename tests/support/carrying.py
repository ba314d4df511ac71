"""A copy as simple as can be, from any source to any destination: what the copier does is not tested by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.spec.manifest import Index, parse_document
from tests.support.contents import HeldContent

if TYPE_CHECKING:
    from asyncpull.spec.destination import Destination
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.source import Source, SourceDocument


async def carry(source: Source, destination: Destination) -> Digest:
    """Copy an image, or an index with all manifests, as it is; blobs that are there are left alone."""
    document = await source.manifest()
    await _carry_parts(source, destination, document)
    return await destination.commit(document)


async def _carry_parts(source: Source, destination: Destination, document: SourceDocument) -> None:
    parsed = parse_document(document.raw, document.media_type)
    if isinstance(parsed, Index):
        for each in parsed.manifests:
            instance = await source.manifest(each.digest)
            await _carry_parts(source, destination, instance)
            await destination.put_manifest(instance)
        return
    for blob in (parsed.config, *parsed.layers):
        if not await destination.has_blob(blob):
            data = await source.blob_bytes(blob, blob.size)
            await destination.put_blob(blob, HeldContent(data, digest=blob.digest))
