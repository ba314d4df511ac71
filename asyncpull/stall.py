"""When a peer that still sends something is given up: one byte now and then would else be waited for for ever."""

from __future__ import annotations

from asyncpull.dataclass import dataclass
from asyncpull.errors import TemporaryError


@dataclass(frozen=True, slots=True)
class StallLimits:
    """A connection that moved fewer than ``bytes`` in ``seconds`` of waiting for it is given up."""

    seconds: float = 30.0
    bytes: int = 30 << 10


class StallWatch:
    """Judges one connection by what came in the time that was spent waiting for it."""

    def __init__(self, limits: StallLimits) -> None:
        self._limits = limits
        self._waited = 0.0
        self._moved = 0

    @property
    def patience(self) -> float:
        """How many seconds it may be waited for now."""
        return max(0.0, self._limits.seconds - self._waited)

    def moved(self, count: int, waited: float) -> None:
        """Take note of ``count`` bytes after ``waited`` seconds. Raises TemporaryError when it is too slow."""
        self._waited += waited
        self._moved += count
        if self._waited >= self._limits.seconds:
            if self._moved < self._limits.bytes:
                raise TemporaryError(f"only {self._moved} bytes came in {self._waited:.0f} s")
            self._waited, self._moved = 0.0, 0
