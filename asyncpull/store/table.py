"""A table of records: one lock file, one JSON file, and one more for records that a reboot may lose.

How a table is read and written (format, section 3.4):

1. Nothing parsed before is used again unless, with the lock held, the token in the lock file is the one that was read
   before it was parsed and neither file's time has changed. (Go compares times for layers only. We do it for all:
   a writer that forgets the token, or one that died between token and rename, then costs nothing but a reload.)
2. A writer writes a new token first, then renames the files into place.
3. The two files are one table; a record whose ID was in the first file already is not looked at in the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from asyncpull.errors import StoreError
from asyncpull.store.files import disk_errors, read_if_there, sync_file, write_atomic
from asyncpull.store.records import format_records, parse_records, updated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
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
    """All records at one moment: as they are on disk, and as views, found by ID."""

    stable: tuple[Raw, ...]
    volatile: tuple[Raw, ...]
    by_id: Mapping[str, V]

    def raw(self, record_id: str) -> Raw:
        """The record as it is on disk. Raises KeyError."""
        for record in (*self.stable, *self.volatile):
            if record["id"] == record_id:
                return record
        raise KeyError(record_id)


@dataclass(frozen=True, slots=True)
class _Loaded(Generic[V]):
    token: bytes
    stamps: tuple[tuple[int, int, int], ...]
    rows: Rows[V]


class Table(Generic[V]):
    """The records below ``directory``. Each method needs the lock at ``lock_path``, held by the caller."""

    def __init__(self, directory: Path, kind: RecordKind, view: Callable[[Raw, bool], V]) -> None:
        stem = f"{kind.noun}s"
        self.directory, self.kind = directory, kind
        self.lock_path = directory / f"{stem}.lock"
        self._stable = directory / f"{stem}.json"
        self._volatile = directory / f"volatile-{stem}.json"
        self._view = view
        self._loaded: _Loaded[V] | None = None

    def load(self, lock: LockedFile) -> Rows[V]:
        """The records as they are now. Raises StoreCorruptError, StoreError."""
        with disk_errors(self.directory):
            token, stamps = lock.token(), self._stamps()
            loaded = self._loaded
            if loaded is None or (loaded.token, loaded.stamps) != (token, stamps):
                stable = parse_records(read_if_there(self._stable), self.kind, str(self._stable))
                volatile = parse_records(read_if_there(self._volatile), self.kind, str(self._volatile))
                loaded = self._loaded = _Loaded(token, stamps, self._rows(stable, volatile))
        return loaded.rows

    def save(self, lock: LockedFile, rows: Rows[V], stable: Iterable[Raw], volatile: Iterable[Raw]) -> Rows[V]:
        """Write the records that are to follow ``rows``; only a file whose records change is written.

        The stable file is on the disk when this returns, name and all; the memory of a failed save is void, because the
        token has changed. Raises NoSpaceError, StoreWriteError, StoreError.
        """
        new = self._rows(tuple(stable), tuple(volatile))
        with disk_errors(self.directory):
            stable_bytes = format_records(new.stable, self.kind)
            volatile_bytes = format_records(new.volatile, self.kind)
            token = lock.write_token()
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
    ) -> Rows[V]:
        """Save ``rows`` with keys of some records changed, by record ID; None drops a record. New ones come last."""
        stable = (*_changed(rows.stable, self.kind, changes), *append)
        volatile = (*_changed(rows.volatile, self.kind, changes), *append_volatile)
        return self.save(lock, rows, stable, volatile)

    def _rows(self, stable: tuple[Raw, ...], volatile: tuple[Raw, ...]) -> Rows[V]:
        by_id: dict[str, V] = {}
        for records, is_volatile in ((stable, False), (volatile, True)):
            for record in records:
                view = self._view(record, is_volatile)
                by_id.setdefault(view.id, view)
        return Rows(stable, volatile, by_id)

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(path) for path in (self._stable, self._volatile))


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
