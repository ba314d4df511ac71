"""The documents of an image, wherever it is, as ``inspect`` and ``digest`` show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncpull.cli.opening import locate, open_store, registry_access
from asyncpull.errors import StoreCorruptError, UsageError
from asyncpull.registry.client import RegistryClient
from asyncpull.resolve import resolve_image, resolve_manifest
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.fields import Fields
from asyncpull.spec.manifest import Index, Manifest, parse_document
from asyncpull.spec.platform import host_platform
from asyncpull.spec.reference import parse_reference

if TYPE_CHECKING:
    from asyncpull.cli.settings import Settings
    from asyncpull.spec.platform import Platform
    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord


@dataclass(frozen=True, slots=True)
class LocatedImage:
    """What is known of one image: ``digest`` is what the name stands for, ``manifest`` what was chosen there."""

    repository: str
    digest: str
    manifest: Manifest
    config: bytes
    record: ImageRecord | None = None


async def digest_of(reference: str, wanted: Platform | None, settings: Settings) -> str:
    """The digest that ``reference`` has: of the index if there is one, or of the instance for ``wanted``."""
    located = locate(reference)
    if located.is_in_store:
        async with open_store(settings) as store:
            return (await store.image(located.name)).digest
    parsed = parse_reference(located.name)
    async with RegistryClient(registry_access(settings)) as client:
        source = RegistrySource(client, parsed)
        if wanted is None:
            return str(await source.digest())
        return str((await resolve_manifest(source, parsed, wanted))[1].digest)


async def tags_of(repository: str, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """The full name of ``repository``, and its tags as its registry lists them."""
    located = locate(repository)
    if located.is_in_store:
        raise UsageError("tags are listed of a registry, not of the store", "asyncpull images lists the store")
    if "@" in located.name or ":" in located.name.rpartition("/")[2]:
        raise UsageError(f"{repository}: no tag or digest is wanted here, all tags of the repository are listed")
    parsed = parse_reference(located.name)
    async with RegistryClient(registry_access(settings)) as client:
        return parsed.name, await client.tags(parsed)


async def raw_manifest(reference: str, wanted: Platform | None, settings: Settings) -> bytes:
    """The exact bytes of what ``reference`` names, or of the instance for ``wanted``."""
    located = locate(reference)
    if located.is_in_store:
        async with open_store(settings) as store:
            return await store.big_data(await store.image(located.name), "manifest")
    parsed = parse_reference(located.name)
    async with RegistryClient(registry_access(settings)) as client:
        source = RegistrySource(client, parsed)
        if wanted is None:
            return (await source.manifest()).raw
        return (await resolve_manifest(source, parsed, wanted))[1].raw


async def located_image(reference: str, wanted: Platform | None, settings: Settings) -> LocatedImage:
    """The manifest and config that ``reference`` stands for."""
    located = locate(reference)
    if located.is_in_store:
        async with open_store(settings) as store:
            return await _stored(await store.image(located.name), store)
    parsed = parse_reference(located.name)
    async with RegistryClient(registry_access(settings)) as client:
        resolved = await resolve_image(RegistrySource(client, parsed), parsed, wanted or host_platform())
    return LocatedImage(parsed.name, str(resolved.digest), resolved.manifest, resolved.config.raw)


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
