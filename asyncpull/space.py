"""Room on the disk: reserved before a layer starts, watched while layers are unpacked, named with numbers when it ends.

A pull that is refused although it would have fitted is worse than one that fails late, so the rules are:

1. Certain are only the bytes of blobs that are not here yet, and the few inodes that every spool and every layer has.
   What an archive unpacks to has no lower bound: it may consist of headers.
2. That much is reserved, for all pulls of one Puller together, a blob that several want once. A pull for which there is
   no room waits until earlier pulls have ended, which makes room where spools and staged layers go. If no other pull
   runs, it is refused before anything is fetched. It never waits for a later one, as pulls do not for layers either
   (``sharing``), so nobody waits for ever.
3. While pulls run the disk is looked at a few times a second. The last pull to come is ended if the file system is
   nearly full (``NEARLY_FULL``, or ``NEARLY_FULL_BYTES`` if that is less), and *half* of what the rest needs is more
   than what is free. What it needs is the lesser of the estimate and of what layers took on the disk so far, per byte
   of blob. So the last bytes stay free for others, and what is refused would hardly have fitted.
4. When the disk is full all the same, the error gets the numbers.
"""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import NoSpaceError, StoreError
from asyncpull.journal import store_errors
from asyncpull.plan import LayerAction
from asyncpull.progress import ExtractAdvanced, ExtractCompleted, FetchAdvanced, FetchCompleted, FetchStarted
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from asyncpull.estimate import PullEstimate
    from asyncpull.progress import Event, Reporter

SPOOL_INODES = 4  # the directory; blob, journal, lock
LAYER_INODES = 3  # the directory and its diff; the tar-split
NEARLY_FULL = 1 / 16
NEARLY_FULL_BYTES = 256 << 20
_LOOK_SECONDS = 0.25
_HINT = "free some space or inodes there, or choose another graph root with --root"


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes and inodes."""

    bytes: int = 0
    inodes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.bytes + other.bytes, self.inodes + other.inodes)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.bytes - other.bytes, self.inodes - other.inodes)

    def at_least(self, other: Amount) -> Amount:
        """The greater of both, for bytes and for inodes."""
        return Amount(max(self.bytes, other.bytes), max(self.inodes, other.inodes))


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has, and what of it is free for us; ``total.inodes`` is 0 where they are not limited."""

    path: str
    device: int
    total: Amount
    free: Amount

    @classmethod
    def at(cls, path: Path) -> Room:
        """That of the file system of ``path``. Raises OSError."""
        found = os.statvfs(path)
        # What a file system keeps back is kept back for root.
        free_blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
        return cls(
            str(path),
            path.stat().st_dev,
            Amount(found.f_blocks * found.f_frsize, found.f_files),
            Amount(free_blocks * found.f_frsize, found.f_ffree),
        )

    def has(self, need: Amount) -> bool:
        """Whether there is room for ``need``."""
        return need.bytes <= self.free.bytes and (not self.total.inodes or need.inodes <= self.free.inodes)

    def is_strained_by(self, need: Amount) -> bool:
        """Whether it is nearly full, and half of ``need`` is more than what is free: rule 3."""
        few_bytes = min(self.total.bytes * NEARLY_FULL, NEARLY_FULL_BYTES)
        by_bytes = self.free.bytes < few_bytes and need.bytes / 2 > self.free.bytes
        by_inodes = self.free.inodes < self.total.inodes * NEARLY_FULL and need.inodes / 2 > self.free.inodes
        return by_bytes or by_inodes

    def told(self, need: Amount, about: str = "") -> str:
        """What is needed and what is free, in words."""
        inodes = f"{self.free.inodes:,} inodes" if self.total.inodes else "any number of inodes"
        needed = f"{about}{need.bytes:,} bytes and {need.inodes:,} inodes are needed"
        return f"{needed}, {self.free.bytes:,} bytes and {inodes} are free"


@dataclass(slots=True)
class Taken:
    """How much of the disk layers took for how many bytes of blobs, as the disk was seen to change.

    A look at which room has been given back tells nothing, and is left out.
    """

    amount: Amount = Amount()
    extracted: int = 0

    def look(self, before: Room, now: Room, received: int, extracted: int) -> None:
        """Between two looks so many bytes were received into this file system, and of blobs so many unpacked."""
        grown = before.free.bytes - now.free.bytes - received
        if extracted > 0 and grown >= 0:
            self.amount += Amount(grown, max(0, before.free.inodes - now.free.inodes))
            self.extracted += extracted

    def expected(self, rest: int, estimate: Amount) -> Amount:
        """What another ``rest`` bytes of blobs will take: the lesser of this and of the estimate."""
        if not self.extracted:
            return Amount()
        part = rest / self.extracted
        return Amount(
            min(estimate.bytes, round(self.amount.bytes * part)), min(estimate.inodes, round(self.amount.inodes * part))
        )


