"""A tar file as ``docker save`` writes it as a destination: ``docker-archive:``, of one image or of several.

A file that is there is not changed, unless it is empty; a new one is seen when it is whole. What is no file, such as a
pipe or ``/dev/stdout``, gets the archive when that is whole, which until then is in a scratch file.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncpull.destination.savedarchive import ArchiveDestination, SavedArchive
from asyncpull.errors import StoreWriteError, UsageError
from asyncpull.newfile import NewFile, exists
from asyncpull.scratch import open_scratch, writing
from asyncpull.spec.location import DockerArchiveLocation
from asyncpull.waiting import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpull.spec.reference import Reference

_LOOK_SECONDS: Final = 0.1  # how often is looked whether somebody reads a pipe by now


@asynccontextmanager
async def open_docker_archive(
    location: DockerArchiveLocation, names: Sequence[Reference] = ()
) -> AsyncIterator[ArchiveDestination]:
    """The only image of the archive that ``location`` names; ``names`` are tags that it gets besides.

    Raises UsageError for a location that counts images, StoreWriteError where the file cannot be made.
    """
    if location.number is not None:
        raise UsageError(f"{location}: an image is written under a tag, not at a number")
    async with new_docker_archive(location.path) as archive:
        own = () if location.reference is None else (location.reference,)
        yield ArchiveDestination(str(location), archive.contents, (*own, *names), archive.publish)


@asynccontextmanager
async def new_docker_archive(path: str) -> AsyncIterator[NewDockerArchive]:
    """An archive for several images at ``path``, which is there when the body has ended without an error.

    Raises StoreWriteError where the file cannot be made, NoSpaceError.
    """
    with ExitStack() as opened:
        archive = await in_thread(lambda: _open(path, opened))
        yield archive
        if archive.contents.has_images:
            await archive.publish()


class NewDockerArchive:
    """An archive in the making, from ``new_docker_archive``; it ``is_file`` unless it is sent into something else."""

    def __init__(self, path: str, contents: SavedArchive, *, is_file: bool) -> None:
        self.contents = contents
        self._path, self._is_file, self._is_published = path, is_file, False

    def destination(self, *names: Reference) -> ArchiveDestination:
        """An image of it, tagged with ``names``. What several images have in common is written once."""
        location = DockerArchiveLocation(self._path, names[0] if names else None)
        return ArchiveDestination(str(location), self.contents, names, _nothing)

    async def publish(self) -> None:
        """Let the archive be seen, once. Raises StoreWriteError, NoSpaceError."""
        if self._is_published:
            return
        self._is_published = True
        if self._is_file:
            stop = threading.Event()
            await in_thread(lambda: self._write_file(stop), stop.set)
        else:
            await _send(self._path, self.contents)

    def _write_file(self, stop: threading.Event) -> None:
        with writing(self._path), NewFile(Path(self._path)) as file:
            self.contents.write_to(file.fd, stop)
            if not stop.is_set():
                file.publish(replace=False)


async def _nothing() -> None:
    """What is done after an image that is not the last one."""


def _open(path: str, opened: ExitStack) -> NewDockerArchive:
    """Find out what ``path`` is, and open what is written meanwhile. Raises StoreWriteError."""
    with writing(path):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            status = None
    if status is None or (stat.S_ISREG(status.st_mode) and not _is_open_file(path)):
        if status is not None and status.st_size:
            raise exists(Path(path))
        # What is kept meanwhile lies where the archive will be, for there is room for it or there is no use.
        kept = opened.enter_context(NewFile(Path(path)))
        return NewDockerArchive(path, SavedArchive(path, kept.fd), is_file=True)
    if stat.S_ISDIR(status.st_mode):
        raise StoreWriteError("is a directory", path, "name a file in it")
    fd = open_scratch()
    opened.callback(os.close, fd)
    return NewDockerArchive(path, SavedArchive(path, fd), is_file=False)


def _is_open_file(path: str) -> bool:
    """Whether this is a way to say a file that is open already, as ``/dev/stdout`` is, and not to be replaced."""
    return os.path.realpath(os.path.dirname(os.path.abspath(path))).startswith(("/dev", "/proc/"))


async def _send(path: str, archive: SavedArchive) -> None:
    """Write an archive into what is no file. Raises StoreWriteError, where its reader goes away too."""
    with writing(path):
        out = await _open_pipe(path)
        try:
            async with aclosing(archive.chunks()) as chunks:
                async for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        try:
                            view = view[os.write(out, view) :]
                        except BlockingIOError:
                            await _writable(out)
        finally:
            os.close(out)


async def _open_pipe(path: str) -> int:
    """Open what may be a pipe that nobody reads yet, which is waited for. Raises OSError."""
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await asyncio.sleep(_LOOK_SECONDS)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)
