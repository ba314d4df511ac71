"""How much the event loop has to do: who has no time left takes no more in, over however many connections it comes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

_SCHEDULER_STATISTICS: Final = Path("/proc/thread-self/schedstat")
# The kernel counts a thread's time when it lets it run or takes it off: a shorter while says little.
_SHORTEST_SECONDS: Final = 0.04
_FULL: Final = 0.85


class Load:
    """The load of the thread that asks, always the same one."""

    def __init__(self) -> None:
        self._looked = self._busy = 0.0
        self._is_full = False

    def is_full(self) -> bool:
        """Whether there was something to do nearly all the time since the last question; at the first one it is not."""
        now, busy = time.monotonic(), busy_seconds()
        passed = now - self._looked
        if passed >= _SHORTEST_SECONDS:
            self._is_full = bool(self._looked) and busy - self._busy >= passed * _FULL
            self._looked, self._busy = now, busy
        return self._is_full


def busy_seconds() -> float:
    """How long the calling thread has run so far, or waited for a core to run on; 0 where the kernel does not say.

    The form of the file is in Documentation/scheduler/sched-stats.rst of the kernel.
    """
    try:
        running, waiting, _ = _SCHEDULER_STATISTICS.read_bytes().split()
    except (OSError, ValueError):
        return 0.0
    return (int(running) + int(waiting)) / 1e9
