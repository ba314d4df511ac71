"""What one process may use, however much it does at once: bytes a second, and bytes that are in memory.

``Bucket`` decides, over plain values; ``Bandwidth`` waits as it says. ``Memory`` is a ceiling. Both serve whoever comes
first first, so that among connections which ask for about as much each time, each gets about as much.
"""

from __future__ import annotations

import asyncio
from collections import deque

# So many seconds of the rate may pass at once after a pause.
BURST_SECONDS = 0.25


class Bucket:
    """A token bucket: ``rate`` bytes a second, and ``burst`` bytes at once after a pause.

    What is taken is taken, also if it has to be waited for: later ones wait for that too, so no byte is ever let
    through twice, and a rate below the size of one piece is kept as well.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._filled = burst, float("-inf")

    def take(self, count: int, now: float) -> float:
        """Take ``count`` bytes at the time ``now``: how many seconds to wait before going on."""
        if self._filled != float("-inf"):
            self._level = min(self._burst, self._level + (now - self._filled) * self._rate)
        self._filled = now
        self._level -= count
        return max(0.0, -self._level / self._rate)


class Bandwidth:
    """At most ``rate`` bytes a second; None is no limit."""

    def __init__(self, rate: float | None) -> None:
        self._bucket = None if rate is None else Bucket(rate, rate * BURST_SECONDS)

    async def spend(self, count: int) -> None:
        """Account for ``count`` bytes that were received, and wait as long as that was too fast."""
        if self._bucket is None:
            return
        pause = self._bucket.take(count, asyncio.get_running_loop().time())
        if pause > 0:
            await asyncio.sleep(pause)


class Memory:
    """At most ``ceiling`` bytes, in the pieces of many; ``held`` is how many there are now, ``peak`` were at most.

    Who has to wait must not keep from ending what it holds already; then nobody waits for ever. A piece that is larger
    than the ceiling is let in alone.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.held = self.peak = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Hold another ``count`` bytes, as soon as there is room and everybody before has been served."""
        if not self._waiting and self._has_room(count):
            self._hold(count)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(count)
            else:
                self._serve()
            raise

    def give_back(self, count: int) -> None:
        """Hold ``count`` bytes fewer."""
        self.held -= count
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            count, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._has_room(count):
                    return
                self._hold(count)
                turn.set_result(None)
            self._waiting.popleft()

    def _has_room(self, count: int) -> bool:
        return self.held == 0 or self.held + count <= self.ceiling

    def _hold(self, count: int) -> None:
        self.held += count
        self.peak = max(self.peak, self.held)

    def __repr__(self) -> str:
        return f"<Memory {self.held} of {self.ceiling} bytes, {len(self._waiting)} waiting>"
