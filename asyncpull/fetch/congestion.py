"""How many connections one registry bears: a window, as TCP has one, but of connections.

::

    what is seen                                                       what becomes of the window
    all of it is used, and the last growth was worth it                half as many again
    the last growth brought next to nothing                            stays, and is left alone for a while
    the last growth made all together slower                           as it was before, and left alone for a while
    429, 5xx, a reset, no answer in time                               half; left alone for a while, or as long as
                                                                       the registry said (Retry-After)

Failures of one moment are one: several connections that break together halve the window once. It never goes below one
connection, and what the limits allow is never exceeded. Everything here is plain values; scheduler.py measures.
"""

from __future__ import annotations

from dataclasses import replace

from asyncpull.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class CongestionLimits:
    """Bounds of a window, in connections, and how it moves.

    It begins with ``first`` and has at most ``most``. A growth has ``trial_seconds`` to show that goodput became
    ``growth`` times what it was; below ``loss`` times it is taken back. After that and after a failure, the window is
    left alone for ``settle_seconds``; failures within ``moment_seconds`` are one.
    """

    first: int = 8
    most: int = 16
    growth: float = 1.1
    loss: float = 0.8
    trial_seconds: float = 0.5
    settle_seconds: float = 3.0
    moment_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """So many ``connections`` may be open to one registry; nothing is changed before ``held_until``.

    While a growth is on trial, ``former`` is what there was before it and ``former_rate`` the goodput then, in bytes a
    second; 0 if there is none. ``failed`` is when it was halved last.
    """

    connections: int
    held_until: float = float("-inf")
    former: int = 0
    former_rate: float = 0.0
    failed: float = float("-inf")

    def after_sample(self, used: int, rate: float, now: float, limits: CongestionLimits) -> Window:
        """``used`` connections together received ``rate`` bytes a second of late."""
        if now < self.held_until or used < self.connections:
            return self
        if self.former and rate < self.former_rate * limits.growth:
            kept = self.former if rate < self.former_rate * limits.loss else self.connections
            return replace(self, connections=kept, former=0, held_until=now + limits.settle_seconds)
        grown = min(limits.most, self.connections + max(1, self.connections // 2))
        if grown <= self.connections:
            return self
        return replace(
            self,
            connections=grown,
            former=self.connections,
            former_rate=rate,
            held_until=now + limits.trial_seconds,
        )

    def after_failure(self, now: float, retry_after: float | None, limits: CongestionLimits) -> Window:
        """A connection was refused, broken or timed out; ``retry_after`` is how long the registry wants peace."""
        held = max(self.held_until, now + max(limits.settle_seconds, retry_after or 0.0))
        if now - self.failed < limits.moment_seconds:
            return replace(self, held_until=held)
        return Window(max(1, self.connections // 2), held, failed=now)
