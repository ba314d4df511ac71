"""What there is to show of the pulls that run: events in, numbers out. Draws nothing and knows no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import field
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.progress import (
    CommitStarted,
    CopyCompleted,
    CopyFailed,
    CopyResolved,
    CopyStarted,
    Dropped,
    ExtractAdvanced,
    ExtractCompleted,
    ExtractStarted,
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchServed,
    FetchStarted,
    LayerQueued,
    LayerReused,
    Mounted,
    PullCompleted,
    PullFailed,
    PullStarted,
    PutAdvanced,
    PutCompleted,
    PutStarted,
    Resolved,
    ResolveStarted,
    Unmounted,
    VerifyCompleted,
    VerifyStarted,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.progress import Event


@dataclass(slots=True)
class LayerRow:
    """One layer on its way: ``fetched`` and ``extracted`` of the ``size`` bytes of its blob.

    ``origin`` is the endpoint that sent bytes last. It is verifying when all bytes are here and their digest is not
    confirmed yet.
    """

    digest: str
    size: int
    fetched: int = 0
    extracted: int = 0
    trouble: str | None = None
    origin: str = ""
    is_verifying: bool = False
    is_complete: bool = False


@dataclass(slots=True)
class PullRow:
    """One pull or copy: what was asked for, how far it is, and its layers, or blobs, in the order they started."""

    reference: str
    state: str = "queued"
    queued: set[str] = field(default_factory=set)
    layers: int = 0
    reused: int = 0
    size: int = 0
    seconds: float | None = None
    is_over: bool = False
    is_copy: bool = False
    rows: dict[str, LayerRow] = field(default_factory=dict)

    @property
    def fetched(self) -> int:
        """Bytes that are here, of ``size``."""
        return sum(row.fetched for row in self.rows.values())

    @property
    def extracted(self) -> int:
        """Bytes that are extracted, of ``size``."""
        return sum(row.extracted for row in self.rows.values())

    @property
    def done(self) -> int:
        """Layers that are in the store or staged and verified."""
        return self.reused + sum(row.is_complete for row in self.rows.values())


class Board:
    """All pulls of one command."""

    def __init__(self) -> None:
        self.pulls: dict[int, PullRow] = {}
        self.received = 0  # bytes that came over the network since the start, which rates are made of

    def take(self, event: Event) -> None:
        """Change the board as ``event`` says; what is not known is ignored."""
        if isinstance(event, Dropped):
            return  # it is of no pull
        pull = self.pulls.setdefault(event.pull, PullRow(event.reference))
        match event:
            case PullStarted():
                pull.state = "queued"
            case ResolveStarted():
                pull.state = "resolving"
            case Resolved():
                pull.state, pull.layers, pull.size = "pulling", event.layers, event.bytes_to_fetch
            case LayerReused():
                pull.reused += 1
                pull.queued.discard(event.digest)
            case LayerQueued():
                pull.queued.add(event.digest)
            case FetchStarted():
                self._row(pull, event.digest, event.size).fetched = event.position
                pull.queued.discard(event.digest)
            case FetchServed():
                self._row(pull, event.digest).origin = event.origin
            case VerifyStarted():
                self._row(pull, event.digest).is_verifying = True
            case VerifyCompleted():
                self._row(pull, event.digest).is_verifying = False
            case FetchAdvanced() | FetchCompleted():
                row = self._row(pull, event.digest)
                position = row.size if isinstance(event, FetchCompleted) else event.position
                self.received += max(0, position - row.fetched)
                row.fetched, row.trouble = max(row.fetched, position), None
            case FetchRetried():
                self._row(pull, event.digest).trouble = event.reason
            case ExtractStarted() | PutStarted():
                self._row(pull, event.digest, event.size).extracted = 0
            case ExtractAdvanced() | PutAdvanced():
                self._row(pull, event.digest).extracted = event.position
            case ExtractCompleted() | PutCompleted():
                row = self._row(pull, event.digest)
                row.extracted, row.is_complete = row.size, True
                row.fetched = row.size  # a layer that was copied from another one is never fetched
            case CommitStarted():
                pull.state = "committing"
            case PullCompleted() | CopyCompleted():
                pull.state, pull.seconds, pull.is_over = "done", event.seconds, True
            case PullFailed() | CopyFailed():
                pull.state, pull.is_over = "failed", True
            case CopyStarted():
                pull.state, pull.is_copy = "resolving", True
            case CopyResolved():
                pull.state, pull.layers, pull.size = (
                    "copying",
                    pull.layers + event.blobs,
                    pull.size + event.bytes_to_copy,
                )
            case Mounted():
                pull.state = "mounted"
            case Unmounted():
                pull.state = "done"

    def _row(self, pull: PullRow, digest: str, size: int | None = None) -> LayerRow:
        row = pull.rows.setdefault(digest, LayerRow(digest, size or 0))
        if size is not None:
            row.size = size
            pull.size = max(pull.size, sum(other.size for other in pull.rows.values()))
        return row


class Rate:
    """Bytes per second over the last few seconds."""

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, now: float, received: int) -> float:
        """Note that ``received`` bytes are here at the time ``now``, and tell the rate."""
        samples = self._samples
        samples.append((now, received))
        while len(samples) > 2 and now - samples[0][0] > self._window:
            samples.popleft()
        (since, before), elapsed = samples[0], now - samples[0][0]
        return (received - before) / elapsed if since < now else 0.0


def rows_that_fit(rows: Sequence[LayerRow], room: int) -> list[LayerRow]:
    """The rows to show where only ``room`` fit: those under way, then the latest that are complete; order is kept."""
    if len(rows) <= room:
        return list(rows)
    by_interest = [row for row in rows if not row.is_complete] + [row for row in reversed(rows) if row.is_complete]
    chosen = {id(row) for row in by_interest[: max(room, 0)]}
    return [row for row in rows if id(row) in chosen]
