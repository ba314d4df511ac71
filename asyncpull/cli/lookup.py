"""The documents of an image, wherever it is, as ``inspect`` and ``digest`` show them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, StoreCorruptError, UsageError
from asyncpull.memberindex import open_members
from asyncpull.registry.client import RegistryClient
from asyncpull.resolve import resolve_manifest
from asyncpull.source.local import read_small
from asyncpull.source.opening import open_source
from asyncpull.spec.fields import Fields
from asyncpull.spec.location import (
    DockerArchiveLocation,
    LayoutArchiveLocation,
    LayoutLocation,
    RegistryLocation,
    StorageLocation,
    parse_location,
)
from asyncpull.spec.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, Index, Manifest, parse_document
from asyncpull.spec.platform import host_platform
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.schema1 import document_digest
from asyncpull.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.access import Access
    from asyncpull.source.layout import LayoutReader
    from asyncpull.spec.platform import Platform
    from asyncpull.store.views import ImageRecord


@dataclass(frozen=True, slots=True)
class LocatedImage:
    """What is known of one image: ``digest`` is what the name stands for, ``manifest`` what was chosen there."""

    repository: str
    digest: str
    manifest: Manifest
    config: bytes
    record: ImageRecord | None = None


async def digest_of(reference: str, wanted: Platform | None, access: Access) -> str:
    """The digest that ``reference`` has: of the index if there is one, or of the instance for ``wanted``."""
    location = parse_location(reference)
    if isinstance(location, StorageLocation):
        async with Store.open(access.store_at(location)) as store:
            return (await store.image(location.name)).digest
    async with open_source(location, access) as source:
        if wanted is None:
            return str(await source.digest())
        return str((await resolve_manifest(source, reference, wanted))[1].digest)


async def tags_of(repository: str, access: Access) -> tuple[str, tuple[str, ...]]:
    """The full name of ``repository``, and its tags as its registry lists them; or those of a layout or an archive."""
    location = parse_location(repository)
    match location:
        case RegistryLocation():
            if "@" in location.text or ":" in location.text.rpartition("/")[2]:
                raise UsageError(
                    f"{repository}: no tag or digest is wanted here, all tags of the repository are listed"
                )
            reference = location.reference
            async with RegistryClient(access.registry, retry=access.retry) as client:
                return reference.name, await client.tags(reference)
        case LayoutLocation(name=None, number=None) | LayoutArchiveLocation(name=None, number=None):
            async with open_source(location, access) as source:
                return str(location), (await cast("LayoutReader", source).index()).names
        case DockerArchiveLocation(reference=None, number=None):
            from asyncpull.source.dockerarchive import images_in

            async with open_members(location.path, follow_links=True) as members:
                images = await asyncio.to_thread(images_in, members)
                return str(location), tuple(dict.fromkeys(tag for image in images for tag in image.tags))
        case StorageLocation():
            raise UsageError("tags are listed of a registry, not of the store", "asyncpull images lists the store")
        case _:
            raise UsageError(
                f"{repository}: no tags are listed of that",
                "of docker://REPO, oci:DIR, oci-archive:FILE, docker-archive:FILE",
            )


async def raw_manifest(reference: str, wanted: Platform | None, access: Access) -> bytes:
    """The exact bytes of what ``reference`` names, or of the instance for ``wanted``."""
    async with open_source(parse_location(reference), access) as source:
        if wanted is None:
            return (await source.manifest()).raw
        return (await resolve_manifest(source, reference, wanted))[1].raw


async def located_image(reference: str, wanted: Platform | None, access: Access) -> LocatedImage:
    """The manifest and config that ``reference`` stands for."""
    location = parse_location(reference)
    if isinstance(location, StorageLocation):
        async with Store.open(access.store_at(location)) as store:
            return await _stored(await store.image(location.name), store)
    async with open_source(location, access) as source:
        index, manifest = await resolve_manifest(source, reference, wanted or host_platform())
        config = await source.blob_bytes(manifest.config, CONFIG_LIMIT)
    name = location.reference.name if isinstance(location, RegistryLocation) else ""
    return LocatedImage(name, str((index or manifest).digest), manifest, config)


def manifest_digest(path: Path) -> str:
    """The digest of the manifest in a file; of schema 1 without its signatures. Raises SourceError, DocumentError."""
    raw = read_small(path, MANIFEST_LIMIT)
    try:
        return str(document_digest(raw))
    except DocumentError as error:
        raise DocumentError(f"{path}: {error}") from error


async def _stored(record: ImageRecord, store: Store) -> LocatedImage:
    manifest = parse_document(await store.big_data(record, "manifest"))
    if isinstance(manifest, Index):
        raise StoreCorruptError(f"the manifest of image {record.id} is an index")
    config = await store.big_data(record, str(manifest.config.digest))
    repository = parse_reference(record.names[0]).name if record.names else ""
    return LocatedImage(repository, record.digest, manifest, config, record)


def summary_of(image: LocatedImage) -> dict[str, object]:
    """What ``skopeo inspect`` shows, under the same keys."""
    config = Fields.from_bytes(image.config, "image config")
    inner = Fields.of(config.get("config", dict, {}), "image config.config")
    summary: dict[str, object] = {
        "Name": image.repository,
        "Digest": image.digest,
        "Created": config.get("created", str, None),
        "Architecture": config.get("architecture", str, ""),
        "Variant": config.get("variant", str, ""),
        "Os": config.get("os", str, ""),
        "Labels": dict(inner.get("Labels", dict, {})),
        "Env": inner.texts("Env"),
        "Cmd": inner.texts("Cmd"),
        "Entrypoint": inner.texts("Entrypoint"),
        "WorkingDir": inner.get("WorkingDir", str, ""),
        "User": inner.get("User", str, ""),
        "Layers": [str(layer.digest) for layer in image.manifest.layers],
        "LayersData": [
            {
                "MIMEType": layer.media_type,
                "Digest": str(layer.digest),
                "Size": layer.size,
                "Annotations": dict(layer.annotations) or None,
            }
            for layer in image.manifest.layers
        ],
    }
    if image.record is not None:
        summary |= {"Id": image.record.id, "Names": image.record.names}
    return summary
