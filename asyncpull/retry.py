"""When a failed request is made again: after how long, and how often without progress.

A budget of failures is spent one by one and refilled by progress, so that a connection which breaks every few
megabytes still gets to the end, while a source that gives nothing is left after ``attempts`` tries. Only errors that
call themselves ``temporary`` are worth a try. The pause doubles with every failure in a row and is drawn at random
from its upper half, so that many clients do not come back in one wave. A source that names a time itself
(Retry-After) is obeyed, unless it asks for more than ``patience_seconds``: then the person decides.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import field
from typing import TYPE_CHECKING, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient we are.

    ``attempts`` failures in a row without progress end it; ``progress_bytes`` received count as progress. With
    ``fixed_seconds`` every pause is so long, instead of twice as long as the one before.
    """

    attempts: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    patience_seconds: float = 120.0
    progress_bytes: int = 64 << 10
    fixed_seconds: float | None = None


def _draw() -> float:
    return int.from_bytes(os.urandom(6)) / (1 << 48)


@dataclass(slots=True)
class RetryBudget:
    """The failures of one blob or document so far; ``draw`` gives a number in [0, 1) per failure."""

    policy: RetryPolicy
    draw: Callable[[], float] = _draw
    failures: int = field(default=0, init=False)
    _progress: int = field(default=0, init=False)

    def progressed(self, count: int) -> bool:
        """Take note of ``count`` bytes received; true if they are enough, and the failures are forgotten."""
        self._progress += count
        if self._progress < self.policy.progress_bytes:
            return False
        self.failures = 0
        return True

    def pause_after(self, error: SourceError, *, elsewhere: bool = False) -> float | None:
        """Count ``error``: the seconds to wait before the next try, or None where there should be none.

        ``elsewhere`` tells that the next try is made at another endpoint: that need not wait, whatever the error is.
        """
        self._progress = 0
        self.failures += 1
        if self.failures >= self.policy.attempts or not (error.temporary or elsewhere):
            return None
        if elsewhere:
            return 0.0
        pause = self.policy.fixed_seconds
        if pause is None:
            ceiling = min(self.policy.longest_seconds, self.policy.first_seconds * 2.0 ** (self.failures - 1))
            pause = ceiling * (0.5 + self.draw() / 2)
        if error.retry_after is None:
            return pause
        return None if error.retry_after > self.policy.patience_seconds else max(pause, error.retry_after)


async def retrying(policy: RetryPolicy, attempt: Callable[[], Awaitable[T]]) -> T:
    """Await ``attempt()`` until it succeeds, or until the budget is spent: then its last error is raised."""
    budget = RetryBudget(policy)
    while True:
        try:
            return await attempt()
        except SourceError as error:
            pause = budget.pause_after(error)
            if pause is None:
                raise
        await asyncio.sleep(pause)
