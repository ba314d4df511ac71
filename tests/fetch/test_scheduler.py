"""Who goes next, and who gets more."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import pytest

from asyncpull.errors import TemporaryError, UnavailableError
from asyncpull.fetch.congestion import CongestionLimits
from asyncpull.fetch.scheduler import MIB, Active, Queued, Scheduler, SchedulerLimits, Start, Use, decide

LIMITS = SchedulerLimits(
    parallel_downloads=3,
    connections=10,
    connections_per_blob=6,
    first_connections=1,
    worthwhile_seconds=1.0,
    worthwhile_bytes=4 * MIB,
    growth=1.2,
    enough_rate=64.0 * MIB,
)


def active(
    number: int = 0,
    remaining: int = 100 * MIB,
    connections: int = 1,
    rate: float = 10.0 * MIB,
    former_rate: float = 0.0,
) -> Active:
    return Active(number, remaining, connections, rate, former_rate)


@pytest.mark.parametrize(
    ("sizes", "running", "expected"),
    [
        ([], 0, []),
        ([10, 30, 20], 0, [1, 2, 0]),
        ([10, 30, 20], 1, [1, 2]),
        ([10, 30, 20], 3, []),
        ([10, 30, 20], 5, []),
        ([5, 5, 5, 5], 0, [0, 1, 2]),
    ],
)
def test_the_largest_then_the_first(sizes: list[int], running: int, expected: list[int]) -> None:
    queued = [Queued(number, size) for number, size in enumerate(sizes)]
    others = [active(number, rate=0.0) for number in range(10, 10 + running)]
    assert decide(queued, others, LIMITS) == tuple(map(Start, expected))


@pytest.mark.parametrize(
    ("item", "connections"),
    [
        (active(), 2),
        (active(connections=2, rate=20.0 * MIB, former_rate=10.0 * MIB), 4),
        (active(connections=4), 6),
        (active(connections=6), None),
        (active(rate=0.0), None),
        (active(remaining=10 * MIB), 2),
        (active(remaining=10 * MIB - 1), None),
        (active(remaining=8 * MIB, rate=1.0 * MIB), 2),
        (active(remaining=8 * MIB - 1, rate=1.0 * MIB), None),
        (active(connections=2, rate=12.0 * MIB, former_rate=10.0 * MIB), 4),
        (active(connections=2, rate=11.9 * MIB, former_rate=10.0 * MIB), None),
    ],
)
def test_more_connections_while_that_is_worth_it(item: Active, connections: int | None) -> None:
    assert decide([], [item], LIMITS) == (() if connections is None else (Use(0, connections),))


def test_nobody_gets_more_while_others_wait() -> None:
    running = [active(number) for number in range(3)]
    assert decide([Queued(9, 5)], running, LIMITS) == ()
    assert decide([Queued(9, 5)], running[:2], LIMITS) == (Start(9), Use(0, 2), Use(1, 2))


@pytest.mark.parametrize(("rates", "widens"), [([31.0, 32.0], True), ([31.0, 33.0], False), ([70.0, 0.0], False)])
def test_nobody_gets_more_where_it_is_fast_enough(rates: list[float], widens: bool) -> None:
    running = [active(number, 1000 * MIB, rate=rate * MIB) for number, rate in enumerate(rates)]
    assert bool(decide([], running, LIMITS)) is widens


def test_those_nobody_has_looked_at_are_taken_to_bring_as_much_as_others() -> None:
    new = [active(number, rate=0.0, former_rate=math.inf) for number in (1, 2)]
    assert decide([], [active(rate=22.0 * MIB), *new], LIMITS) == ()
    assert decide([], [active(rate=20.0 * MIB), *new], LIMITS) == (Use(0, 2),)
    assert decide([Queued(9, 5)], [active(rate=22.0 * MIB), new[0]], LIMITS) == (Start(9),)
    empty = active(3, 10 * MIB, rate=0.0)  # that one was looked at: nothing had come
    assert decide([], [active(rate=40.0 * MIB), empty, new[0]], LIMITS) == (Use(0, 2),)


def test_nobody_gets_more_where_no_time_is_left() -> None:
    assert decide((), (active(),), LIMITS) == (Use(0, 2),)
    assert decide((), (active(),), LIMITS, is_busy=True) == ()
    assert decide((Queued(1, 10),), (active(),), LIMITS, is_busy=True) == (Start(1),)


def test_nobody_gets_more_than_makes_it_fast_enough() -> None:
    running = [active(0, 1000 * MIB, 4, 40.0 * MIB), active(1, 900 * MIB, 2, 15.0 * MIB)]
    assert decide([], running, LIMITS) == (Use(0, 5),)
    assert decide([], running, dataclasses.replace(LIMITS, enough_rate=78.0 * MIB)) == (Use(0, 6), Use(1, 3))


def test_the_one_with_the_most_left_gets_more_first() -> None:
    limits = dataclasses.replace(LIMITS, connections=4)
    running = [active(0, 50 * MIB), active(1, 90 * MIB), active(2, 70 * MIB)]
    assert decide([], running, limits) == (Use(1, 2),)


@pytest.mark.parametrize(
    ("items", "window", "expected"),
    [
        ([active()], 8, [4]),
        ([active(rate=0.0)], 8, [4]),  # nothing has come yet
        ([active(former_rate=math.inf)], 8, [1]),  # nobody has looked yet
        ([active(rate=64.0 * MIB)], 8, [1]),  # fast enough
        ([active(rate=30.0 * MIB)], 8, [3]),  # so many make it fast enough
        ([active(connections=3, rate=60.0 * MIB, former_rate=30.0 * MIB)], 8, [4]),
        ([active(remaining=30 * MIB, rate=31.0 * MIB)], 8, [1]),  # here in a moment
        ([active(remaining=15 * MIB)], 8, [3]),
        ([active(remaining=3 * MIB, rate=0.0)], 8, [1]),
        ([active()], 2, [2]),
        ([active(connections=2)], 8, [4]),
        ([active(0), active(1, 99 * MIB)], 6, [4, 2]),
        ([active(0, former_rate=math.inf), active(1, 99 * MIB)], 6, [1, 4]),
    ],
)
def test_a_large_one_soon_has_several(items: list[Active], window: int, expected: list[int]) -> None:
    limits = dataclasses.replace(LIMITS, first_connections=4)
    actions = decide([], items, limits, {"": window})
    wanted = {action.number: action.connections for action in actions if isinstance(action, Use)}
    assert [wanted.get(item.number, item.connections) for item in items] == expected


def test_each_starts_with_one() -> None:
    limits = dataclasses.replace(LIMITS, first_connections=4)
    assert decide([Queued(0, 100 * MIB), Queued(1, MIB)], [], limits) == (Start(0), Start(1))


def test_what_a_registry_bears_is_its_own_affair() -> None:
    running = [
        dataclasses.replace(active(0), registry="full"),
        dataclasses.replace(active(1), registry="free"),
    ]
    assert decide([], running, LIMITS, {"full": 1, "free": 8}) == (Use(1, 2),)
    assert decide([Queued(9, MIB, "full")], running, LIMITS, {"full": 1, "free": 8}) == ()
    assert decide([Queued(9, MIB, "full")], running, LIMITS, {"full": 2, "free": 8}) == (Start(9), Use(1, 2))


def test_wide_ones_become_narrower_where_less_is_borne() -> None:
    running = [active(0, connections=5, former_rate=1e9), active(1, connections=2, former_rate=1e9)]
    assert decide([], running, LIMITS, {"": 4}) == (Use(0, 2),)
    assert decide([], running, LIMITS, {"": 1}) == (Use(0, 1), Use(1, 1))
    assert decide([Queued(9, MIB)], running, LIMITS, {"": 7}) == (Start(9), Use(0, 4))
    crowded = dataclasses.replace(LIMITS, connections=6)
    assert decide([], running, crowded) == (Use(0, 4),)


def test_never_more_than_memory_allows() -> None:
    limits = LIMITS.within(2)
    assert (limits.parallel_downloads, limits.connections, limits.most_connections) == (2, 2, 2)
    assert LIMITS.within(100) == LIMITS


class Refused:
    """A download that is refused as often as it is looked at."""

    remaining = 1000 * MIB
    connections = 1

    def use(self, connections: int) -> None:
        self.connections = connections


async def test_failures_make_the_window_of_a_registry_smaller() -> None:
    limits = dataclasses.replace(LIMITS, congestion=CongestionLimits(first=2), sample_seconds=0.0)
    scheduler = Scheduler(limits)
    async with scheduler.turn(10, "busy") as turn:
        turn.attach(Refused())
        turn.failed(UnavailableError("permanent"))
        async with scheduler.turn(10, "busy"):
            pass
        turn.failed(TemporaryError("429", retry_after=60.0))
        waiting = asyncio.create_task(scheduler.turn(10, "busy").__aenter__())
        async with scheduler.turn(10, "other"):
            assert not waiting.done()
    await waiting
    assert repr(scheduler) == "<Scheduler 1 active, 0 queued>"
    waiting.cancel()


def never_busy() -> bool:
    return False


class Recorded:
    """A download of which another ``step`` bytes arrive whenever it is looked at."""

    def __init__(self, step: int = 10 * MIB) -> None:
        self.left, self._step = 1000 * MIB, step
        self.widths: list[int] = []
        self.looks = 0

    @property
    def remaining(self) -> int:
        self.looks += 1
        self.left -= self._step
        return self.left

    @property
    def connections(self) -> int:
        return self.widths[-1] if self.widths else 1

    def use(self, connections: int) -> None:
        self.widths.append(connections)


async def test_downloads_are_sampled_and_widened() -> None:
    eager = dataclasses.replace(
        LIMITS, worthwhile_seconds=0.0, growth=0.0, enough_rate=1e30, first_seconds=0.0, sample_seconds=0.0
    )
    scheduler, download = Scheduler(eager, never_busy), Recorded()
    async with scheduler.turn(1000):
        pass
    async with scheduler.turn(1000) as turn:
        turn.attach(download)
        while download.connections < 6:
            await asyncio.sleep(0)
    assert download.widths == [2, 4, 6]
    left = download.left
    for _ in range(10):
        await asyncio.sleep(0)
    assert download.left == left


async def test_until_it_was_looked_at_again_a_wide_one_is_expected_to_be_faster() -> None:
    """What it brings with more is not known yet, and the next one is not given what that will bring."""
    limits = dataclasses.replace(
        LIMITS, worthwhile_seconds=0.0, enough_rate=1.0, first_connections=4, first_seconds=0.0, sample_seconds=1e6
    )
    scheduler, download = Scheduler(limits, never_busy), Recorded()
    async with scheduler.turn(1000) as turn:
        turn.attach(download)
        while not turn.rate:
            await asyncio.sleep(0)
        assert turn.active().rate == turn.rate
        turn.use(3)
        assert turn.active().rate == turn.rate * 3
        assert turn.active().former_rate == math.inf


async def test_nothing_is_widened_before_it_was_looked_at() -> None:
    patient = dataclasses.replace(LIMITS, first_connections=4, first_seconds=1e6)
    scheduler, download = Scheduler(patient, never_busy), Recorded()
    async with scheduler.turn(1000) as turn:
        turn.attach(download)
        async with scheduler.turn(1000):
            await asyncio.sleep(0)
    assert not download.widths


async def test_one_that_has_not_begun_is_waited_for() -> None:
    limits = dataclasses.replace(
        LIMITS, worthwhile_seconds=0.0, enough_rate=1e30, first_connections=4, first_seconds=0.001, sample_seconds=1e6
    )
    scheduler, download = Scheduler(limits, never_busy), Recorded(0)
    async with scheduler.turn(1000) as turn:
        turn.attach(download)
        while download.looks < 5:
            await asyncio.sleep(0)
        assert not download.widths
        download.left -= MIB
        while not download.widths:
            await asyncio.sleep(0)
    assert download.widths == [4]


async def test_one_of_which_nothing_comes_gets_more_all_the_same() -> None:
    limits = dataclasses.replace(LIMITS, first_connections=4, first_seconds=0.001, sample_seconds=0.02)
    scheduler, download = Scheduler(limits, never_busy), Recorded(0)
    async with scheduler.turn(1000) as turn:
        turn.attach(download)
        while not download.widths:
            await asyncio.sleep(0)
    assert download.widths == [4]


async def test_who_is_busy_opens_no_more_connections() -> None:
    answers = iter([True, True])
    eager = dataclasses.replace(
        LIMITS, worthwhile_seconds=0.0, growth=0.0, enough_rate=1e30, first_seconds=0.0, sample_seconds=0.0
    )
    scheduler, download = Scheduler(eager, lambda: next(answers, False)), Recorded()
    async with scheduler.turn(1000) as turn:
        turn.attach(download)
        while not download.widths:
            await asyncio.sleep(0)
    assert download.looks == 4  # as it was attached, twice while there was no time, and then


async def test_each_is_looked_at_when_it_is_due() -> None:
    limits = dataclasses.replace(
        LIMITS, worthwhile_seconds=0.0, enough_rate=1e30, first_connections=4, first_seconds=0.0, sample_seconds=1e6
    )
    scheduler, former, fresh = Scheduler(limits, never_busy), Recorded(), Recorded()
    async with scheduler.turn(1000) as one:
        one.attach(former)
        while not former.widths:
            await asyncio.sleep(0)
        async with scheduler.turn(1000) as other:
            other.attach(fresh)
            left = former.left
            while not fresh.widths:
                await asyncio.sleep(0)
            assert former.left == left
    assert (former.widths, fresh.widths) == ([4], [4])


async def test_turns_are_given_back_whatever_happens() -> None:
    scheduler = Scheduler(SchedulerLimits(2))
    running = most = 0

    async def one(size: int) -> None:
        nonlocal running, most
        async with scheduler.turn(size):
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(0)
                if size % 3 == 0:
                    raise ZeroDivisionError
            finally:
                running -= 1

    tasks = [asyncio.create_task(one(size)) for size in range(20)]
    for steps, task in enumerate(tasks[:10]):
        await asyncio.sleep(0)
        if steps % 2:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 2
    assert repr(scheduler) == "<Scheduler 0 active, 0 queued>"
