"""Which bytes of a blob each of its connections is after.

One connection is after everything from the first hole on, in one request. Several take pieces, the next one always at
the front, so that whoever reads along is served, and the smaller the less is left, so that all end together; but none
that would be here in no time, for a request costs time too. A claim that was made when there was one connection is cut
to a piece when others join; so a claim may end earlier than its request asked for. A source that knows no ranges is
left to one connection.

At the end, a connection that has nothing left to claim relieves the one that would take longest: of half of what that
is after, or of all of it if nothing has come for a while. So one slow or dead connection does not keep all others
waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.ranges import RangeSet

if TYPE_CHECKING:
    from asyncpull.ranges import Range

SMALLEST_PIECE = 1 << 20
LARGEST_PIECE = 8 << 20
PIECE_SECONDS = 0.1
# Less than that is not worth another request while it comes; nor is a claim that ends in so many seconds anyway.
SMALLEST_RELIEF = 128 << 10
SLOW_SECONDS = 2.0
SILENT_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Claim:
    """The bytes from ``start`` to ``end``, for one connection, which has come to ``position``.

    ``began`` is when it was made, ``touched`` when something came of it last. ``is_held`` tells that it is us who do
    not read on.
    """

    start: int
    end: int
    position: int
    began: float = 0.0
    touched: float = 0.0
    is_held: bool = False

    @property
    def left(self) -> int:
        """How many bytes are still to come."""
        return max(0, self.end - self.position)

    def moved(self, position: int, now: float) -> None:
        """Take note that it has come to ``position``."""
        self.position = max(self.position, position)
        self.touched = now

    def is_dead(self, now: float) -> bool:
        """Whether nothing has come for a while; the first byte may take longer."""
        patience = SLOW_SECONDS if self.position > self.start else SILENT_SECONDS
        return not self.is_held and now - self.touched >= patience

    def seconds_left(self, now: float) -> float:
        """How long it will take yet, at its rate so far."""
        if self.is_dead(now):
            return float("inf")
        if self.position == self.start or self.is_held:
            return 0.0
        return self.left * (now - self.began) / (self.position - self.start)


class Claims:
    """The claims on one blob of ``size`` bytes, of which ``received`` are here; it grows meanwhile."""

    def __init__(self, size: int, received: RangeSet) -> None:
        self._size, self._received = size, received
        self._claims: list[Claim] = []
        self._rate = 0.0  # bytes a second of the claim that has ended last
        self.has_ranges = True

    def take(self, connections: int, now: float) -> Claim | None:
        """Claim what is next for one of so many connections; None if it is not needed."""
        if self._claims and not self.has_ranges:
            return None
        taken = self._taken()
        hole: Range | None = next(taken.missing(0, self._size), None)
        if hole is None:
            return None
        end = hole.end
        if connections > 1 and self.has_ranges:
            end = min(end, hole.start + self._piece(self._size - taken.total, connections))
        return self._claim(hole.start, end, now)

    @property
    def may_need_relief(self) -> bool:
        """Whether it is worth waiting for a claim that turns out to be slow."""
        return self.has_ranges and any(claim.left for claim in self._claims)

    def relieve(self, now: float) -> tuple[Claim | None, Claim | None]:
        """Claim what another connection is too slow with; and the claim that is left with nothing by that."""
        slow = [
            claim
            for claim in self._claims
            if claim.seconds_left(now) >= SLOW_SECONDS and claim.left >= (1 if claim.is_dead(now) else SMALLEST_RELIEF)
        ]
        if not self.has_ranges or not slow:
            return None, None
        slowest = max(slow, key=lambda claim: (claim.seconds_left(now), claim.left))
        start, end = slowest.position, slowest.end
        if not slowest.is_dead(now):
            start += slowest.left // 2
        slowest.end = start
        return self._claim(start, end, now), slowest if slowest.left == 0 else None

    def give_back(self, claim: Claim) -> None:
        """The claim has ended; what it did not receive is free again."""
        self._claims.remove(claim)
        if claim.touched > claim.began:
            self._rate = (claim.position - claim.start) / (claim.touched - claim.began)

    def share(self, connections: int) -> None:
        """Cut the claims to what is fair among so many connections."""
        if not self.has_ranges:
            return
        left = sum(claim.end - claim.position for claim in self._claims)
        for claim in self._claims:
            claim.end = min(claim.end, claim.position + self._piece(left, connections))

    def without_ranges(self, claim: Claim) -> bool:
        """The source sends everything from byte zero, whatever is asked for: may ``claim`` take it all?

        If another connection is receiving already, that is the one: it is not stopped where it was to stop.
        """
        self.has_ranges = False
        others = [other for other in self._claims if other is not claim]
        keeper = min(others, key=lambda other: other.position, default=claim)
        keeper.end = self._size
        return keeper is claim

    def _claim(self, start: int, end: int, now: float) -> Claim:
        claim = Claim(start, end, start, now, now)
        self._claims.append(claim)
        return claim

    def _piece(self, left: int, connections: int) -> int:
        """How much of what is ``left`` one of so many connections is after at a time."""
        fair = max(left // (2 * connections), int(self._rate * PIECE_SECONDS))
        return max(SMALLEST_PIECE, min(LARGEST_PIECE, fair))

    def _taken(self) -> RangeSet:
        taken = RangeSet(self._received)
        for claim in self._claims:
            taken.add(claim.start, claim.end)
        return taken