@dataclass(slots=True)
class Blob:
    """A blob to be fetched and unpacked: its size, how far it is, and what its layer is estimated to take."""

    size: int
    received: int
    disk: Amount
    extracted: int = 0
    is_begun: bool = False

    @property
    def missing(self) -> Amount:
        """What its spool still needs, for certain."""
        return Amount(self.size - self.received, 0 if self.is_begun else SPOOL_INODES)

    @property
    def unpacked_rest(self) -> Amount:
        """What its layer is estimated to take yet."""
        part = 1 - self.extracted / self.size if self.size else 0
        return Amount(round(self.disk.bytes * part), round(self.disk.inodes * part))


class Reservation:
    """The room that one pull needs; a reporter, because the pull's own events tell how far it is."""

    def __init__(self, place: int, estimate: PullEstimate, reporter: Reporter) -> None:
        self.place = place
        self.reference = str(estimate.plan.image.reference)
        self.blobs: dict[str, Blob] = {}
        for layer in estimate.layers:
            if layer.step.action is not LayerAction.FETCH:
                continue
            digest, size = str(layer.step.blob.digest), layer.step.blob.size
            disk = Amount(layer.disk_bytes, layer.inodes)
            if digest in self.blobs:
                self.blobs[digest].disk += disk
            else:
                self.blobs[digest] = Blob(size, layer.bytes_to_resume, disk, is_begun=layer.bytes_to_resume > 0)
        self._reporter = reporter
        self._ended = asyncio.Event()
        self._refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def report(self, event: Event) -> None:
        """Take note of how far a blob is, and pass the event on."""
        match event:
            case FetchStarted() | FetchAdvanced():
                if blob := self.blobs.get(event.digest):
                    blob.is_begun, blob.received = True, max(blob.received, event.position)
            case FetchCompleted():
                if blob := self.blobs.get(event.digest):
                    blob.is_begun, blob.received = True, blob.size
            case ExtractAdvanced():
                if blob := self.blobs.get(event.digest):
                    blob.extracted = max(blob.extracted, event.position)
            case ExtractCompleted():
                if blob := self.blobs.get(event.digest):
                    blob.received = blob.extracted = blob.size
        self._reporter.report(event)

    def estimated(self, *, with_spools: bool) -> Amount:
        """What the pull takes until its commit, with or without its blobs."""
        blobs = self.blobs.values()
        spools = Amount(sum(blob.size for blob in blobs), SPOOL_INODES * len(blobs)) if with_spools else Amount()
        return sum((blob.disk for blob in blobs), spools)

    def refuse(self, error: NoSpaceError) -> None:
        """End the pull."""
        if not self._refused.done():
            self._refused.set_exception(error)

    async def refused(self) -> None:
        """Wait for as long as there is room. Raises NoSpaceError when there is not."""
        await self._refused

    async def ended(self) -> None:
        """Wait until the pull has ended."""
        await self._ended.wait()

    def end(self) -> None:
        """The pull has ended."""
        self._ended.set()
        if not self._refused.cancel() and not self._refused.cancelled():
            self._refused.exception()  # taken note of, whether or not anybody waited for it


def certain_needs(reservations: Iterable[Reservation]) -> tuple[Amount, Amount]:
    """What all of them need for certain: where spools are, and where layers are."""
    blobs = _union(reservations)
    return (
        sum((blob.missing for blob in blobs), Amount()),
        Amount(0, sum(LAYER_INODES for blob in blobs if not blob.is_begun)),
    )


def _union(reservations: Iterable[Reservation]) -> list[Blob]:
    """The blobs of all, one that several want as whoever has come farthest sees it."""
    union: dict[str, Blob] = {}
    for reservation in reservations:
        for digest, blob in reservation.blobs.items():
            if digest not in union or union[digest].received < blob.received:
                union[digest] = blob
    return list(union.values())


