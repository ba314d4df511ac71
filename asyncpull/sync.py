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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, ConfigurationError, NotFoundError, SourceError, StoreError, UsageError
from asyncpull.newfile import exists
from asyncpull.registry.client import RegistryClient
from asyncpull.spec.location import DirectoryLocation, RegistryLocation
from asyncpull.spec.reference import parse_reference
from asyncpull.syncfile import FILE_LIMIT, WantedTags, parse_sync_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpull.access import Access
    from asyncpull.copy import Copier
    from asyncpull.copying.image import CopiedImage
    from asyncpull.copying.plan import CopyOptions
    from asyncpull.spec.location import Location
    from asyncpull.spec.reference import Reference
    from asyncpull.syncfile import WantedRegistry
    from asyncpull.trust.signing import Signing

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


@dataclass(frozen=True, slots=True)
class SyncedImage:
    """A copy that was made, or was there."""

    step: SyncStep
    copied: CopiedImage


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


async def sync_images(
    copier: Copier,
    steps: Sequence[SyncStep],
    options: CopyOptions,
    signing: Signing,
    failed: Callable[[str, AsyncpullError], None],
) -> list[SyncedImage]:
    """Copy one image after another, but for those that a registry has already, to the bit; what became of each.

    ``failed`` is told of what cannot be copied, and may raise to end it. No directory is overwritten.
    """
    done: list[SyncedImage] = []
    wanted = replace(options, skips_equal=True)
    for step in steps:
        try:
            if isinstance(step.destination, DirectoryLocation) and os.path.lexists(step.destination.path):
                raise exists(Path(step.destination.path))
            copied = await copier.copy(step.source, step.destination, wanted, signing, access=step.access)
        except AsyncpullError as error:
            failed(str(step.source), error)
        else:
            done.append(SyncedImage(step, copied))
    return done


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
    if isinstance(error, FileNotFoundError):
        raise NotFoundError(f"there is no directory {error.filename}") from error
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
