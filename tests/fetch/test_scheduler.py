"""Who goes next, and who gets more."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from asyncpull.fetch.scheduler import MIB, Active, Queued, Scheduler, SchedulerLimits, Start, Widen, decide

LIMITS = SchedulerLimits(
    parallel_downloads=3,
    connections=10,
    connections_per_blob=6,
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
    assert decide([], [item], LIMITS) == (() if connections is None else (Widen(0, connections),))


def test_nobody_gets_more_while_others_wait() -> None:
    running = [active(number) for number in range(3)]
    assert decide([Queued(9, 5)], running, LIMITS) == ()
    assert decide([Queued(9, 5)], running[:2], LIMITS) == (Start(9), Widen(0, 2), Widen(1, 2))


@pytest.mark.parametrize(("rates", "widens"), [([31.0, 32.0], True), ([31.0, 33.0], False), ([70.0, 0.0], False)])
def test_nobody_gets_more_where_it_is_fast_enough(rates: list[float], widens: bool) -> None:
    running = [active(number, 1000 * MIB, rate=rate * MIB) for number, rate in enumerate(rates)]
    assert bool(decide([], running, LIMITS)) is widens


def test_the_one_with_the_most_left_gets_more_first() -> None:
    limits = dataclasses.replace(LIMITS, connections=4)
    running = [active(0, 50 * MIB), active(1, 90 * MIB), active(2, 70 * MIB)]
    assert decide([], running, limits) == (Widen(1, 2),)


class Recorded:
    """A download that another 10 MiB arrive of whenever it is looked at."""

    def __init__(self) -> None:
        self.left = 1000 * MIB
        self.widths: list[int] = []

    @property
    def remaining(self) -> int:
        self.left -= 10 * MIB
        return self.left

    @property
    def connections(self) -> int:
        return self.widths[-1] if self.widths else 1

    def widen(self, connections: int) -> None:
        self.widths.append(connections)


async def test_downloads_are_sampled_and_widened() -> None:
    eager = dataclasses.replace(LIMITS, worthwhile_seconds=0.0, growth=0.0, enough_rate=1e30, sample_seconds=0.0)
    scheduler, download = Scheduler(eager), Recorded()
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
