"""Which download goes next, and over how many connections.

The largest blob goes first, because the longest download then starts earliest and the small ones fill the gaps. Each
starts with one connection, since more of them cost the registry and us where one is as fast as layers are extracted. A
moment after it has begun to come, if nobody waits, a large one of which too little has come gets several; those that
will take a while yet are given more, twice as many each time, as long as that makes them faster: where the limit is the
line and not the connection, more are found to be no better and it stays at that. Where this process has no time left
(load.py), none gets more. What one registry bears altogether is the window of congestion.py.

``decide`` is the whole policy, over plain values; Scheduler only samples and waits around it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import field, replace
from typing import TYPE_CHECKING, Protocol

from asyncpull.dataclass import dataclass
from asyncpull.fetch.congestion import CongestionLimits, Window
from asyncpull.fetch.load import Load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from asyncpull.errors import SourceError

MIB = 1 << 20
_UNKNOWN = float("inf")


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """How much at once, and when more than one connection per blob is worth it.

    ``parallel_downloads`` blobs are on their way at once; 6, as containers/image has it. All of them together have at
    most ``connections``, if that is more, one at most ``connections_per_blob``, and those of one registry what its
    ``congestion`` window has. One is given ``first_connections`` when some of it has come within ``first_seconds``, and
    more when it has become ``growth`` times as fast by those that it was given last: if nobody waits, if it has another
    ``worthwhile_seconds`` to go at its present rate, and ``worthwhile_bytes`` to do for each. None is given more than
    it takes, if each brings the same, for all together to receive ``enough_rate`` bytes a second: that is as fast as
    layers are extracted, and on one machine more connections only cost time then. ``sample_seconds`` is how often this
    is looked at, and how long one of which nothing comes is waited for before it gets the first ones all the same.
    """

    parallel_downloads: int = 6
    connections: int = 16
    connections_per_blob: int = 12
    first_connections: int = 8
    first_seconds: float = 0.05
    worthwhile_seconds: float = 1.0
    worthwhile_bytes: int = 4 * MIB
    growth: float = 1.2
    enough_rate: float = 128.0 * MIB
    sample_seconds: float = 0.25
    congestion: CongestionLimits = field(default_factory=CongestionLimits)

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
    registry: str = ""


@dataclass(frozen=True, slots=True)
class Active:
    """A download on its way. ``rate`` is of late and ``former_rate`` was before it was widened, in bytes a second.

    As long as nothing was measured with the connections that it has, ``former_rate`` is infinite: it gets no more, and
    ``rate`` is what is expected of so many, 0 if nothing is known at all.
    """

    number: int
    remaining: int
    connections: int
    rate: float
    former_rate: float
    registry: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Let the download with this number begin, over one connection."""

    number: int


@dataclass(frozen=True, slots=True)
class Use:
    """Let the download with this number have so many connections, more than it has or fewer."""

    number: int
    connections: int


def decide(
    queued: Sequence[Queued],
    active: Sequence[Active],
    limits: SchedulerLimits,
    windows: Mapping[str, int] | None = None,
    *,
    is_busy: bool = False,
) -> tuple[Start | Use, ...]:
    """What to do now; ``windows`` is how many connections each registry bears, all that are allowed if it is not there.

    A window that is all used by wide downloads keeps nobody from starting: those become narrower. ``is_busy`` tells
    that whoever receives has no time left.
    """
    windows = windows or {}
    blobs = Counter(item.registry for item in active)
    begun: list[Queued] = []
    for item in sorted(queued, key=lambda item: (-item.size, item.number)):
        bears = windows.get(item.registry, limits.parallel_downloads)
        if blobs.total() < limits.parallel_downloads and blobs[item.registry] < bears:
            blobs[item.registry] += 1
            begun.append(item)
    wanted = {item.number: item.connections for item in active}
    _narrow(wanted, active, begun, limits, windows)
    lacking = limits.enough_rate - _expected_rate(active, len(begun))
    if len(begun) == len(queued) and lacking > 0 and not is_busy:
        room = _Room(limits, windows)
        used = [(item.registry, wanted[item.number]) for item in active] + [(item.registry, 1) for item in begun]
        for registry, connections in used:
            room.take(registry, connections)
        for each in sorted(active, key=lambda each: (-each.remaining, each.number)):
            if wanted[each.number] == each.connections:
                more = room.take(each.registry, _worthwhile(each, lacking, limits))
                wanted[each.number] += more
                lacking -= more * each.rate / each.connections
    changed = [Use(item.number, wanted[item.number]) for item in active if wanted[item.number] != item.connections]
    return (*(Start(item.number) for item in begun), *changed)


