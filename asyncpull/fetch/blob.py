"""One blob from a source into its spool, whatever happens on the way.

Only holes are asked for, over one connection or several (see claims.py). What was received stays, whatever happens to
a connection that breaks, stalls or is refused for a while:

- Its endpoint is blamed, and if the source has others, what is missing is asked for again at once: the source knows
  better now. That is so once per endpoint until it gives something again; connections that were open already when it
  was blamed break for the same reason, which is not counted again.
- Else, one of several connections is not replaced: the others take over what it leaves.
- Else it costs a pause and one of the tries that progress refills (retry.py).

Who serves more than the descriptor promises is refused at once, if nobody else can be asked. The digest is not looked
at here: the reader of the spool does that (suspects.py says what follows).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import SizeMismatchError, SourceError, TemporaryError, UnavailableError
from asyncpull.fetch.claims import Claims
from asyncpull.retry import RetryBudget
from asyncpull.spec.source import Fault
from asyncpull.stall import StallLimits, StallWatch
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from asyncpull.budget import Bandwidth
    from asyncpull.fetch.claims import Claim
    from asyncpull.retry import RetryPolicy
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import BlobResponse, Source
    from asyncpull.spool import Spool, SpoolWriter


# How often a connection that has nothing to do looks whether it can relieve another one.
_LINGER_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told, on the event loop, of what befalls a download.

    ``on_retry`` gets the reason and the pause in seconds before each new try, ``on_origin`` the name of each endpoint
    that begins to send, ``on_failure`` each error after which nobody else can be asked.
    """

    on_retry: Callable[[str, float], None] = lambda reason, pause: None
    on_origin: Callable[[str], None] = lambda origin: None
    on_failure: Callable[[SourceError], None] = lambda error: None


