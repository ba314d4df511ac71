"""Which download goes next: at most so many connections at once, the largest blob first.

The largest first, because the longest download then starts earliest and the small ones fill the gaps. ``decide`` is
the whole policy, over plain values; Scheduler only waits around it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


@dataclass(frozen=True, slots=True)
class Queued:
    """A download that waits for its turn; ``number`` is its place in the order of arrival."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """``parallel_downloads``: blobs on their way at once. 6 as containers/image has it; more gained nothing."""

    parallel_downloads: int = 6


@dataclass(frozen=True, slots=True)
class Start:
    """Let the download with this number begin."""

    number: int


def decide(queued: Sequence[Queued], active: int, limits: SchedulerLimits) -> tuple[Start, ...]:
    """What to begin now, with ``active`` downloads on their way."""
    free = max(0, limits.parallel_downloads - active)
    order = sorted(queued, key=lambda item: (-item.size, item.number))
    return tuple(Start(item.number) for item in order[:free])


class Scheduler:
    """Turns for downloads, given as ``decide`` says."""

    def __init__(self, limits: SchedulerLimits | None = None) -> None:
        self._limits = limits or SchedulerLimits()
        self._queued: dict[int, tuple[Queued, asyncio.Event]] = {}
        self._active = 0
        self._arrived = 0

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait until a blob of ``size`` bytes may be downloaded; the turn lasts as long as the body."""
        self._arrived += 1
        number, begins = self._arrived, asyncio.Event()
        self._queued[number] = Queued(number, size), begins
        # Those that arrive in the same round of the loop are compared with each other, not served as they come.
        asyncio.get_running_loop().call_soon(self._go_on)
        try:
            await begins.wait()
            yield
        finally:
            if self._queued.pop(number, None) is None:
                self._active -= 1
                self._go_on()

    def _go_on(self) -> None:
        for action in decide([item for item, _ in self._queued.values()], self._active, self._limits):
            _, begins = self._queued.pop(action.number)
            self._active += 1
            begins.set()

    def __repr__(self) -> str:
        return f"<Scheduler {self._active} active, {len(self._queued)} queued>"
