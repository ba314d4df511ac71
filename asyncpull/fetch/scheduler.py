"""Which download goes next, and over how many connections.

The largest blob goes first, because the longest download then starts earliest and the small ones fill the gaps. A blob
starts with one connection. When nobody waits any more, those that will take a while yet are given more, twice as many
each time, as long as that makes them faster: where the limit is the line and not the connection, two are found to be no
better than one and it stays at that.

``decide`` is the whole policy, over plain values; Scheduler only samples and waits around it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """How much at once, and when more than one connection per blob is worth it.

    ``parallel_downloads`` blobs are on their way at once; 6, as containers/image has it. All of them together have at
    most ``connections``, if that is more, and one at most ``connections_per_blob``. One is given more if it has
    another ``worthwhile_seconds`` to go at its present rate and would have ``worthwhile_bytes`` for each connection;
    and more again if it has become ``growth`` times as fast by that. None is while all together receive ``enough_rate``
    bytes a second: that is as fast as layers are extracted, and on one machine more connections only cost time then.
    ``sample_seconds`` is how often this is looked at.
    """

    parallel_downloads: int = 6
    connections: int = 12
    connections_per_blob: int = 8
    worthwhile_seconds: float = 1.0
    worthwhile_bytes: int = 4 * MIB
    growth: float = 1.2
    enough_rate: float = 64.0 * MIB
    sample_seconds: float = 0.25

    @property
    def most_connections(self) -> int:
        """How many there are at most."""
        return max(self.parallel_downloads, self.connections)

    def within(self, connections: int) -> SchedulerLimits:
        """These limits, with no more than so many connections."""
        return replace(
            self,
            parallel_downloads=min(self.parallel_downloads, connections),
            connections=min(self.connections, connections),
        )


@dataclass(frozen=True, slots=True)
class Queued:
    """A download that waits for its turn; ``number`` is its place in the order of arrival, ``size`` in bytes."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class Active:
    """A download on its way. ``rate`` is of late and ``former_rate`` was before it was widened, in bytes a second."""

    number: int
    remaining: int
    connections: int
    rate: float
    former_rate: float


@dataclass(frozen=True, slots=True)
class Start:
    """Let the download with this number begin."""

    number: int


@dataclass(frozen=True, slots=True)
class Widen:
    """Let the download with this number have so many connections."""

    number: int
    connections: int


def decide(queued: Sequence[Queued], active: Sequence[Active], limits: SchedulerLimits) -> tuple[Start | Widen, ...]:
    """What to do now."""
    free = max(0, limits.parallel_downloads - len(active))
    order = sorted(queued, key=lambda item: (-item.size, item.number))
    actions: list[Start | Widen] = [Start(item.number) for item in order[:free]]
    if len(order) > free or sum(item.rate for item in active) >= limits.enough_rate:
        return tuple(actions)
    spare = limits.connections - len(actions) - sum(item.connections for item in active)
    for item in sorted(active, key=lambda item: (-item.remaining, item.number)):
        more = min(item.connections, spare, limits.connections_per_blob - item.connections)
        if more > 0 and _is_worth_more(item, more, limits):
            actions.append(Widen(item.number, item.connections + more))
            spare -= more
    return tuple(actions)


def _is_worth_more(item: Active, more: int, limits: SchedulerLimits) -> bool:
    return (
        item.rate > 0
        and item.rate >= item.former_rate * limits.growth
        and item.remaining >= item.rate * limits.worthwhile_seconds
        and item.remaining >= (item.connections + more) * limits.worthwhile_bytes
    )


class Download(Protocol):
    """What the scheduler asks of a download, and of it."""

    @property
    def remaining(self) -> int:
        """How many bytes are missing."""

    @property
    def connections(self) -> int:
        """Over how many connections it receives now."""

    def widen(self, connections: int) -> None:
        """Use so many connections from now on."""


@dataclass(slots=True)
class Turn:
    """The turn of one download. Once it is attached, it may be given more connections."""

    number: int
    begins: asyncio.Event = field(default_factory=asyncio.Event)
    download: Download | None = None
    _remaining: int = 0
    _sampled: float = 0.0
    _rate: float = 0.0
    _former_rate: float = 0.0

    def attach(self, download: Download) -> None:
        """Let ``download`` be sampled, and widened."""
        self.download = download
        self._remaining, self._sampled = download.remaining, asyncio.get_running_loop().time()

    def sample(self, now: float) -> None:
        """Measure the rate since the last time."""
        if self.download is not None and now > self._sampled:
            remaining = self.download.remaining
            self._rate = (self._remaining - remaining) / (now - self._sampled)
            self._remaining, self._sampled = remaining, now

    def active(self) -> Active:
        """The download as ``decide`` wants it; what is not attached yet cannot be widened, having no rate."""
        if self.download is None:
            return Active(self.number, 0, 1, 0.0, 0.0)
        connections = max(1, self.download.connections)
        return Active(self.number, self._remaining, connections, self._rate, self._former_rate)

    def widen(self, connections: int) -> None:
        """Give the download more connections, and remember how fast it was with fewer."""
        if self.download is not None:
            self._former_rate = self._rate
            self._rate = 0.0
            self.download.widen(connections)


class Scheduler:
    """Turns for downloads, given as ``decide`` says."""

    def __init__(self, limits: SchedulerLimits | None = None) -> None:
        self._limits = limits or SchedulerLimits()
        self._queued: dict[int, tuple[Queued, Turn]] = {}
        self._active: dict[int, Turn] = {}
        self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[Turn]:
        """Wait until a blob of ``size`` bytes may be downloaded; the turn lasts as long as the body."""
        self._arrived += 1
        number = self._arrived
        turn = Turn(number)
        self._queued[number] = Queued(number, size), turn
        # Those that arrive in the same round of the loop are compared with each other, not served as they come.
        asyncio.get_running_loop().call_soon(self._go_on)
        try:
            await turn.begins.wait()
            yield turn
        finally:
            self._queued.pop(number, None)
            if self._active.pop(number, None) is not None:
                self._go_on()

    def _go_on(self) -> None:
        queued = [item for item, _ in self._queued.values()]
        for action in decide(queued, [turn.active() for turn in self._active.values()], self._limits):
            if isinstance(action, Start):
                _, turn = self._queued.pop(action.number)
                self._active[action.number] = turn
                turn.begins.set()
            else:
                self._active[action.number].widen(action.connections)
        self._arm()

    def _arm(self) -> None:
        """Look again in a while, if there is anything to look at."""
        if not self._active and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._active and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limits.sample_seconds, self._sample)

    def _sample(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for turn in self._active.values():
            turn.sample(now)
        self._go_on()

    def __repr__(self) -> str:
        return f"<Scheduler {len(self._active)} active, {len(self._queued)} queued>"
