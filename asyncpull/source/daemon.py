"""An image of a docker daemon as a source: ``docker-daemon:``.

The daemon sends what ``docker save`` writes, and says at its end what is in it; so all of it is received first, into a
scratch file.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from asyncpull.dockerd import DaemonAddress, DaemonClient
from asyncpull.memberindex import Reception, index_members
from asyncpull.source.dockerarchive import DockerArchiveSource, open_image
from asyncpull.waiting import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpull.spec.location import DaemonLocation


@asynccontextmanager
async def open_daemon_image(location: DaemonLocation, address: DaemonAddress) -> AsyncIterator[DockerArchiveSource]:
    """The image that ``location`` names in the daemon at ``address``, received before the body runs.

    Raises NotFoundError, AuthenticationError, UnavailableError, SourceError, DocumentError, NoSpaceError,
    StoreWriteError.
    """
    name = str(location)
    with Reception(name) as reception:
        async with DaemonClient(address) as daemon, daemon.saved(daemon_name(location)) as chunks:
            async for chunk in chunks:
                await in_thread(partial(reception.feed, chunk))
        reception.close()
        members = await in_thread(lambda: index_members(name, reception.fd, follow_links=True))
        async with open_image(name, members) as source:
            yield source


def daemon_name(location: DaemonLocation) -> str:
    """What the daemon calls the image: the short form of its name, as people type it, or its ID."""
    return str(location.id) if location.reference is None else location.reference.familiar