class BlobDownload:
    """The download of one blob; from the endpoint called ``origin`` alone, if that is given."""

    def __init__(
        self,
        descriptor: Descriptor,
        source: Source,
        spool: Spool,
        *,
        retry: RetryPolicy,
        stall: StallLimits,
        bandwidth: Bandwidth,
        listener: Listener,
        origin: str | None = None,
    ) -> None:
        self._descriptor, self._source, self._spool, self._origin = descriptor, source, spool, origin
        self._stall, self._bandwidth, self._listener = stall, bandwidth, listener
        self._budget = RetryBudget(retry)
        self._claims = Claims(spool.size, spool.received)
        self._tasks: set[asyncio.Task[None]] = set()
        self._holders: dict[Claim, asyncio.Task[None]] = {}
        self._wanted = 1
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        self._blamed: dict[str, float] = {}

    @property
    def remaining(self) -> int:
        """How many bytes are missing."""
        return self._spool.size - self._spool.received.total

    @property
    def connections(self) -> int:
        """Over how many connections it receives now."""
        return len(self._tasks)

    def use(self, connections: int) -> None:
        """Have so many connections from now on, unless the source knows no ranges; those too many end their claim."""
        if not self._tasks or self._ended.is_set() or not self._claims.has_ranges:
            return
        self._wanted = connections
        if connections > len(self._tasks):
            self._claims.share(connections)
        while len(self._tasks) < connections:
            self._add_connection()

    async def run(self) -> None:
        """Fill the holes of the spool, over one connection at first.

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
        if self._failure is not None or not self.remaining:
            self._ended.set()
        elif not self._tasks and not self._ended.is_set():
            self._add_connection()  # the last ones left at the same moment, each relying on the other

    async def _receive_all(self) -> None:
        """What one connection does: claim after claim, until there is none for it."""
        while len(self._tasks) <= self._wanted:
            claim = self._next_claim()
            if claim is None:
                if not self._claims.may_need_relief:
                    return
                await asyncio.sleep(_LINGER_SECONDS)
                continue
            pause = await self._receive_claim(claim)
            if pause is None:
                return
            if pause > 0:
                await asyncio.sleep(pause)

    def _next_claim(self) -> Claim | None:
        """What is next for this connection: a hole, or what another one is too slow with."""
        now = asyncio.get_running_loop().time()
        claim = self._claims.take(len(self._tasks), now)
        if claim is None:
            claim, useless = self._claims.relieve(now)
            if useless is not None:
                self._holders[useless].cancel()
        task = asyncio.current_task()
        if claim is not None and task is not None:
            self._holders[claim] = task
        return claim

    async def _receive_claim(self, claim: Claim) -> float | None:
        """Receive a claim, or some of it: how long to wait before the next one; None if there is to be none."""
        loop = asyncio.get_running_loop()
        asked, origin = loop.time(), None
        try:
            # None if this is the end of the blob: a source without ranges is not asked for any then.
            end = None if claim.end == self._spool.size else claim.end
            async with self._source.open_blob(self._descriptor, claim.start, end, origin=self._origin) as response:
                origin = response.origin
                self._listener.on_origin(origin)
                await self._receive(response, claim)
            return 0.0
        except SourceError as error:
            return self._after_failure(error, origin, asked)
        except SizeMismatchError as error:
            if origin is None:
                raise
            return self._after_failure(error, origin, asked)
        finally:
            del self._holders[claim]
            self._claims.give_back(claim)

    def _after_failure(self, error: SourceError | SizeMismatchError, origin: str | None, asked: float) -> float | None:
        """``origin``, or nobody, failed to give what was ``asked`` for at that time: how long to wait now.

        None if the others make up for this connection. Raises ``error`` if there is no hope.
        """
        is_first = False
        if origin is not None:
            self._source.blame(origin, _fault(error))
            if self._origin is None and len(self._source.origins) > 1:
                if asked <= self._blamed.get(origin, -1.0):
                    return 0.0
                is_first = origin not in self._blamed
                self._blamed[origin] = asyncio.get_running_loop().time()
        if isinstance(error, SizeMismatchError):
            if not is_first:
                raise error
            error = UnavailableError(str(error))
        if not is_first:
            self._listener.on_failure(error)
            if error.temporary and len(self._tasks) > 1:
                return None
        pause = self._budget.pause_after(error, elsewhere=is_first)
        if pause is None:
            raise error
        self._listener.on_retry(str(error), pause)
        return pause

    async def _receive(self, response: BlobResponse, claim: Claim) -> None:
        """Take what ``response`` has of the claim into the spool.

        A response that begins before the claim is the whole blob, for the source knows no ranges; then every later
        hole is filled from it too.
        """
        size = self._spool.size
        if response.start < claim.start and not self._claims.without_ranges(claim):
            return
        loop = asyncio.get_running_loop()
        last = size if response.end is None else response.end
        position = response.start
        watch = StallWatch(self._stall)
        async with _HoleWriter(self._spool, response.origin) as writer:
            # A body that ends where we do is read to its end: only then is it known that nothing follows, and only
            # then can the connection be used again. One that would go on is left.
            while position < (stop := min(last, claim.end)) or stop == last:
                claim.is_held = False
                chunk = await _next_chunk(response, watch, is_enough=position >= stop)
                if not chunk:
                    break
                claim.is_held = True
                if position + len(chunk) > size:
                    raise SizeMismatchError(f"blob {self._spool.digest}", size, position + len(chunk))
                self._progressed(response.origin, await writer.write(position, chunk, min(last, claim.end)))
                position += len(chunk)
                if position > last:
                    break
                await self._bandwidth.spend(len(chunk))
                claim.moved(min(position, claim.end), loop.time())
        if position < stop:
            what = f"blob {self._spool.digest}: the body ended at byte {position} of {stop}"
            raise UnavailableError(what, temporary=True)

    def _progressed(self, origin: str, count: int) -> None:
        if self._budget.progressed(count):
            self._blamed.pop(origin, None)


def _fault(error: SourceError | SizeMismatchError) -> Fault:
    if isinstance(error, SizeMismatchError):
        return Fault.CORRUPT
    return Fault.STALLED if isinstance(error, TemporaryError) else Fault.BROKEN


async def _next_chunk(response: BlobResponse, watch: StallWatch, *, is_enough: bool) -> bytes:
    """The next bytes, or none at the end; if there are enough already, a failure to find the end is none."""
    try:
        while True:
            chunk = await _within(response, watch)
            if chunk is not None:
                return chunk
    except SourceError:
        if not is_enough:
            raise
        return b""


async def _within(response: BlobResponse, watch: StallWatch) -> bytes | None:
    """The next bytes; None if none came as long as ``watch`` is patient, and it is not too slow all the same."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(watch.patience or None):
            chunk = await anext(response.chunks, b"")
    except TimeoutError:
        chunk = None
    watch.moved(len(chunk or b""), loop.time() - began)
    return chunk


class _HoleWriter:
    """Writes what of a stream that ``origin`` sends lies in holes of the spool, as an async context manager."""

    def __init__(self, spool: Spool, origin: str) -> None:
        self._spool, self._origin = spool, origin
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
                self._writer = self._spool.writer(part.start, self._origin)
            whole = len(part) == len(chunk)
            await self._writer.write(chunk if whole else chunk[part.start - position : part.end - position])
        return sum(map(len, missing))
