"""One blob from a source into its spool, whatever happens on the way.

Only holes are asked for, over one connection or several (see claims.py). A connection that breaks, stalls or is refused
for a while costs a pause and the request of what is still missing; what was received stays. One of several that fails
is not replaced: the others take over what it leaves. Who serves more than the descriptor promises is refused at once.
The digest is not looked at here: the reader of the spool does that, and asks for the blob afresh if it was resumed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncpull.errors import SizeMismatchError, SourceError, TemporaryError, UnavailableError
from asyncpull.fetch.claims import Claims
from asyncpull.retry import RetryBudget
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from asyncpull.fetch.claims import Claim
    from asyncpull.retry import RetryPolicy
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import BlobResponse, Source
    from asyncpull.spool import Spool, SpoolWriter


@dataclass(frozen=True, slots=True)
class StallLimits:
    """A connection that moved fewer than ``bytes`` in ``seconds`` of waiting for it is given up."""

    seconds: float = 30.0
    bytes: int = 30 << 10


class StallWatch:
    """Judges one connection by what came in the time that was spent waiting for it."""

    def __init__(self, limits: StallLimits) -> None:
        self._limits = limits
        self._waited = 0.0
        self._moved = 0

    def moved(self, count: int, waited: float) -> None:
        """Take note of ``count`` bytes after ``waited`` seconds. Raises TemporaryError when it is too slow."""
        self._waited += waited
        self._moved += count
        if self._waited >= self._limits.seconds:
            if self._moved < self._limits.bytes:
                raise TemporaryError(f"only {self._moved} bytes came in {self._waited:.0f} s")
            self._waited, self._moved = 0.0, 0


class BlobDownload:
    """The download of one blob. ``on_retry`` is told the reason and the pause in seconds before each new try."""

    def __init__(
        self,
        descriptor: Descriptor,
        source: Source,
        spool: Spool,
        *,
        retry: RetryPolicy,
        stall: StallLimits,
        on_retry: Callable[[str, float], None],
    ) -> None:
        self._descriptor, self._source, self._spool = descriptor, source, spool
        self._stall, self._on_retry = stall, on_retry
        self._budget = RetryBudget(retry)
        self._claims = Claims(spool.size, spool.received)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        self._may_widen = True

    @property
    def remaining(self) -> int:
        """How many bytes are missing."""
        return self._spool.size - self._spool.received.total

    @property
    def connections(self) -> int:
        """Over how many connections it receives now."""
        return len(self._tasks)

    def widen(self, connections: int) -> None:
        """Use so many connections from now on, unless the source knows no ranges or could not bear several."""
        if not self._tasks or self._ended.is_set() or not self._claims.has_ranges or not self._may_widen:
            return
        self._claims.share(connections)
        while len(self._tasks) < connections:
            self._add_connection()

    async def run(self) -> None:
        """Fill the holes of the spool.

        Raises SourceError when the budget is spent, SizeMismatchError, NoSpaceError, StoreWriteError. Whatever is
        raised, the spool keeps what was received, and no connection is left.
        """
        self._add_connection()
        try:
            await self._ended.wait()
        finally:
            self._ended.set()
            for task in self._tasks:
                task.cancel()
            await finish(asyncio.gather(*self._tasks, return_exceptions=True))
        if self._failure is not None:
            raise self._failure

    def _add_connection(self) -> None:
        name = f"fetch {self._descriptor.digest} connection"
        task = asyncio.get_running_loop().create_task(self._receive_all(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        self._failure = self._failure or failure
        if self._failure is not None or not self._tasks:
            self._ended.set()

    async def _receive_all(self) -> None:
        """What one connection does: claim after claim, until there is none for it."""
        while (claim := self._claims.take(len(self._tasks))) is not None:
            try:
                # None if this is the end of the blob: a source without ranges is not asked for any then.
                end = None if claim.end == self._spool.size else claim.end
                async with self._source.open_blob(self._descriptor, claim.start, end) as response:
                    await self._receive(response, claim)
                continue
            except SourceError as error:
                if error.temporary and len(self._tasks) > 1:
                    self._may_widen = False
                    return
                pause = self._budget.pause_after(error)
                if pause is None:
                    raise
                self._on_retry(str(error), pause)
            finally:
                self._claims.give_back(claim)
            await asyncio.sleep(pause)

    async def _receive(self, response: BlobResponse, claim: Claim) -> None:
        """Take what ``response`` has of the claim into the spool.

        A response that begins before the claim is the whole blob, for the source knows no ranges; then every later
        hole is filled from it too.
        """
        size = self._spool.size
        if response.start < claim.start and not self._claims.without_ranges(claim):
            return
        last = size if response.end is None else response.end
        position = response.start
        watch = StallWatch(self._stall)
        async with _HoleWriter(self._spool) as writer:
            # A body that ends where we do is read to its end: only then is it known that nothing follows, and only
            # then can the connection be used again. One that would go on is left.
            while position < (stop := min(last, claim.end)) or stop == last:
                chunk = await _next_chunk(response, watch, is_enough=position >= stop)
                if not chunk:
                    break
                if position + len(chunk) > size:
                    raise SizeMismatchError(f"blob {self._spool.digest}", size, position + len(chunk))
                self._budget.progressed(await writer.write(position, chunk, min(last, claim.end)))
                position += len(chunk)
                claim.position = max(claim.position, min(position, claim.end))
                if position > last:
                    break
        if position < stop:
            what = f"blob {self._spool.digest}: the body ended at byte {position} of {stop}"
            raise UnavailableError(what, temporary=True)


async def _next_chunk(response: BlobResponse, watch: StallWatch, *, is_enough: bool) -> bytes:
    """The next bytes, or none at the end; if there are enough already, a failure to find the end is none."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        chunk = await anext(response.chunks, b"")
        watch.moved(len(chunk), loop.time() - began)
    except SourceError:
        if not is_enough:
            raise
        return b""
    return chunk


class _HoleWriter:
    """Writes what of a stream lies in holes of the spool, as an async context manager."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._writer: SpoolWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            await self._writer.__aexit__(kind, error, trace)

    async def write(self, position: int, chunk: bytes, stop: int) -> int:
        """Write those bytes of ``chunk``, which begins at ``position``, that are missing below ``stop``: how many."""
        missing = list(self._spool.received.missing(position, min(position + len(chunk), stop)))
        for part in missing:
            if self._writer is None or self._writer.position != part.start:
                if self._writer is not None:
                    await self._writer.__aexit__(None, None, None)
                self._writer = self._spool.writer(part.start)
            whole = len(part) == len(chunk)
            await self._writer.write(chunk if whole else chunk[part.start - position : part.end - position])
        return sum(map(len, missing))
