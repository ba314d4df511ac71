"""Who sent wrong bytes of a blob, and whom to ask alone after that.

A blob that fails its digest is fetched again, afresh, from one endpoint alone, so that nobody else can spoil it. When
that verifies, it is the measure: whoever sent a range earlier whose CRC differs from it is a liar, by name. When it
fails too, the next one is asked alone; each at most once. If nobody's verifies, it is the publisher who is to blame.

The order: the endpoint that is named last, which is the registry itself, for what it has is what the digest was made
of; then the others, whoever sent least of the bad blob first. An endpoint that sent all of a blob, of which nothing had
been received earlier, was asked alone already, whether or not that was intended. One that was resumed may have been
spoilt by what an earlier pull left, so a single endpoint is asked once more then.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpull.journal import Recorded


class Suspects:
    """The attempts at one blob that had a wrong digest."""

    def __init__(self) -> None:
        self._evidence: list[Recorded] = []
        self._asked: set[str] = set()

    def add(self, records: Sequence[Recorded], *, alone: str | None, resumed: bool = False) -> None:
        """Take note of a bad attempt: what was received, of whom.

        ``alone`` is who was asked alone, if anybody was; ``resumed`` tells whether some of it is from an earlier pull.
        """
        self._evidence += records
        senders = {record.origin for record in records}
        if alone is not None:
            self._asked.add(alone)
        elif len(senders) == 1 and not resumed:
            self._asked |= senders

    def next(self, origins: Sequence[str]) -> str | None:
        """Which of ``origins`` to ask alone now; None if nobody is left."""
        sent = Counter[str]()
        for record in self._evidence:
            sent[record.origin] += len(record.range)
        left = [origin for origin in origins if origin not in self._asked]
        if not left or left[-1] == origins[-1]:
            return left[-1] if left else None
        return min(left, key=lambda origin: sent[origin])

    def liars(self, differs: Callable[[Recorded], bool]) -> tuple[str, ...]:
        """Who sent something that ``differs`` from the blob that was verified."""
        return tuple(sorted({record.origin for record in self._evidence if record.origin and differs(record)}))
