"""Waiting for what must not be left half-way: a thread that uses our descriptors, a task that holds a lock."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

T = TypeVar("T")


async def finish(job: asyncio.Future[T], stop: Callable[[], object] = lambda: None) -> None:
    """Wait until ``job`` has ended, and only then pass a cancellation on; ``stop`` is called to bring the end nearer.

    Raises nothing of the job: its result, or its exception, is the caller's to fetch.
    """
    cancelled: asyncio.CancelledError | None = None
    while not job.done():
        try:
            # Unlike await, asyncio.wait does not cancel what it waits for.
            await asyncio.wait((job,))
        except asyncio.CancelledError as again:
            cancelled = again
            stop()
    if cancelled is not None:
        raise cancelled


async def in_thread(call: Callable[[], T], stop: Callable[[], object] = lambda: None) -> T:
    """Do what blocks in a thread, to its end even if we are cancelled: it may use a descriptor that we close then.

    ``stop`` is called at a cancellation, to bring the end nearer. Raises what ``call`` raises.
    """
    job = asyncio.get_running_loop().run_in_executor(None, call)
    await finish(job, stop)
    return job.result()


async def run_all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once and return their results in order.

    The first failure cancels the others and is raised, as itself, when all have ended; so does a cancellation.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        failed = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is not None]
        for task in tasks:
            task.cancel()
        await finish(asyncio.gather(*tasks, return_exceptions=True))
    for task in failed:
        task.result()
    return [task.result() for task in tasks]


async def run_beside(work: Coroutine[Any, Any, T], watch: Coroutine[Any, Any, None]) -> T:
    """Run ``work`` to its end and return its result, with ``watch`` beside it, whose failure ends it.

    What is raised is the failure of ``watch`` if there is one, else that of ``work``, when both have ended.
    """
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(watch)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        has_failed = tasks[1].done() and not tasks[1].cancelled() and tasks[1].exception() is not None
        for task in tasks:
            task.cancel()
        await finish(asyncio.gather(*tasks, return_exceptions=True))
    if has_failed:
        tasks[1].result()
    return tasks[0].result()


async def settled(look: Callable[[], Awaitable[T]], error: type[Exception], pauses: Sequence[float]) -> T:
    """What ``look`` gives, which may raise ``error`` while others are writing what it looks at.

    It looks again after each of ``pauses``, in seconds, and then once more, whose error is raised.
    """
    for pause in pauses:
        with suppress(error):
            return await look()
        await asyncio.sleep(pause)
    return await look()
