"""A table of records: one lock file, one JSON file, and one more for records that a reboot may lose.

Where images are kept apart from containers, layers have a third file, with the images, and a second lock beside it.

How a table is read and written (format, section 3.4):

1. Nothing parsed before is used again unless, with the lock held, the token in the lock file is the one that was read
   before it was parsed and neither file's time has changed. (Go compares times for layers only. We do it for all:
   a writer that forgets the token, or one that died between token and rename, then costs nothing but a reload.)
2. A writer writes a new token first, then renames the files into place.
3. A change that is part of a larger one is taken back by renaming the file of before: see ``kept``.
4. The files are one table; a record whose ID was in an earlier file already is not looked at in a later one. Their
   order is that of ``Rows``.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import StoreError
from asyncpull.store.files import disk_errors, kept, read_if_there, sync_file, write_atomic
from asyncpull.store.records import format_records, parse_records, updated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.records import Raw, RecordKind


class View(Protocol):
    """What all views have."""

    @property
    def id(self) -> str:
        """The ID of the record."""


V = TypeVar("V", bound=View)


@dataclass(frozen=True, slots=True)
class Rows(Generic[V]):
    """All records at one moment: as they are on disk, and as views, found by ID.

    ``apart`` are those that lie with the images, where these are kept apart.
    """

    stable: tuple[Raw, ...]
    volatile: tuple[Raw, ...]
    by_id: Mapping[str, V]
    apart: tuple[Raw, ...] = ()

    def raw(self, record_id: str) -> Raw:
        """The record as it is on disk. Raises KeyError."""
        for record in (*self.stable, *self.apart, *self.volatile):
            if record["id"] == record_id:
                return record
        raise KeyError(record_id)


@dataclass(frozen=True, slots=True)
class _Loaded(Generic[V]):
    token: bytes
    stamps: tuple[tuple[int, int, int], ...]
    rows: Rows[V]


class Table(Generic[V]):
    """The records below ``directory``. Each method needs the lock at ``lock_path``, held by the caller.

    ``volatile_directory`` is where the records lie that a reboot may lose, ``lock_directory`` where the lock does, both
    if not in ``directory``. ``image_directory``: where layers of images are recorded, with a lock of their own.
    """

    def __init__(
        self,
        directory: Path,
        kind: RecordKind,
        view: Callable[[Raw, bool], V],
        *,
        image_directory: Path | None = None,
        volatile_directory: Path | None = None,
        lock_directory: Path | None = None,
    ) -> None:
        stem = f"{kind.noun}s"
        self.directory, self.kind = directory, kind
        self.lock_path = (lock_directory or directory) / f"{stem}.lock"
        self.second_lock_path = image_directory / f"{stem}.lock" if image_directory else None
        self._stable = directory / f"{stem}.json"
        self._apart = image_directory / f"{stem}.json" if image_directory else None
        self._volatile = (volatile_directory or directory) / f"volatile-{stem}.json"
        self._view = view
        self._loaded: _Loaded[V] | None = None

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where records are written that a reboot does not lose, and after a crash may be half-written files."""
        return (self.directory, *((self._apart.parent,) if self._apart else ()))

    @property
    def _paths(self) -> tuple[Path, ...]:
        """The files of records."""
        return (self._stable, self._volatile, *((self._apart,) if self._apart else ()))

    @property
    def is_split(self) -> bool:
        """Whether layers of images are recorded apart."""
        return self._apart is not None

    def load(self, lock: LockedFile | None) -> Rows[V]:
        """The records as they are now; ``lock`` may be missing where nobody can write.

        Raises StoreCorruptError, StoreError.
        """
        with disk_errors(self.directory):
            token, stamps = lock.token() if lock else b"", self._stamps()
            loaded = self._loaded
            if loaded is None or (loaded.token, loaded.stamps) != (token, stamps):
                rows = self._rows(*(self._parsed(path) for path in (self._stable, self._volatile, self._apart)))
                loaded = self._loaded = _Loaded(token, stamps, rows)
        return loaded.rows

    def save(
        self,
        lock: LockedFile,
        rows: Rows[V],
        stable: Iterable[Raw],
        volatile: Iterable[Raw],
        apart: Iterable[Raw] = (),
    ) -> Rows[V]:
        """Write the records that are to follow ``rows``; only a file whose records change is written.

        The stable file is on the disk when this returns, name and all. What fails, fails as a whole: the files are what
        they were, and the memory of it is void, because the token has changed. Raises NoSpaceError, StoreWriteError,
        StoreError.
        """
        new = self._rows(tuple(stable), tuple(volatile), tuple(apart))
        with disk_errors(self.directory):
            stable_bytes = format_records(new.stable, self.kind)
            volatile_bytes = format_records(new.volatile, self.kind)
            apart_bytes = format_records(new.apart, self.kind)
            token = lock.write_token()
            with kept(self._paths):
                if self._apart is not None and new.apart != rows.apart:
                    write_atomic(self._apart, apart_bytes)
                    sync_file(self._apart.parent)
                if new.stable != rows.stable or not self._stable.exists():
                    write_atomic(self._stable, stable_bytes)
                    sync_file(self.directory)
                if new.volatile != rows.volatile:
                    write_atomic(self._volatile, volatile_bytes, durable=False)
                self._loaded = _Loaded(token, self._stamps(), new)
        return new

    def change(
        self,
        lock: LockedFile,
        rows: Rows[V],
        changes: Mapping[str, Mapping[str, object] | None],
        *,
        append: Iterable[Raw] = (),
        append_volatile: Iterable[Raw] = (),
        append_apart: Iterable[Raw] = (),
    ) -> Rows[V]:
        """Save ``rows`` with keys of some records changed, by record ID; None drops a record. New ones come last."""
        stable = (*_changed(rows.stable, self.kind, changes), *append)
        volatile = (*_changed(rows.volatile, self.kind, changes), *append_volatile)
        apart = (*_changed(rows.apart, self.kind, changes), *append_apart)
        return self.save(lock, rows, stable, volatile, apart)

    @contextmanager
    def kept(self, lock: LockedFile) -> Iterator[None]:
        """Have the records that are there now again if the body fails: see ``files.kept``.

        Raises NoSpaceError, StoreWriteError, StoreError.
        """
        with disk_errors(self.directory), kept(self._paths):
            try:
                yield
            except BaseException:
                lock.write_token()
                raise

    def _parsed(self, path: Path | None) -> tuple[Raw, ...]:
        return parse_records(read_if_there(path), self.kind, str(path)) if path is not None else ()

    def _rows(self, stable: tuple[Raw, ...], volatile: tuple[Raw, ...], apart: tuple[Raw, ...]) -> Rows[V]:
        by_id: dict[str, V] = {}
        for records, is_volatile in ((stable, False), (apart, False), (volatile, True)):
            for record in records:
                view = self._view(record, is_volatile)
                by_id.setdefault(view.id, view)
        return Rows(stable, volatile, by_id, apart)

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(map(_stamp, self._paths))


def _changed(
    records: tuple[Raw, ...], kind: RecordKind, changes: Mapping[str, Mapping[str, object] | None]
) -> tuple[Raw, ...]:
    result = []
    for record in records:
        record_id = str(record["id"])
        if record_id not in changes:
            result.append(record)
            continue
        change = changes[record_id]
        if change is not None:
            result.append(updated(record, kind, change))
    return tuple(result)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def find(rows: Rows[V], names_of: Callable[[V], Iterable[str]], target: str) -> V | None:
    """The record with this ID or name, or the only one whose ID begins with ``target``; None if there is none.

    Raises StoreError if several IDs begin so.
    """
    if target in rows.by_id:
        return rows.by_id[target]
    for record in rows.by_id.values():
        if target in names_of(record):
            return record
    matching = [record for record in rows.by_id.values() if target and record.id.startswith(target)]
    if len(matching) > 1:
        raise StoreError(f"{target!r} is the beginning of several IDs", hint="give more digits of the ID")
    return matching[0] if matching else None
