"""Which bytes of a blob each of its connections is after.

One connection is after everything from the first hole on, in one request. Several take pieces, the next one always at
the front, so that whoever reads along is served, and the smaller the less is left, so that all end together. A claim
that was made when there was one connection is cut to a piece when others join; so a claim may end earlier than its
request asked for. A source that knows no ranges is left to one connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncpull.ranges import RangeSet

if TYPE_CHECKING:
    from asyncpull.ranges import Range

SMALLEST_PIECE = 1 << 20
LARGEST_PIECE = 8 << 20


@dataclass(slots=True, eq=False)
class Claim:
    """The bytes from ``start`` to ``end``, for one connection, which has come to ``position``."""

    start: int
    end: int
    position: int


class Claims:
    """The claims on one blob of ``size`` bytes, of which ``received`` are here; it grows meanwhile."""

    def __init__(self, size: int, received: RangeSet) -> None:
        self._size, self._received = size, received
        self._claims: list[Claim] = []
        self.has_ranges = True

    def take(self, connections: int) -> Claim | None:
        """Claim what is next for one of so many connections; None if it is not needed."""
        if self._claims and not self.has_ranges:
            return None
        taken = self._taken()
        hole: Range | None = next(taken.missing(0, self._size), None)
        if hole is None:
            return None
        end = hole.end
        if connections > 1 and self.has_ranges:
            end = min(end, hole.start + self._piece(taken, connections))
        claim = Claim(hole.start, end, hole.start)
        self._claims.append(claim)
        return claim

    def give_back(self, claim: Claim) -> None:
        """The claim has ended; what it did not receive is free again."""
        self._claims.remove(claim)

    def share(self, connections: int) -> None:
        """Cut the claims to what is fair among so many connections."""
        if not self.has_ranges:
            return
        left = sum(claim.end - claim.position for claim in self._claims)
        for claim in self._claims:
            claim.end = min(claim.end, claim.position + _piece(left, connections))

    def without_ranges(self, claim: Claim) -> bool:
        """The source sends everything from byte zero, whatever is asked for: may ``claim`` take it all?

        If another connection is receiving already, that is the one: it is not stopped where it was to stop.
        """
        self.has_ranges = False
        others = [other for other in self._claims if other is not claim]
        keeper = min(others, key=lambda other: other.position, default=claim)
        keeper.end = self._size
        return keeper is claim

    def _piece(self, taken: RangeSet, connections: int) -> int:
        return _piece(self._size - taken.total, connections)

    def _taken(self) -> RangeSet:
        taken = RangeSet(self._received)
        for claim in self._claims:
            taken.add(claim.start, claim.end)
        return taken


def _piece(left: int, connections: int) -> int:
    return max(SMALLEST_PIECE, min(LARGEST_PIECE, left // (2 * connections)))
