"""From a location to the source that reads it. Each transport is imported when it is named."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from asyncpull.access import Access
from asyncpull.errors import UsageError
from asyncpull.spec.location import (
    DaemonLocation,
    DirectoryLocation,
    DockerArchiveLocation,
    LayoutArchiveLocation,
    LayoutLocation,
    RegistryLocation,
    SifLocation,
    StorageLocation,
    TarballLocation,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.location import Location
    from asyncpull.spec.source import Source


@asynccontextmanager
async def open_source(
    location: Location, access: Access | None = None, *, client: RegistryClient | None = None
) -> AsyncIterator[Source]:
    """The source that ``location`` names, for the time of the body.

    ``client`` is an open one to ask registries through; without it there is one for the body, made as ``access`` says.
    A short name is one of docker.io. Raises UsageError for a transport that cannot be read; InvalidReferenceError,
    DocumentError, SourceError, StoreError where the transport looks at once at what it was pointed to.
    """
    async with AsyncExitStack() as opened:
        yield await _open(location, access or Access(), client, opened)


async def _open(location: Location, access: Access, client: RegistryClient | None, opened: AsyncExitStack) -> Source:
    match location:
        case RegistryLocation():
            from asyncpull.registry.client import RegistryClient
            from asyncpull.source.registry import RegistrySource

            if client is None:
                client = await opened.enter_async_context(RegistryClient(access.registry, retry=access.retry))
            return RegistrySource(client, location.reference)
        case LayoutLocation():
            from asyncpull.source.layout import LayoutSource

            return LayoutSource(location, access.shared_blobs)
        case LayoutArchiveLocation():
            from asyncpull.memberindex import open_members
            from asyncpull.source.layoutarchive import LayoutArchiveSource

            return LayoutArchiveSource(location, await opened.enter_async_context(open_members(location.path)))
        case DirectoryLocation():
            from asyncpull.source.directory import DirectorySource

            return DirectorySource(location)
        case DockerArchiveLocation():
            from asyncpull.source.dockerarchive import open_docker_archive

            return await opened.enter_async_context(open_docker_archive(location))
        case DaemonLocation():
            from asyncpull.dockerd import DaemonAddress
            from asyncpull.source.daemon import open_daemon_image

            registry = access.registry
            address = DaemonAddress.find(access.daemon_host, tls_verify=registry.tls_verify, cert_dir=registry.cert_dir)
            return await opened.enter_async_context(open_daemon_image(location, address))
        case TarballLocation():
            from asyncpull.source.tarball import open_tarball

            return await opened.enter_async_context(open_tarball(location))
        case SifLocation():
            raise UsageError(
                f"{location}: an image of Singularity is a file system of squashfs, which nothing here reads",
                f"make a layout of it, by skopeo copy {location} oci:DIRECTORY, and name that",
            )
        case StorageLocation():
            from asyncpull.source.storage import open_storage

            return await opened.enter_async_context(open_storage(location, access.store_at(location)))
        case _:
            raise UsageError(f"{location}: nothing can be read from {location.transport}")
