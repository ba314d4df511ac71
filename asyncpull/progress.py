"""What a pull tells while it runs: one-way events, and who may listen.

Every event carries ``pull``, the number of the pull within its Puller, and ``reference``, what was asked for. Names
come in pairs of started and completed; a pull that started ends in exactly one of PullCompleted and PullFailed.
Events about a layer name it by its blob ``digest``. Sizes and positions are in bytes, times in seconds.

::

    PullStarted
      ResolveStarted  Resolved          the manifest and config are here, the plan is made
      LayerReused                       already in the store, nothing to do
      LayerQueued*                      waits for its turn, or for another pull that brings it in
      FetchStarted  FetchServed*  FetchAdvanced*  FetchRetried*  FetchCompleted
      ExtractStarted  ExtractAdvanced*  ExtractCompleted
                      VerifyStarted  VerifyCompleted      from the last byte to the word of the worker
      CommitStarted  CommitCompleted
      LockAwaited*                      anywhere: another program keeps a lock for long
    PullCompleted | PullFailed
    Mounted  Unmounted                  of Puller.mounted, after PullCompleted

What a copy to another place tells, where ``pull`` is the number of the copy within its Copier; a copy into a store is a
pull, and tells what a pull tells::

    CopyStarted
      CopyResolved*                     a manifest is here, and what is to be done for it is known
      LayerReused                       the destination has this blob already
      FetchStarted  FetchServed*  FetchAdvanced*  FetchRetried*  FetchCompleted
      PutStarted  PutAdvanced*  PutCompleted              beside the fetching, if there is one
      CommitStarted  CommitCompleted
    CopyCompleted | CopyFailed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

# An event about a blob for every so many bytes of it, or every hundredth of it if that is more.
_TELL_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Event:
    """What all events have."""

    pull: int
    reference: str


@dataclass(frozen=True, slots=True)
class PullStarted(Event):
    """A pull was asked for."""


@dataclass(frozen=True, slots=True)
class ResolveStarted(Event):
    """The registry is asked for the manifest, or the store for what it has."""


@dataclass(frozen=True, slots=True)
class Resolved(Event):
    """The plan is made: so many layers are not to be fetched, and so many bytes are, less what is here already."""

    digest: str
    layers: int
    reused: int
    bytes_to_fetch: int


@dataclass(frozen=True, slots=True)
class LayerReused(Event):
    """The store has this layer."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class LayerQueued(Event):
    """A layer, whose blob has ``size`` bytes, waits: for its turn, or for the end of the pull numbered ``behind``."""

    digest: str
    size: int
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class FetchStarted(Event):
    """A blob of ``size`` bytes is being fetched; ``position`` of them were here already."""

    digest: str
    size: int
    position: int


@dataclass(frozen=True, slots=True)
class FetchServed(Event):
    """The endpoint ``origin`` has begun to send bytes of the blob; others may be doing so too."""

    digest: str
    origin: str


@dataclass(frozen=True, slots=True)
class FetchAdvanced(Event):
    """``position`` bytes of the blob are here."""

    digest: str
    position: int


@dataclass(frozen=True, slots=True)
class FetchRetried(Event):
    """A request broke off for ``reason`` and is made again after ``delay`` seconds."""

    digest: str
    reason: str
    delay: float


@dataclass(frozen=True, slots=True)
class FetchCompleted(Event):
    """All bytes of the blob are here, not yet verified."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ExtractStarted(Event):
    """A worker reads the blob along its front; ``size`` is that of the blob."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ExtractAdvanced(Event):
    """``position`` bytes of the blob are extracted."""

    digest: str
    position: int


@dataclass(frozen=True, slots=True)
class VerifyStarted(Event):
    """All ``size`` bytes of the blob are here; its digest and diff ID are not confirmed yet."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class VerifyCompleted(Event):
    """Blob digest, blob size and diff ID are right."""

    digest: str


@dataclass(frozen=True, slots=True)
class ExtractCompleted(Event):
    """The layer is staged, and blob digest, size and diff ID are verified; ``size`` is that of the tar."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class LockAwaited(Event):
    """The lock on ``path`` is waited for, ``seconds`` by now; ``holders`` says which processes have it, if known."""

    path: str
    seconds: float
    holders: str


@dataclass(frozen=True, slots=True)
class CommitStarted(Event):
    """All layers are verified; they are recorded now."""


@dataclass(frozen=True, slots=True)
class CommitCompleted(Event):
    """The image is in the store."""


@dataclass(frozen=True, slots=True)
class PullCompleted(Event):
    """The pull ended well, after ``seconds``."""

    image_id: str
    bytes_fetched: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PullFailed(Event):
    """The pull ended in an error, or was cancelled; ``reason`` is one line."""

    reason: str


@dataclass(frozen=True, slots=True)
class CopyStarted(Event):
    """A copy to ``destination`` was asked for."""

    destination: str


@dataclass(frozen=True, slots=True)
class CopyResolved(Event):
    """The manifest ``digest`` is to be copied, whose ``blobs`` have ``bytes_to_copy`` bytes together."""

    digest: str
    blobs: int
    bytes_to_copy: int


@dataclass(frozen=True, slots=True)
class PutStarted(Event):
    """The destination is given a blob of ``size`` bytes."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class PutAdvanced(Event):
    """The destination has taken the first ``position`` bytes of the blob."""

    digest: str
    position: int


@dataclass(frozen=True, slots=True)
class PutCompleted(Event):
    """The destination has the blob, verified."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class CopyCompleted(Event):
    """The copy ended well, after ``seconds``; ``digest`` is what it has at the destination."""

    digest: str
    bytes_copied: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CopyFailed(Event):
    """The copy ended in an error, or was cancelled; ``reason`` is one line."""

    reason: str


@dataclass(frozen=True, slots=True)
class Mounted(Event):
    """The image is mounted, read-only, at ``path``."""

    path: str


@dataclass(frozen=True, slots=True)
class Unmounted(Event):
    """It is no longer mounted there by this pull."""

    path: str


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """A reader of events was too slow and has missed ``count`` of them; ``pull`` is 0, for they may be of any."""

    count: int


class Reporter(Protocol):
    """Who listens. Called on the event loop: it must neither block nor raise."""

    def report(self, event: Event) -> None:
        """Take one event."""


class Silent:
    """A reporter that nobody listens to."""

    def report(self, event: Event) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells one pull's events to a reporter."""

    reporter: Reporter
    pull: int
    reference: str

    def __call__(self, event: Callable[..., Event], **fields: object) -> None:
        """Tell an event of this kind, with these fields."""
        self.reporter.report(event(self.pull, self.reference, **fields))

    def position(
        self,
        event: Callable[..., Event],
        digest: str,
        size: int,
        also: Callable[[int], None] = lambda position: None,
    ) -> Callable[[int], None]:
        """A listener that tells of positions in a blob now and then, and hands every one to ``also``."""
        stride = max(_TELL_BYTES, size // 100)
        told = 0

        def listen(position: int) -> None:
            nonlocal told
            also(position)
            if position - told >= stride or position == size:
                told = position
                self(event, digest=digest, position=position)

        return listen
