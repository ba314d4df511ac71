"""From a location to the destination that writes it. Each transport is imported when it is named."""

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
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.destination import Destination
    from asyncpull.spec.location import Location
    from asyncpull.spec.reference import Reference


@asynccontextmanager
async def open_destination(
    location: Location,
    access: Access | None = None,
    *,
    client: RegistryClient | None = None,
    names: Sequence[Reference] = (),
) -> AsyncIterator[Destination]:
    """The destination that ``location`` names, for the time of the body; left without a commit it is as it was.

    ``client`` is an open one to ask registries through; without it there is one for the body, made as ``access`` says.
    ``names`` are names that the image gets besides, where the transport knows several. Raises UsageError for a
    transport that cannot be written; DocumentError, SourceError, StoreError where what is there cannot be replaced.
    """
    async with AsyncExitStack() as opened:
        yield await _open(location, access or Access(), client, tuple(names), opened)


async def _open(
    location: Location,
    access: Access,
    client: RegistryClient | None,
    names: tuple[Reference, ...],
    opened: AsyncExitStack,
) -> Destination:
    match location:
        case LayoutLocation():
            from asyncpull.destination.layout import open_layout

            return await opened.enter_async_context(open_layout(location, access.shared_blobs))
        case LayoutArchiveLocation():
            from asyncpull.destination.layoutarchive import open_layout_archive

            return await opened.enter_async_context(open_layout_archive(location))
        case DirectoryLocation():
            from asyncpull.destination.directory import open_directory

            return await opened.enter_async_context(open_directory(location))
        case DockerArchiveLocation():
            from asyncpull.destination.dockerarchive import open_docker_archive

            return await opened.enter_async_context(open_docker_archive(location, names))
        case DaemonLocation():
            from asyncpull.destination.daemon import open_daemon_image
            from asyncpull.dockerd import DaemonAddress

            registry = access.registry
            address = DaemonAddress.find(access.daemon_host, tls_verify=registry.tls_verify, cert_dir=registry.cert_dir)
            return await opened.enter_async_context(open_daemon_image(location, address, names))
        case RegistryLocation():
            from asyncpull.destination.registry import RegistryDestination
            from asyncpull.registry.client import RegistryClient

            if client is None:
                client = await opened.enter_async_context(RegistryClient(access.registry, retry=access.retry))
            return await opened.enter_async_context(RegistryDestination(client, location.reference, names))
        case _:
            raise UsageError(f"{location}: nothing can be written to {location.transport}")
