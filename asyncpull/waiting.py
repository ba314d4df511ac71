"""Waiting for what must not be left half-way: a thread that uses our descriptors, a task that holds a lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

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
