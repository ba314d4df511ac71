"""Who goes next."""

from __future__ import annotations

import asyncio

import pytest

from asyncpull.fetch.scheduler import Queued, Scheduler, SchedulerLimits, Start, decide


@pytest.mark.parametrize(
    ("sizes", "active", "limit", "expected"),
    [
        ([], 0, 3, []),
        ([10, 30, 20], 0, 3, [1, 2, 0]),
        ([10, 30, 20], 1, 3, [1, 2]),
        ([10, 30, 20], 3, 3, []),
        ([10, 30, 20], 5, 3, []),
        ([5, 5, 5], 0, 2, [0, 1]),
    ],
)
def test_the_largest_then_the_first(sizes: list[int], active: int, limit: int, expected: list[int]) -> None:
    queued = [Queued(number, size) for number, size in enumerate(sizes)]
    assert decide(queued, active, SchedulerLimits(limit)) == tuple(map(Start, expected))


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
