"""Which endpoints are worth asking now: a memory of what they did wrong, and how long it is held against them.

::

    healthy ── failure ──> left alone ── the cool-down is over ──> one request tries it ── success ──> healthy
                                ^                                          │
                                └─── failure, or nothing heard of it ──────┘  for twice as long, up to a limit

What an endpoint did wrong counts for everything that it serves: a mirror that stalls for one image is left alone for
the next. Two things do not: that it refuses access to a repository counts for that repository, that it does not have
a blob for that blob there.

1. Failures of requests that were under way when an endpoint failed are the same failure, and do not add to it.
2. While the one request that tries it is under way, an endpoint is left alone by all others.
3. Whoever is left alone still comes after those that are not: nothing fails without having been asked for. How such a
   request ends changes nothing: a mirror that sent wrong bytes is not trusted again because it sent some more.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import AuthenticationError, DocumentTooLargeError, IntegrityError, NotFoundError, TemporaryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.errors import AsyncpullError
    from asyncpull.registry.endpoint import Endpoint
    from asyncpull.spec.digest import Digest

LONGEST_SECONDS = 600.0
# What an endpoint may ask for itself by Retry-After; beyond that it is tried all the same.
LONGEST_RETRY_AFTER_SECONDS = 3600.0
# So many blobs that endpoints do not have are kept in mind.
_REMEMBERED = 4096


class Trouble(Enum):
    """What an endpoint did wrong."""

    UNAVAILABLE = "unavailable"  # not reached, 5xx, or no answer that makes sense
    BUSY = "busy"  # 429, 408, or no answer in time
    BROKEN = "broken"  # the connection was lost within a body
    STALLED = "stalled"  # nothing came, or next to nothing
    CORRUPT = "corrupt"  # other bytes than promised
    REFUSED = "refused"  # 401 or 403: for one repository
    MISSING = "missing"  # 404: for one blob or document


# For how many seconds an endpoint is left alone the first time.
FIRST_SECONDS = {
    Trouble.UNAVAILABLE: 5.0,
    Trouble.BUSY: 10.0,
    Trouble.BROKEN: 5.0,
    Trouble.STALLED: 30.0,
    Trouble.CORRUPT: 3600.0,
    Trouble.REFUSED: 60.0,
    Trouble.MISSING: 300.0,
}


def trouble_of(error: AsyncpullError) -> Trouble:
    """What an endpoint did wrong whose answer was ``error``."""
    match error:
        case NotFoundError():
            return Trouble.MISSING
        case AuthenticationError():
            return Trouble.REFUSED
        case IntegrityError() | DocumentTooLargeError():
            return Trouble.CORRUPT
        case TemporaryError():
            return Trouble.BUSY
        case _:
            return Trouble.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of one endpoint that failed, or of one thing there; times are in seconds of one clock.

    ``failures`` in a row led to a ``cool_down``, which is over at ``until``. The last of them was at ``failed``, and at
    ``tried`` a request began that tries it again.
    """

    failures: int = 0
    cool_down: float = 0.0
    until: float = 0.0
    failed: float = 0.0
    tried: float = 0.0

    def usable(self, now: float) -> bool:
        """Whether it may be asked like any other."""
        return now >= self.until

    def after_begin(self, now: float) -> Condition:
        """A request begins; if this is the one that tries it, others stay away until its outcome is known."""
        return replace(self, tried=now, until=now + self.cool_down) if self.usable(now) else self

    def after_failure(self, trouble: Trouble, now: float, retry_after: float | None = None) -> Condition:
        """A request failed; ``retry_after`` is for how many seconds the endpoint wants to be left alone."""
        is_same = self.failures > 0 and self.tried <= self.failed
        failures = self.failures if is_same else self.failures + 1
        first = FIRST_SECONDS[trouble]
        cool_down = min(max(LONGEST_SECONDS, first), first * 2.0 ** (failures - 1))
        if retry_after is not None:
            cool_down = max(cool_down, min(retry_after, LONGEST_RETRY_AFTER_SECONDS))
        if is_same:
            return replace(self, cool_down=max(cool_down, self.cool_down), until=max(self.until, now + cool_down))
        return Condition(failures, cool_down, now + cool_down, failed=now, tried=self.tried)

    def after_success(self) -> Condition | None:
        """A request did what it should: None, nothing is held against it, if this is the one that tried it."""
        return None if self.tried > self.failed else self


class Health:
    """The conditions of all endpoints of one client."""

    def __init__(self) -> None:
        self._conditions: dict[tuple[str, ...], Condition] = {}

    def order(self, endpoints: Sequence[Endpoint], digest: Digest | None, now: float) -> tuple[Endpoint, ...]:
        """All of ``endpoints``: first those to be asked for ``digest``, then those better left alone."""
        return tuple(sorted(endpoints, key=lambda endpoint: not self.usable(endpoint, digest, now)))

    def usable(self, endpoint: Endpoint, digest: Digest | None, now: float) -> bool:
        """Whether ``endpoint`` may be asked for ``digest`` like any other."""
        return all(self._conditions[key].usable(now) for key in _keys(endpoint, digest) if key in self._conditions)

    def begin(self, endpoint: Endpoint, digest: Digest | None, now: float) -> None:
        """A request for ``digest`` begins."""
        for key in _keys(endpoint, digest):
            if key in self._conditions:
                self._conditions[key] = self._conditions[key].after_begin(now)

    def succeeded(self, endpoint: Endpoint, digest: Digest | None) -> None:
        """A request for ``digest`` did what it should."""
        for key in _keys(endpoint, digest):
            if key in self._conditions and self._conditions[key].after_success() is None:
                del self._conditions[key]

    def failed(
        self,
        endpoint: Endpoint,
        trouble: Trouble,
        digest: Digest | None,
        now: float,
        retry_after: float | None = None,
    ) -> bool:
        """A request for ``digest`` (None: for a tag, whose absence is nobody's fault) failed; true if that is news."""
        whole, repository, *rest = _keys(endpoint, digest)
        match trouble:
            case Trouble.MISSING:
                held_against = rest
            case Trouble.REFUSED:
                held_against = [repository]
            case _:
                held_against = [whole]
        is_news = not held_against
        for key in held_against:
            before = self._conditions.pop(key, Condition())
            after = self._conditions[key] = before.after_failure(trouble, now, retry_after)
            is_news = is_news or after.failures > before.failures
        if trouble is Trouble.MISSING and len(self._conditions) > _REMEMBERED:
            # The blob that was missed least recently; of endpoints and repositories there are only so many.
            forgotten = next((key for key in self._conditions if len(key) > len(repository)), None)
            self._conditions.pop(forgotten or (), None)
        return is_news


def _keys(endpoint: Endpoint, digest: Digest | None) -> list[tuple[str, ...]]:
    """What a request depends on: the endpoint as a whole, the repository there, the blob in it."""
    whole = (endpoint.host, endpoint.prefix)
    repository = (*whole, endpoint.repository)
    return [whole, repository, *([] if digest is None else [(*repository, str(digest))])]