def _expected_rate(active: Sequence[Active], begun: int) -> float:
    """What all bring together, those included that begin: as much per connection as those of which that is known."""
    known = [item for item in active if item.rate > 0 or item.former_rate < _UNKNOWN]
    connections = sum(item.connections for item in known)
    rate = sum(item.rate for item in known)
    all_connections = sum(item.connections for item in active) + begun
    return rate * all_connections / connections if connections else 0.0


class _Room:
    """How many connections may be added."""

    def __init__(self, limits: SchedulerLimits, windows: Mapping[str, int]) -> None:
        self._most, self._windows = limits.most_connections, windows
        self._used: Counter[str] = Counter()

    def take(self, registry: str, count: int) -> int:
        """Use ``count``, or as many as there is room for; what is in use already is taken first."""
        free = self._most - self._used.total()
        if registry in self._windows:
            free = min(free, self._windows[registry] - self._used[registry])
        taken = max(0, min(count, free))
        self._used[registry] += taken
        return taken


def _narrow(
    wanted: dict[int, int],
    active: Sequence[Active],
    begun: Sequence[Queued],
    limits: SchedulerLimits,
    windows: Mapping[str, int],
) -> None:
    """Take connections from the widest downloads, until no registry has more than it bears, nor all of them."""
    for registry, most in [*windows.items(), (None, limits.most_connections)]:
        numbers = [item.number for item in active if registry in (None, item.registry)]
        used = sum(wanted[number] for number in numbers) + sum(registry in (None, item.registry) for item in begun)
        while used > most and any(wanted[number] > 1 for number in numbers):
            wanted[max(numbers, key=lambda number: wanted[number])] -= 1
            used -= 1


