"""One blob from a source into its spool, whatever happens on the way.

Only holes are asked for. A connection that breaks, stalls or is refused for a while costs a pause and the request of
what is still missing; what was received stays. Who serves more than the descriptor promises is refused at once. The
digest is not looked at here: the reader of the spool does that, and asks for the blob afresh if it was resumed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncpull.errors import SizeMismatchError, SourceError, TemporaryError, UnavailableError
from asyncpull.retry import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from asyncpull.ranges import Range
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


async def fetch_blob(
    descriptor: Descriptor,
    source: Source,
    spool: Spool,
    *,
    retry: RetryPolicy,
    stall: StallLimits,
    on_retry: Callable[[str, float], None],
) -> None:
    """Fill the holes of ``spool``; ``on_retry`` is told the reason and the pause in seconds before each new try.

    Raises SourceError when the budget is spent, SizeMismatchError, NoSpaceError, StoreWriteError. Whatever is raised,
    the spool keeps what was received.
    """
    budget = RetryBudget(retry)
    while (hole := next(spool.missing(), None)) is not None:
        try:
            end = None if hole.end == spool.size else hole.end
            async with source.open_blob(descriptor, hole.start, end) as response:
                await _receive(response, hole, spool, budget, StallWatch(stall))
        except SourceError as error:
            pause = budget.pause_after(error)
            if pause is None:
                raise
            on_retry(str(error), pause)
            await asyncio.sleep(pause)


async def _receive(response: BlobResponse, wanted: Range, spool: Spool, budget: RetryBudget, watch: StallWatch) -> None:
    """Take what ``response`` has into the holes of ``spool``.

    A response that begins before ``wanted`` is the whole blob, for the source knows no ranges; then every later hole
    is filled from it too.
    """
    last = spool.size if response.end is None else response.end
    stop = min(last, spool.size if response.start < wanted.start else wanted.end)
    position = response.start
    async with _HoleWriter(spool) as writer:
        # A body that ends where we do is read to its end: only then is it known that nothing follows, and only then
        # can the connection be used again. One that would go on is left.
        while position < stop or stop == last:
            chunk = await _next_chunk(response, watch, is_enough=position >= stop)
            if not chunk:
                break
            if position + len(chunk) > spool.size:
                raise SizeMismatchError(f"blob {spool.digest}", spool.size, position + len(chunk))
            budget.progressed(await writer.write(position, chunk, stop))
            position += len(chunk)
            if position > last:
                break
    if position < stop:
        raise UnavailableError(f"blob {spool.digest}: the body ended at byte {position} of {stop}", temporary=True)


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
