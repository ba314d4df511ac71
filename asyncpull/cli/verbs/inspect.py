"""``asyncpull inspect``, ``digest``: what a reference stands for, without pulling it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.opening import locate, open_store, platform_options, registry_access, wanted_platform
from asyncpull.cli.output import write_bytes, write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, Settings, global_options
from asyncpull.errors import StoreCorruptError, UsageError
from asyncpull.registry.client import RegistryClient
from asyncpull.resolve import resolve_image, resolve_manifest
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.fields import Fields
from asyncpull.spec.manifest import Index, Manifest, parse_document
from asyncpull.spec.platform import host_platform
from asyncpull.spec.reference import parse_reference

if TYPE_CHECKING:
    from asyncpull.spec.platform import Platform
    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord


@dataclass(frozen=True, slots=True)
class _Image:
    """What is known of one image: ``digest`` is what the name stands for, ``manifest`` what was chosen there."""

    repository: str
    digest: str
    manifest: Manifest
    config: bytes
    record: ImageRecord | None = None


@click.command("inspect")
@click.argument("reference", metavar="REF")
@click.option("--raw", is_flag=True, help="The exact bytes of the manifest, or of the index, that REF names.")
@click.option("--config", is_flag=True, help="The exact bytes of the image's config.")
@platform_options
@global_options
@click.pass_obj
def inspect(session: Session, /, reference: str, raw: bool, config: bool, **platform: str | None) -> int:
    """Summarise an image as JSON: of a registry, or with containers-storage: of the store."""
    if raw and config:
        raise UsageError("--raw and --config exclude each other")
    wanted, settings = wanted_platform(**platform), session.settings

    async def work() -> int:
        if raw:
            write_bytes(await _raw(reference, wanted, settings))
            return exit_codes.DONE
        image = await _image(reference, wanted, settings)
        if config:
            write_bytes(image.config)
        else:
            write_json(_summary(image))
        return exit_codes.DONE

    return run(settings, work)


@click.command("digest")
@click.argument("reference", metavar="REF")
@platform_options
@global_options
@click.pass_obj
def digest(session: Session, /, reference: str, **platform: str | None) -> int:
    """Print the digest that a reference has now: of the index, or with --platform of the instance in it."""
    wanted, settings = wanted_platform(**platform), session.settings

    async def work() -> int:
        found = str(await _digest(reference, wanted, settings))
        if settings.json:
            write_json({"reference": reference, "digest": found})
        else:
            write_lines([found])
        return exit_codes.DONE

    return run(settings, work)


async def _digest(reference: str, wanted: Platform | None, settings: Settings) -> str:
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


async def _raw(reference: str, wanted: Platform | None, settings: Settings) -> bytes:
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


async def _image(reference: str, wanted: Platform | None, settings: Settings) -> _Image:
    located = locate(reference)
    if located.is_in_store:
        async with open_store(settings) as store:
            return await _stored(await store.image(located.name), store)
    parsed = parse_reference(located.name)
    async with RegistryClient(registry_access(settings)) as client:
        resolved = await resolve_image(RegistrySource(client, parsed), parsed, wanted or host_platform())
    return _Image(parsed.name, str(resolved.digest), resolved.manifest, resolved.config.raw)


async def _stored(record: ImageRecord, store: Store) -> _Image:
    manifest = parse_document(await store.big_data(record, "manifest"))
    if isinstance(manifest, Index):
        raise StoreCorruptError(f"the manifest of image {record.id} is an index")
    config = await store.big_data(record, str(manifest.config.digest))
    repository = parse_reference(record.names[0]).name if record.names else ""
    return _Image(repository, record.digest, manifest, config, record)


def _summary(image: _Image) -> dict[str, object]:
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