def _worthwhile(item: Active, lacking: float, limits: SchedulerLimits) -> int:
    """How many more connections are worth it where so many bytes a second are ``lacking``.

    The first ones are also where nothing has come yet.
    """
    is_new = item.connections < limits.first_connections and not item.former_rate
    has_grown = item.rate > 0 and item.rate >= item.former_rate * limits.growth
    if not (is_new or has_grown) or item.remaining < item.rate * limits.worthwhile_seconds:
        return 0
    more = limits.first_connections - item.connections if is_new else item.connections
    most = min(limits.connections_per_blob, item.remaining // limits.worthwhile_bytes)
    if item.rate > 0:
        more = min(more, math.ceil(lacking * item.connections / item.rate))
    return max(0, min(more, most - item.connections))


class Download(Protocol):
    """What the scheduler asks of a download, and of it."""

    @property
    def remaining(self) -> int:
        """How many bytes are missing."""

    @property
    def connections(self) -> int:
        """Over how many connections it receives now."""

    def use(self, connections: int) -> None:
        """Have so many connections from now on."""


@dataclass(slots=True)
class Turn:
    """The turn of one download, which begins over one connection. Once attached, it may be given more, or fewer.

    ``due`` is when it is to be looked at next, on the clock of the loop, and ``rate`` what was measured last, in bytes
    a second.
    """

    number: int
    registry: str
    scheduler: Scheduler
    due: float = _UNKNOWN
    rate: float = 0.0
    begins: asyncio.Event = field(default_factory=asyncio.Event)
    download: Download | None = None
    _remaining: int = 0
    _attached: float = 0.0
    _sampled: float = 0.0
    _expected_rate: float = 0.0
    _former_rate: float = 0.0
    _is_measured: bool = False

    def attach(self, download: Download) -> None:
        """Let ``download`` be sampled, and widened."""
        self.download = download
        self._attached = self._sampled = asyncio.get_running_loop().time()
        self._remaining = download.remaining
        self.due = self._sampled + self.scheduler.limits.first_seconds
        self.scheduler.arm()

    def failed(self, error: SourceError) -> None:
        """Take note that a connection to the registry failed, and nobody else can be asked."""
        self.scheduler.failed(self.registry, error)

    def sample(self, now: float) -> None:
        """Measure the rate since the last time; of one of which nothing has come yet, only after a while."""
        limits = self.scheduler.limits
        self.due = now + limits.sample_seconds
        if self.download is None or now <= self._sampled:
            return
        received = self._remaining - self.download.remaining
        elapsed, self._sampled = now - self._sampled, now
        if not received and now < self._attached + limits.sample_seconds:
            self.due = now + limits.first_seconds
            return
        self.rate = self._expected_rate = received / elapsed
        self._remaining -= received
        self._is_measured = True

    def active(self) -> Active:
        """The download as ``decide`` wants it."""
        connections = max(1, self.download.connections) if self.download is not None else 1
        former_rate = self._former_rate if self._is_measured else _UNKNOWN
        return Active(self.number, self._remaining, connections, self._expected_rate, former_rate, self.registry)

    def use(self, connections: int) -> None:
        """Give the download more connections, or fewer, and remember how fast it was before it got more."""
        if self.download is not None:
            before = max(1, self.download.connections)
            # What it had with more is no measure any longer.
            self._former_rate = self.rate if connections > before else 0.0
            self._expected_rate = self.rate * connections / before
            self._is_measured = False
            self.download.use(connections)


class Scheduler:
    """Turns for downloads, given as ``decide`` says."""

    def __init__(self, limits: SchedulerLimits | None = None, is_busy: Callable[[], bool] | None = None) -> None:
        """``is_busy`` tells whether whoever receives has no time left; without it, the event loop's load does."""
        self.limits = limits or SchedulerLimits()
        self._is_busy = is_busy or Load().is_full
        self._was_busy = False
        self._queued: dict[int, tuple[Queued, Turn]] = {}
        self._active: dict[int, Turn] = {}
        self._windows: dict[str, Window] = {}
        self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, size: int, registry: str = "") -> AsyncIterator[Turn]:
        """Wait until a blob of ``size`` bytes of ``registry`` may be downloaded; the turn lasts as long as the body."""
        self._arrived += 1
        number = self._arrived
        turn = Turn(number, registry, self)
        self._queued[number] = Queued(number, size, registry), turn
        self._windows.setdefault(registry, Window(self.limits.congestion.first))
        # Those that arrive in the same round of the loop are compared with each other, not served as they come.
        asyncio.get_running_loop().call_soon(self._go_on)
        try:
            await turn.begins.wait()
            yield turn
        finally:
            self._queued.pop(number, None)
            if self._active.pop(number, None) is not None:
                self._go_on()

    def failed(self, registry: str, error: SourceError) -> None:
        """A connection to ``registry`` failed; if that may pass, it is one of too many, perhaps."""
        if error.temporary:
            now = asyncio.get_running_loop().time()
            window = self._windows[registry].after_failure(now, error.retry_after, self.limits.congestion)
            self._windows[registry] = window

    def _go_on(self) -> None:
        queued = [item for item, _ in self._queued.values()]
        active = [turn.active() for turn in self._active.values()]
        windows = {registry: window.connections for registry, window in self._windows.items()}
        for action in decide(queued, active, self.limits, windows, is_busy=self._was_busy):
            if isinstance(action, Start):
                _, turn = self._queued.pop(action.number)
                self._active[action.number] = turn
                turn.begins.set()
            else:
                self._active[action.number].use(action.connections)
        self.arm()

    def arm(self) -> None:
        """Look again when the first of the downloads is due, if there is any."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((turn.due for turn in self._active.values()), default=_UNKNOWN)
        if due < _UNKNOWN:
            self._timer = asyncio.get_running_loop().call_at(due, self._sample)

    def _sample(self) -> None:
        self._timer = None
        self._was_busy = self._is_busy()
        now = asyncio.get_running_loop().time()
        used: Counter[str] = Counter()
        rates: Counter[str] = Counter()
        for turn in self._active.values():
            if turn.due <= now:
                turn.sample(now)
            used[turn.registry] += turn.active().connections
            rates[turn.registry] += int(turn.rate)
        for registry, connections in used.items():
            window = self._windows[registry]
            window = window.after_sample(connections, rates[registry], now, self.limits.congestion)
            self._windows[registry] = window
        self._go_on()

    def __repr__(self) -> str:
        return f"<Scheduler {len(self._active)} active, {len(self._queued)} queued>"
