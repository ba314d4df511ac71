"""Progress as lines: plain ones for logs, JSON ones for programs.

A daemon thread writes them, so that a reader of stderr who stalls does not stall the pull.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from asyncpull.cli.complaint import single_line
from asyncpull.cli.formats import human_duration, human_size, short_id
from asyncpull.cli.progress.board import Board
from asyncpull.progress import (
    CommitStarted,
    CopyCompleted,
    CopyResolved,
    ExtractAdvanced,
    ExtractCompleted,
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchStarted,
    LayerQueued,
    LayerReused,
    LockAwaited,
    Mounted,
    PullCompleted,
    PutAdvanced,
    PutCompleted,
    Resolved,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TextIO

    from asyncpull.progress import Event

_JSON_INTERVAL = 0.1  # seconds between two advances of one blob
_PLAIN_INTERVAL = 5.0  # seconds between two lines that say how far a long pull is
_PATIENCE = 2.0  # seconds that a reader who stalls can delay the end


class _Lines(ABC):
    """A reporter that writes lines; a context manager, whose end waits for what is still queued."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="asyncpull-progress", daemon=True)

    def report(self, event: Event) -> None:
        """Take one event."""
        line = self.line(event, self._clock())
        if line is not None:
            self._queue.put(line)

    @abstractmethod
    def line(self, event: Event, now: float) -> str | None:
        """The line that ``event`` deserves, if any."""

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._writer.join(_PATIENCE)

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # nobody reads them any more


class JsonLines(_Lines):
    """``{"event": "fetch_started", …}`` with the fields of the event; advances at most ten times a second per blob."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._last: dict[tuple[str, int, str], float] = {}

    def line(self, event: Event, now: float) -> str | None:
        import orjson

        name = event_name(event)
        if isinstance(event, FetchAdvanced | ExtractAdvanced | PutAdvanced):
            key = (name, event.pull, event.digest)
            if now - self._last.get(key, float("-inf")) < _JSON_INTERVAL:
                return None
            self._last[key] = now
        return orjson.dumps({"event": name, **asdict(event)}).decode()


class PlainLines(_Lines):
    """A line per step of a layer, and now and then how far everything is."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._board = Board()
        self._last = clock()

    def line(self, event: Event, now: float) -> str | None:
        self._board.take(event)
        text = _plain(event)
        if text is None and now - self._last >= _PLAIN_INTERVAL:
            pull = self._board.pulls[event.pull]
            percents = [part * 100 // max(pull.size, 1) for part in (pull.fetched, pull.extracted)]
            done = "copied" if pull.is_copy else "extracted"
            text = f"fetched {percents[0]}%, {done} {percents[1]}% of {human_size(pull.size)}"
        if text is None:
            return None
        self._last = now
        return single_line(f"{event.reference}: {text}")


def event_name(event: Event) -> str:
    """``fetch_started`` for FetchStarted."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("_")


def _plain(event: Event) -> str | None:
    match event:
        case Resolved():
            parts = [f"{event.layers} layers"]
            parts += [f"{event.reused} here already"] if event.reused else []
            parts += [f"{human_size(event.bytes_to_fetch)} to fetch"] if event.bytes_to_fetch else []
            return f"resolved to {event.digest}: {', '.join(parts)}"
        case LayerReused():
            return f"{short_id(event.digest)} is there already"
        case LayerQueued() if event.behind is not None:
            return f"{short_id(event.digest)} is brought in by another pull, waiting for that"
        case FetchStarted():
            resumed = f", resumed at {human_size(event.position)}" if event.position else ""
            return f"{short_id(event.digest)} fetching {human_size(event.size)}{resumed}"
        case FetchRetried():
            return f"{short_id(event.digest)} broke off ({event.reason}), trying again in {event.delay:.1f} s"
        case FetchCompleted():
            return f"{short_id(event.digest)} fetched"
        case ExtractCompleted():
            return f"{short_id(event.digest)} verified and extracted, {human_size(event.size)}"
        case CopyResolved():
            return f"resolved to {event.digest}: {event.blobs} blobs, {human_size(event.bytes_to_copy)}"
        case PutCompleted():
            return f"{short_id(event.digest)} copied, {human_size(event.size)}"
        case CommitStarted():
            return "committing"
        case LockAwaited():
            return f"waits for the lock {event.path}, held by {event.holders or 'somebody'}"
        case Mounted():
            return f"mounted at {event.path}"
        case PullCompleted():
            return f"done in {human_duration(event.seconds)}, {human_size(event.bytes_fetched)} fetched"
        case CopyCompleted():
            return f"done in {human_duration(event.seconds)}, {human_size(event.bytes_copied)} copied: {event.digest}"
    return None  # also for a failure: the command complains of it at its end
