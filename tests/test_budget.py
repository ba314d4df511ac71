"""Bytes a second, and bytes at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from asyncpull.budget import Bandwidth, Bucket, Memory


@pytest.mark.parametrize(
    ("takes", "waits"),
    [
        ([(100, 0.0)], [0.0]),
        ([(100, 0.0), (50, 0.0)], [0.0, 0.5]),
        ([(100, 0.0), (50, 0.5)], [0.0, 0.0]),
        ([(100, 0.0), (100, 1.0), (100, 1.0)], [0.0, 0.0, 1.0]),
        ([(0, 0.0), (200, 1000.0)], [0.0, 1.0]),  # however long nothing was asked for, no more than the burst
        ([(1000, 0.0), (10, 5.0)], [9.0, 4.1]),  # a large piece is a debt that is paid first
    ],
)
def test_a_bucket(takes: list[tuple[int, float]], waits: list[float]) -> None:
    bucket = Bucket(rate=100.0, burst=100.0)
    assert [bucket.take(count, now) for count, now in takes] == pytest.approx(waits)


def test_many_who_wait_as_told_keep_the_rate_and_get_the_same() -> None:
    rate, connections, chance = 1_000_000.0, 12, random.Random(3)
    bucket = Bucket(rate, rate / 4)
    ready = [0.0] * connections
    got = [0] * connections
    while (now := min(ready)) < 20.0:
        who = ready.index(now)
        count = chance.randrange(1, 262_144)
        got[who] += count
        ready[who] = now + bucket.take(count, now) + 1e-6
    assert sum(got) == pytest.approx(20 * rate, rel=0.1)
    assert max(got) - min(got) <= 6 * 262_144


async def test_no_bandwidth_is_no_limit_and_a_wide_one_lets_pass() -> None:
    await Bandwidth(None).spend(1 << 60)
    await Bandwidth(1e30).spend(1 << 60)


async def test_memory_is_never_over_its_ceiling_and_serves_in_order() -> None:
    memory, order = Memory(100), []

    async def one(number: int, count: int) -> None:
        await memory.take(count)
        order.append(number)
        assert memory.held <= 100
        await asyncio.sleep(0)
        memory.give_back(count)

    await asyncio.gather(*(one(number, 1 + number * 7 % 60) for number in range(200)))
    assert order == list(range(200))
    assert memory.held == 0
    assert 60 <= memory.peak <= 100
    assert repr(memory) == "<Memory 0 of 100 bytes, 0 waiting>"


async def test_what_is_larger_than_the_ceiling_is_let_in_alone() -> None:
    memory = Memory(100)
    await memory.take(1)
    large = asyncio.create_task(memory.take(500))
    await asyncio.sleep(0)
    small = asyncio.create_task(memory.take(1))
    await asyncio.sleep(0)
    assert not large.done()
    memory.give_back(1)
    await large
    assert not small.done()
    memory.give_back(500)
    await small
    assert memory.held == 1


@pytest.mark.parametrize("steps", range(4))
async def test_whoever_stops_waiting_holds_nothing(steps: int) -> None:
    memory = Memory(10)
    await memory.take(10)
    waiting = [asyncio.create_task(memory.take(10)) for _ in range(2)]
    for _ in range(steps):
        await asyncio.sleep(0)
    memory.give_back(10)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await waiting[1]
    assert memory.held == 10
