"""A docker daemon as a destination: ``docker-daemon:``.

The daemon loads what ``docker save`` writes. All of it is made in a scratch file, and sent when it is whole: a daemon
that got half an archive would do with it what it likes, and a blob that fails can be tried again meanwhile.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncpull.destination.savedarchive import ArchiveDestination, SavedArchive
from asyncpull.dockerd import DaemonClient
from asyncpull.errors import UsageError
from asyncpull.http import Stream
from asyncpull.scratch import open_scratch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpull.dockerd import DaemonAddress
    from asyncpull.spec.location import DaemonLocation
    from asyncpull.spec.reference import Reference


@asynccontextmanager
async def open_daemon_image(
    location: DaemonLocation, address: DaemonAddress, names: Sequence[Reference] = ()
) -> AsyncIterator[ArchiveDestination]:
    """The image that the daemon at ``address`` is to have under the name in ``location``, and under ``names`` besides.

    Raises UsageError for a location that is an ID or a digest; UnavailableError, AuthenticationError where the daemon
    does not answer now, before anything is done for it; NoSpaceError, StoreWriteError.
    """
    if location.reference is None or location.reference.tag is None:
        raise UsageError(f"{location}: an image is loaded under a name with a tag, not under a digest")
    fd = open_scratch()
    try:
        archive = SavedArchive(str(location), fd)
        async with DaemonClient(address) as daemon:

            async def load() -> None:
                await daemon.load(Stream(archive.size, archive.chunks))

            await daemon.ask_version()
            yield ArchiveDestination(str(location), archive, (location.reference, *names), load)
    finally:
        os.close(fd)
