"""The events of all pulls as a stream, for anybody who reads along, at any speed.

A pull never waits for a reader. What a reader has not taken yet waits for it, but of one kind of event about one layer
of one pull only the latest does, in the place of the earlier ones; and never more than ``PENDING_LIMIT`` in all: after
that the oldest go. So a reader that stalls costs a bounded amount of memory, and one that comes back finds where
everything is now. How many events it has missed is told to it by a Dropped, advances aside: the later position says all
that the earlier did.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Self

from asyncpull.progress import Dropped, ExtractAdvanced, FetchAdvanced, PutAdvanced

if TYPE_CHECKING:
    from asyncpull.progress import Event, Reporter

PENDING_LIMIT = 4096

_Key = tuple[int, type["Event"], str]


class EventHub:
    """A reporter that passes events on to another one and to all streams there are.

    It holds no stream: one that nobody reads any more is gone.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._is_closed = False

    def report(self, event: Event) -> None:
        """Take one event."""
        self._reporter.report(event)
        for stream in self._streams:
            stream.take(event)

    def stream(self) -> EventStream:
        """A stream of the events from now on."""
        stream = EventStream()
        if self._is_closed:
            stream.end()
        else:
            self._streams.add(stream)
        return stream

    def close(self) -> None:
        """No event comes any more: every stream ends with what it still has."""
        self._is_closed = True
        for stream in self._streams:
            stream.end()

    def __repr__(self) -> str:
        return f"<EventHub with {len(self._streams)} readers>"


class EventStream:
    """An async iterator of events, for one reader; from ``Puller.events``."""

    def __init__(self) -> None:
        self._pending: dict[_Key, Event] = {}
        self._dropped = 0
        self._is_ended = False
        self._changed = asyncio.Event()

    def take(self, event: Event) -> None:
        """Keep ``event`` for the reader."""
        key = (event.pull, type(event), getattr(event, "digest", ""))
        earlier = self._pending.pop(key, None)
        self._miss(earlier)
        self._pending[key] = event  # at the end, so that the order is that of the latest
        if len(self._pending) > PENDING_LIMIT:
            self._miss(self._pending.pop(next(iter(self._pending))))
        self._changed.set()

    def _miss(self, event: Event | None) -> None:
        if event is not None and not isinstance(event, FetchAdvanced | ExtractAdvanced | PutAdvanced):
            self._dropped += 1

    def end(self) -> None:
        """Nothing follows what is kept."""
        self._is_ended = True
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not (self._pending or self._dropped):
            if self._is_ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        if self._dropped:
            dropped, self._dropped = Dropped(0, "", self._dropped), 0
            return dropped
        return self._pending.pop(next(iter(self._pending)))

    def __repr__(self) -> str:
        return f"<EventStream {len(self._pending)} pending, {self._dropped} dropped>"
