"""Blobs for whoever asks, each fetched once.

A digest that is wanted twice in this process has one download, which belongs to none of those who want it: it goes on
while anybody does, and is ended by the last who leaves. Between processes the lock of the spool does the same: who
waited for it finds what the other received.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncpull.budget import Bandwidth, Memory
from asyncpull.dataclass import dataclass
from asyncpull.fetch.blob import BlobDownload, Listener
from asyncpull.fetch.scheduler import Scheduler, SchedulerLimits
from asyncpull.journal import is_as_recorded, read_records
from asyncpull.retry import RetryPolicy
from asyncpull.spool import open_spool, remove_spool, spool_directory, sweep_spools
from asyncpull.stall import StallLimits
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from asyncpull.journal import Recorded
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import Source
    from asyncpull.spool import Spool


MEMORY = 64 << 20
# What the HTTP client may hold of one connection, and the piece of it that is in our hands.
READ_BUFFER = 512 << 10


class FetchingBlob:
    """A blob that is on its way, or here: from ``Fetcher.open``.

    ``fd`` is a descriptor of the spool for reading, good up to ``front`` and until the context ends; it may be handed
    to another process. ``resumed`` bytes were here before. ``is_shared`` tells that somebody else had asked first.
    """

    def __init__(self, download: _Download, spool: Spool, *, is_shared: bool) -> None:
        self.descriptor = download.descriptor
        self.fd = download.fd
        self.is_shared = is_shared
        self.resumed = spool.resumed
        self._download, self._spool = download, spool

    @property
    def front(self) -> int:
        """How many bytes are here without a gap from byte zero on."""
        return self._spool.front

    @property
    def fetched(self) -> int:
        """How many bytes this process received."""
        return self._spool.received.total - self.resumed

    @property
    def origins(self) -> Mapping[str, int]:
        """How many bytes came from which endpoint, earlier or now, as far as that is known."""
        return self._spool.origins

    def differs(self, record: Recorded) -> bool:
        """Whether what was recorded of another attempt is not what this one has; blocks while that is read."""
        return not is_as_recorded(self.fd, record)

    async def completed(self) -> None:
        """Wait until all bytes are here. Raises what ended the download, if that comes first."""
        await asyncio.wait((self._download.task,))
        self._download.task.result()

    def __repr__(self) -> str:
        return f"<FetchingBlob {self._spool!r}>"


class NotWantedError(Exception):
    """Nobody who asked for a blob wants it any more; a signal to those who asked, never seen by others."""


class Fetcher:
    """Fetches blobs into spools below ``spool_root``; an async context manager that leaves no download behind.

    All downloads together receive at most ``bandwidth`` bytes a second, and hold at most ``memory`` bytes of what they
    received: half of that at most is for what connections hold that are being read, so fewer than ``limits`` allow are
    open where it is small.
    """

    def __init__(
        self,
        spool_root: Path,
        *,
        limits: SchedulerLimits | None = None,
        retry: RetryPolicy | None = None,
        stall: StallLimits | None = None,
        bandwidth: float | None = None,
        memory: int = MEMORY,
    ) -> None:
        limits = (limits or SchedulerLimits()).within(max(1, memory // 2 // READ_BUFFER))
        self._root = spool_root
        self._retry = retry or RetryPolicy()
        self._stall = stall or StallLimits()
        self._bandwidth = Bandwidth(bandwidth)
        self._memory = Memory(memory - limits.most_connections * READ_BUFFER)
        self._scheduler = Scheduler(limits)
        self._downloads: dict[tuple[Digest, int], _Download] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for download in list(self._downloads.values()):
            self._forget(download)
            await download.stop()

    @asynccontextmanager
    async def open(
        self,
        descriptor: Descriptor,
        source: Source,
        *,
        on_front: Callable[[int], None] = lambda position: None,
        on_retry: Callable[[str, float], None] = lambda reason, pause: None,
        on_origin: Callable[[str], None] = lambda origin: None,
        still_wanted: Callable[[], Awaitable[bool]] | None = None,
        afresh: bool = False,
        origin: str | None = None,
    ) -> AsyncIterator[FetchingBlob]:
        """Fetch a blob while the body runs, which begins when there is a spool to read along.

        ``on_front`` is called with the front when it has advanced, ``on_retry`` with the reason and the pause in
        seconds before each new try, and ``on_origin`` with the name of each endpoint that begins to send; all on the
        event loop. ``still_wanted`` is asked when it is our turn and nothing was received, for the wait may have been
        long, and others may have done it all meanwhile: NotWantedError is raised if nobody wants it then.

        ``afresh`` forgets what was received earlier, and ``origin`` asks that endpoint alone: for a blob whose digest
        was wrong. Leaving the body before the end gives the download up, unless somebody else wants it. Raises
        SourceError, SizeMismatchError, StoreError.
        """
        key = (descriptor.digest, descriptor.size)
        download = self._downloads.get(key)
        is_shared = download is not None
        if download is None:
            download = self._downloads[key] = _Download(self, descriptor, source, afresh=afresh, origin=origin)
        listener = _Wish(on_front, on_retry, on_origin, still_wanted)
        download.listeners.append(listener)
        try:
            spool = await download.opened()
            on_front(spool.front)
            yield FetchingBlob(download, spool, is_shared=is_shared)
        finally:
            download.listeners.remove(listener)
            if not download.listeners:
                self._forget(download)
                await download.stop()

    async def discard(self, digest: Digest) -> bool:
        """Remove the spool of a blob that is committed or worthless, unless another process receives it right now.

        Returns whether it is gone. Raises StoreError.
        """
        return await remove_spool(self._root, digest)

    async def sweep(self, older_than_seconds: float) -> int:
        """Remove what was received of blobs that nobody has come back for in that time: how many. Raises StoreError."""
        return await sweep_spools(self._root, older_than_seconds)

    async def records(self, digest: Digest) -> list[Recorded]:
        """What was received of a blob so far, by whom it was sent. It is not compared with what is in the spool."""
        return await asyncio.to_thread(read_records, spool_directory(self._root, digest))

    async def run(self, download: _Download, *, afresh: bool, origin: str | None) -> None:
        """Run one download from its turn to its last byte."""
        descriptor = download.descriptor
        try:
            async with (
                self._scheduler.turn(descriptor.size, download.source.registry) as turn,
                open_spool(self._root, descriptor.digest, descriptor.size, self._memory) as spool,
            ):
                if afresh:
                    await spool.reset()
                elif not spool.received and not await download.is_wanted():
                    self._forget(download)  # at once: who comes now is not answered for by them
                    raise NotWantedError
                download.begin(spool)
                blob = BlobDownload(
                    descriptor,
                    download.source,
                    spool,
                    retry=self._retry,
                    stall=self._stall,
                    bandwidth=self._bandwidth,
                    listener=Listener(download.tell_retry, download.tell_origin, turn.failed),
                    origin=origin,
                )
                turn.attach(blob)
                await blob.run()
        finally:
            self._forget(download)

    def _forget(self, download: _Download) -> None:
        """Let whoever asks from now on begin anew, from what is in the spool."""
        key = (download.descriptor.digest, download.descriptor.size)
        if self._downloads.get(key) is download:
            del self._downloads[key]


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    """One who asked for a blob, and what to tell and ask them."""

    on_front: Callable[[int], None]
    on_retry: Callable[[str, float], None]
    on_origin: Callable[[str], None]
    still_wanted: Callable[[], Awaitable[bool]] | None


class _Download:
    """The one download of a blob, and who listens to it."""

    def __init__(
        self, fetcher: Fetcher, descriptor: Descriptor, source: Source, *, afresh: bool, origin: str | None
    ) -> None:
        self.descriptor, self.source = descriptor, source
        self.listeners: list[_Wish] = []
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Spool] = loop.create_future()
        self._front = 0
        self.fd = -1
        running = fetcher.run(self, afresh=afresh, origin=origin)
        self.task = loop.create_task(running, name=f"fetch {descriptor.digest}")

    async def opened(self) -> Spool:
        """The spool, as soon as it is open. Raises what ended the download before that."""
        await asyncio.wait((self._opened, self.task), return_when=asyncio.FIRST_COMPLETED)
        if not self._opened.done():
            self.task.result()
        return self._opened.result()

    def begin(self, spool: Spool) -> None:
        """The spool is open; the descriptor for readers is made while its lock keeps it from being removed."""
        self.fd = spool.open_reader()
        self._front = spool.front
        spool.on_advance = lambda: self._tell_front(spool)
        self._opened.set_result(spool)

    def _tell_front(self, spool: Spool) -> None:
        if spool.front > self._front:
            self._front = spool.front
            for listener in list(self.listeners):
                listener.on_front(self._front)

    async def is_wanted(self) -> bool:
        """Whether anybody who asked still wants it, those included who ask meanwhile."""
        asked: set[_Wish] = set()
        while left := [listener for listener in self.listeners if listener not in asked]:
            asked.add(left[0])
            if left[0].still_wanted is None or await left[0].still_wanted():
                return True
        return False

    def tell_retry(self, reason: str, pause: float) -> None:
        """A request failed and will be made again."""
        for listener in list(self.listeners):
            listener.on_retry(reason, pause)

    def tell_origin(self, origin: str) -> None:
        """An endpoint begins to send."""
        for listener in list(self.listeners):
            listener.on_origin(origin)

    async def stop(self) -> None:
        """End the download if it has not ended, and wait until it has let go of everything."""
        self.task.cancel()
        try:
            await finish(self.task)
        finally:
            if not self.task.cancelled():
                self.task.exception()  # taken note of, whether or not anybody waited for it
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1