class Space:
    """The room for all pulls of one Puller: where blobs are received, and where layers are."""

    def __init__(self, spool_root: Path, graph_root: Path) -> None:
        self._spool_root, self._graph_root = spool_root, graph_root
        self._reservations: list[Reservation] = []
        self._watch: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def reserved(self, place: int, estimate: PullEstimate, reporter: Reporter) -> AsyncIterator[Reservation]:
        """Reserve what a pull needs for certain while the body runs; ``place`` is its place in the order of arrival.

        Raises NoSpaceError if there is no room, StoreError. Events are to be told to the reservation, which passes them
        to ``reporter``. A NoSpaceError of the body gets the numbers.
        """
        reservation = Reservation(place, estimate, reporter)
        before = await self._admit(reservation)
        self._reservations.append(reservation)
        if self._watch is None and reservation.blobs:
            self._watch = asyncio.create_task(self._look_again_and_again(), name="watch the disk")
        try:
            yield reservation
        except NoSpaceError as error:
            raise await self._with_numbers(error, reservation, before) from error
        finally:
            self._reservations.remove(reservation)
            reservation.end()
            if not self._reservations and self._watch is not None:
                watch, self._watch = self._watch, None
                watch.cancel()
                await finish(watch)

    async def _admit(self, reservation: Reservation) -> Room:
        """Wait until there is room, as rule 2 has it; the room for layers. Raises NoSpaceError, StoreError."""
        while True:
            rooms = await self._rooms()
            short = _shortage(rooms, [*self._reservations, reservation])
            if short is None or not reservation.blobs:
                return rooms[1]
            earlier = [other for other in self._reservations if other.place < reservation.place]
            if earlier:
                await earlier[0].ended()
            elif self._reservations:
                return rooms[1]  # later ones, which may give room back: this one does not wait for them
            else:
                room, need = short
                text = f"{os.strerror(errno.ENOSPC)} for {reservation.reference}: {room.told(need, 'at least ')}"
                raise NoSpaceError(text, room.path, _HINT)

    async def _rooms(self) -> tuple[Room, Room]:
        """Those of spools and of layers. Raises StoreError."""

        def look() -> tuple[Room, Room]:
            with store_errors(self._graph_root):
                return Room.at(self._spool_root), Room.at(self._graph_root)

        return await asyncio.to_thread(look)

    async def _look_again_and_again(self) -> None:
        """Rule 3; a disk that cannot be looked at is left to those who write to it."""
        with suppress(StoreError):
            await self._keep_looking()

    async def _keep_looking(self) -> None:
        taken = Taken()
        before, counted = await self._rooms(), self._counted()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now, count = await self._rooms(), self._counted()
            is_one = now[0].device == now[1].device
            if count[0] >= counted[0] and count[1] >= counted[1]:  # else a pull has left, and its blobs with it
                taken.look(before[1], now[1], (count[0] - counted[0]) * is_one, count[1] - counted[1])
            before, counted = now, count
            need = self._expected(taken, with_spools=is_one)
            if now[1].is_strained_by(need) and self._reservations:
                last = max(self._reservations, key=lambda reservation: reservation.place)
                last.refuse(NoSpaceError(f"{os.strerror(errno.ENOSPC)} before long", now[1].path, _HINT))

    def _counted(self) -> tuple[int, int]:
        """Bytes of the blobs of all pulls that were received, and unpacked."""
        blobs = _union(self._reservations)
        return sum(blob.received for blob in blobs), sum(blob.extracted for blob in blobs)

    def _expected(self, taken: Taken, *, with_spools: bool) -> Amount:
        blobs = _union(self._reservations)
        estimate = sum((blob.unpacked_rest for blob in blobs), Amount())
        unpacked = taken.expected(sum(blob.size - blob.extracted for blob in blobs), estimate)
        spools = sum((blob.missing for blob in blobs), Amount()) if with_spools else Amount()
        return unpacked + spools

    async def _with_numbers(self, error: NoSpaceError, reservation: Reservation, before: Room) -> NoSpaceError:
        """The same error, with what the pull needs in all and what is free, where that can be found out."""
        message, path, hint = error.args
        try:
            spools, layers = await self._rooms()
        except StoreError:
            return error
        # The estimate may have been too low, as of a layer of many small files.
        used = before.free - layers.free
        need = reservation.estimated(with_spools=spools.device == layers.device).at_least(used)
        text = f"{message}; {layers.told(need, f'for {reservation.reference} about ')}"
        return NoSpaceError(text, path, hint or _HINT)


def _shortage(rooms: tuple[Room, Room], reservations: Sequence[Reservation]) -> tuple[Room, Amount] | None:
    """The file system that has no room for what is certainly needed, and that; None if there is room."""
    needs = certain_needs(reservations)
    if rooms[0].device == rooms[1].device:
        needs = (needs[0] + needs[1], Amount())
    return next(((room, need) for room, need in zip(rooms, needs, strict=True) if not room.has(need)), None)
