"""Many images by one scheduler: what they share is fetched once, the largest blobs go first, and errors stop nobody."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError
from asyncpull.plan import PullPolicy
from asyncpull.waiting import run_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpull.plan import PulledImage
    from asyncpull.pull import Puller
    from asyncpull.spec.reference import Reference

# Every pull under way has a few descriptors open; the scheduler has blobs enough to choose from with fewer.
PULLS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Prefetched:
    """What became of one reference: ``outcome`` is the image, or why there is none."""

    reference: str
    outcome: PulledImage | AsyncpullError


@dataclass(frozen=True, slots=True)
class PrefetchSummary:
    """What became of all, in the order they were named, each once."""

    results: tuple[Prefetched, ...]
    seconds: float

    @property
    def images(self) -> tuple[PulledImage, ...]:
        """Those that are in the store now."""
        return tuple(result.outcome for result in self.results if not isinstance(result.outcome, AsyncpullError))

    @property
    def failed(self) -> tuple[Prefetched, ...]:
        """The references that came to nothing."""
        return tuple(result for result in self.results if isinstance(result.outcome, AsyncpullError))

    @property
    def bytes_fetched(self) -> int:
        """Bytes of blobs that came over the network, each counted once."""
        return sum(image.bytes_fetched for image in self.images)

    @property
    def bytes_resumed(self) -> int:
        """Bytes of blobs that had come in an earlier pull."""
        return sum(image.bytes_resumed for image in self.images)


async def prefetch(
    puller: Puller,
    references: Iterable[str | Reference],
    *,
    when: PullPolicy = PullPolicy.ALWAYS,
    at_once: int = PULLS_AT_ONCE,
) -> PrefetchSummary:
    """Pull all ``references`` through ``puller``, at most ``at_once`` at a time, and go on when one fails.

    Whatever is cancelled, or is no error of this package, ends all of them.
    """
    started = time.monotonic()
    room = asyncio.Semaphore(at_once)

    async def pull(reference: str | Reference) -> Prefetched:
        async with room:
            try:
                return Prefetched(str(reference), await puller.pull(reference, when=when))
            except AsyncpullError as error:
                return Prefetched(str(reference), error)

    results = await run_all(pull(reference) for reference in dict.fromkeys(references))
    return PrefetchSummary(tuple(results), time.monotonic() - started)
