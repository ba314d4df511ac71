"""Many images from one place to another, as ``skopeo sync`` does it.

::

    docker  REPOSITORY, or REPOSITORY:TAG          all tags, or that one
    dir     a directory of directories             each that has an image
    yaml    a file that names images of registries (syncfile.py)
        --->  docker  REGISTRY/NAMESPACE           .../NAME:TAG
              dir     a directory                  .../NAME:TAG

What an image is called at the destination is the last part of where it is, or all of it where that is asked for, so
that images of several registries do not meet.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.copyplan import Instances
from asyncpull.errors import ConfigurationError, NotFoundError, SourceError, StoreError, UsageError
from asyncpull.registry.client import RegistryClient
from asyncpull.spec.location import DirectoryLocation, RegistryLocation
from asyncpull.spec.manifest import Index, parse_document
from asyncpull.spec.reference import parse_reference
from asyncpull.syncfile import FILE_LIMIT, WantedTags, parse_sync_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpull.access import Access
    from asyncpull.copyplan import CopyOptions
    from asyncpull.errors import AsyncpullError
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import Location
    from asyncpull.spec.reference import Reference
    from asyncpull.syncfile import WantedRegistry

SOURCES = ("docker", "dir", "yaml")
DESTINATIONS = ("docker", "dir")


@dataclass(frozen=True, slots=True)
class SyncImage:
    """An image to be copied: where it is, its ``name`` from there, and how that place is reached."""

    location: Location
    name: str
    access: Access


@dataclass(frozen=True, slots=True)
class SyncStep:
    """One copy."""

    source: Location
    destination: Location
    access: Access


async def find_images(
    transport: str, source: str, access: Access, failed: Callable[[str, AsyncpullError], None]
) -> list[SyncImage]:
    """The images at ``source``; ``failed`` is told of what is named in a file and cannot be listed.

    Raises UsageError, InvalidReferenceError and ConfigurationError for what cannot be meant, SourceError, StoreError,
    and NotFoundError where there is no image.
    """
    match transport:
        case "docker":
            found = await _of_repository(source, access)
        case "dir":
            found = await asyncio.to_thread(_in_directory, Path(source), access)
        case "yaml":
            raw = await asyncio.to_thread(_read, Path(source))
            return [
                image
                for wanted in parse_sync_file(Path(source), raw)
                for image in await _of_registry(wanted, access, failed)
            ]
        case _:
            raise UsageError(f"{transport!r} cannot be synchronized from", f"--src takes {', '.join(SOURCES)}")
    if not found:
        raise NotFoundError(f"there is no image at {source}")
    return found


def plan_sync(
    images: Sequence[SyncImage], transport: str, destination: str, *, is_scoped: bool = False, suffix: str = ""
) -> list[SyncStep]:
    """Where each of ``images`` goes below ``destination``: ``suffix`` ends its name, which is whole if ``is_scoped``.

    Raises UsageError for transports that do not go together and for images that would get one name, and
    InvalidReferenceError.
    """
    if transport not in DESTINATIONS:
        raise UsageError(f"{transport!r} cannot be synchronized to", f"--dest takes {', '.join(DESTINATIONS)}")
    steps: dict[str, SyncStep] = {}
    for image in images:
        if transport == "dir" and isinstance(image.location, DirectoryLocation):
            raise UsageError("dir cannot be synchronized to dir", "rsync or cp does that")
        name = image.name if is_scoped else posixpath.basename(image.name)
        place = posixpath.normpath(posixpath.join(destination, name.lstrip("/"))) + suffix
        if place in steps:
            both = f"{steps[place].source} and {image.location}"
            raise UsageError(f"{both} would both become {transport}:{place}", "say --scoped")
        steps[place] = SyncStep(image.location, _destination(transport, place), image.access)
    return list(steps.values())


def check_destination(location: Location) -> None:
    """Refuse to overwrite a directory. Raises StoreError."""
    if isinstance(location, DirectoryLocation) and os.path.lexists(location.path):
        raise StoreError("is there already and is not overwritten", location.path, "remove it, or choose another place")


async def is_there(step: SyncStep, destination: Access, options: CopyOptions) -> Digest | None:
    """The digest of the image if a registry has it already, to the bit; None where it has to be copied.

    Raises SourceError, DocumentError.
    """
    if not isinstance(step.source, RegistryLocation) or not isinstance(step.destination, RegistryLocation):
        return None
    if options.format is not None or options.compression is not None:
        return None
    async with (
        RegistryClient(step.access.registry, retry=step.access.retry) as source,
        RegistryClient(destination.registry, retry=destination.retry) as target,
    ):
        try:
            endpoint, name = (await target.registries()).home(step.destination.reference), _name(step.destination)
            held = await target.digest(endpoint, name)
        except NotFoundError:
            return None
        from asyncpull.source.registry import RegistrySource

        document = await RegistrySource(source, step.source.reference).manifest()
    if document.digest != held:
        return None
    is_index = isinstance(parse_document(document.raw, document.media_type, with_artifacts=True), Index)
    return held if not is_index or options.selection.instances is Instances.ALL else None


def _name(location: RegistryLocation) -> str | Digest:
    reference = location.reference
    return reference.digest or reference.tag or ""


def _destination(transport: str, place: str) -> Location:
    if transport == "dir":
        return DirectoryLocation(place)
    parse_reference(place)
    return RegistryLocation(place)


async def _of_repository(source: str, access: Access) -> list[SyncImage]:
    reference = parse_reference(source)
    text = source.removeprefix("docker://")
    if ":" in text.rpartition("/")[2] or "@" in text:
        return [_image(reference, access)]
    return await _tagged(WantedTags(reference), access)


async def _of_registry(
    wanted: WantedRegistry, access: Access, failed: Callable[[str, AsyncpullError], None]
) -> list[SyncImage]:
    registry = access.registry
    access = replace(
        access,
        registry=replace(
            registry,
            credentials=wanted.credentials or registry.credentials,
            tls_verify=registry.tls_verify if wanted.tls_verify is None else wanted.tls_verify,
            cert_dir=wanted.cert_dir or registry.cert_dir,
        ),
    )
    found = [_image(reference, access) for reference in wanted.images]
    for tags in wanted.tags:
        try:
            found += await _tagged(tags, access)
        except SourceError as error:
            failed(tags.repository.name, error)
    return found


async def _tagged(wanted: WantedTags, access: Access) -> list[SyncImage]:
    async with RegistryClient(access.registry, retry=access.retry) as client:
        tags = await client.tags(wanted.repository)
    return [_image(wanted.repository.with_tag(tag), access) for tag in tags if wanted.allows(tag)]


def _image(reference: Reference, access: Access) -> SyncImage:
    return SyncImage(RegistryLocation(str(reference)), str(reference), access)


def _in_directory(root: Path, access: Access) -> list[SyncImage]:
    """Directories with an image, wherever they are below ``root``; those are not looked into any further."""
    found = []
    for path, directories, files in os.walk(root, onerror=_cannot_list):
        directories.sort()
        if "manifest.json" in files:
            directories.clear()
            name = os.path.relpath(path, root) if path != str(root) else root.resolve().name
            found.append(SyncImage(DirectoryLocation(path), name, access))
    return found


def _cannot_list(error: OSError) -> None:
    raise StoreError(f"cannot be read: {error.strerror}", error.filename) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > FILE_LIMIT:
        raise ConfigurationError(f"{path}: has more than {FILE_LIMIT} bytes")
    return raw
