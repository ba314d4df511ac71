"""Waits that are not left half-way."""

from __future__ import annotations

import asyncio

import pytest

from asyncpull.waiting import finish, run_all


async def test_a_cancellation_is_passed_on_when_the_job_has_ended() -> None:
    job: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stops: list[int] = []
    waiter = asyncio.create_task(finish(job, lambda: stops.append(1)))
    await asyncio.sleep(0)
    for times in (1, 2):
        waiter.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiter.done()
        assert len(stops) == times
    assert not job.cancelled()
    job.set_result(1)
    with pytest.raises(asyncio.CancelledError):
        await waiter


@pytest.mark.parametrize("error", [None, ValueError("what the job raised")])
async def test_what_the_job_raised_is_left_to_the_caller(error: Exception | None) -> None:
    job: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(job.set_exception, error) if error else job.set_result(1)
    await finish(job)
    assert job.exception() is error


async def test_results_come_in_order() -> None:
    assert await run_all(asyncio.sleep(0, number) for number in range(3)) == [0, 1, 2]
    assert await run_all([]) == []


async def failing() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError


@pytest.mark.parametrize("cancelled", [False, True])
async def test_all_have_ended_whatever_ends_them(cancelled: bool) -> None:
    ended: list[str] = []

    async def reluctant() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            ended.append("reluctant")

    others = [] if cancelled else [failing()]
    task = asyncio.create_task(run_all([reluctant(), *others, reluctant()]))
    await asyncio.sleep(0)
    if cancelled:
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else ZeroDivisionError):
        await task
    assert ended == ["reluctant"] * 2
