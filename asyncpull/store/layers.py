"""The layers of a store: records, trees and tar-split files, changed together.

A layer is made in this order, so that at every moment either nobody sees it or it is whole:

1. its record is written with the flag ``incomplete``;
2. tree and tar-split are renamed into place, and every directory renamed into is synced;
3. the record is written without the flag.

Whoever loads the records exclusively and finds an ``incomplete`` one removes that layer: its maker has died, for
nobody lets go of the lock between 1 and 3. A layer is removed in the opposite order. When what a layer was made for
fails, the records go back to what they were, and then what is in place is nobody's and is moved away. Trees are not
deleted under the lock: they are moved into temporary directories, and those are deleted after it.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import NoSpaceError, NotInStoreError, StoreError
from asyncpull.log import Log
from asyncpull.store.driver import Parent
from asyncpull.store.files import disk_errors, sweep, sync_file
from asyncpull.store.records import LAYERS, Raw, format_time
from asyncpull.store.table import Table
from asyncpull.store.tempdirs import TempDir, find_abandoned, remove_abandoned
from asyncpull.store.views import LayerRecord
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.driver import Driver
    from asyncpull.store.staging import StagedLayer
    from asyncpull.store.table import Rows

_log = Log(__name__)

# Overlay mounts at most this many lower directories, and a container's layer has all of its image's below it.
MAX_LAYERS = 500


class Trash:
    """Where trees go that are to be deleted after the lock was given back."""

    def __init__(self, trees_roots: Sequence[Path], files_root: Path) -> None:
        """``trees_roots`` are the staging directories of a driver: a tree goes to the one of its own home."""
        self._trees_roots, self._files_root = trees_roots, files_root
        self._taken: dict[Path, TempDir] = {}

    def take_tree(self, path: Path) -> None:
        """Move the directory of a layer in."""
        homes = [root for root in self._trees_roots if path.is_relative_to(root.parent)]
        try:
            self._into(homes[0] if homes else self._trees_roots[0]).take(path)
        except NoSpaceError:  # not even a directory can be made: then there is no room to be patient
            remove_tree(path)

    def take_file(self, path: Path) -> None:
        """Move a tar-split file, or a directory of big data, in."""
        try:
            self._into(self._files_root).take(path)
        except NoSpaceError:
            remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was moved in."""
        return not self._taken

    def delete(self) -> None:
        """Delete all that was moved in."""
        for directory in self._taken.values():
            directory.remove()
        self._taken.clear()

    def _into(self, root: Path) -> TempDir:
        if root not in self._taken:
            self._taken[root] = TempDir.create(root)
        return self._taken[root]


@dataclass(frozen=True, slots=True)
class Addition:
    """A layer about to be added: its complete record, what is staged, and whether there is a tar-split with it.

    A copy of a layer with other owners lies upon that layer, ``stands_on``, while its parent is the parent of that one;
    and the root of its tree has an owner of its own.
    """

    record: Raw
    staged: StagedLayer
    has_tar_split: bool
    stands_on: str | None = None
    root_owner: tuple[int, int] | None = None

    @property
    def id(self) -> str:
        """The ID of the layer."""
        return str(self.record["id"])

    @property
    def parent(self) -> str | None:
        """The ID of the layer that its tree is stacked on."""
        parent = self.stands_on or self.record.get("parent")
        return None if parent is None else str(parent)


class Layers:
    """The layer store below a graph root.

    With an ``image_root`` layers of images are recorded there, and their trees are there; their tar-split files stay
    below the graph root. With a ``volatile_root`` records of volatile layers are there.
    """

    def __init__(
        self,
        graph_root: Path,
        driver: Driver,
        *,
        is_synced: bool = True,
        image_root: Path | None = None,
        volatile_root: Path | None = None,
    ) -> None:
        self.is_synced = is_synced
        name = f"{driver.name}-layers"
        self.directory = graph_root / name
        self.driver = driver
        self.table: Table[LayerRecord] = Table(
            self.directory,
            LAYERS,
            LayerRecord.from_raw,
            image_directory=image_root / name if image_root else None,
            volatile_directory=volatile_root / name if volatile_root else None,
        )

    @property
    def temp_root(self) -> Path:
        """Where tar-split files are staged."""
        return self.directory / "tmp"

    def tar_split_path(self, layer_id: str) -> Path:
        """The tar-split file of a layer."""
        return self.directory / f"{layer_id}.tar-split.gz"

    def roots(self, layer: LayerRecord) -> list[Path]:
        """Where the files that a layer brings are found by name, the nearest place first.

        There is one place, but for a copy with other owners: it has only the files that got another one, and the rest
        is in the layers that it lies upon. Raises StoreCorruptError if one of those is missing.
        """
        if layer.mappings and self.driver.is_layered:
            return self.driver.stack(layer.id)
        return [self.driver.diff_path(layer.id)]

    def trash(self) -> Trash:
        """Empty; costs nothing until something is moved in."""
        return Trash(self._trees_roots(), self.temp_root)

    def remove_abandoned(self) -> None:
        """Delete what dead programs left in the temporary directories; needs no lock."""
        for root in (*self._trees_roots(), self.temp_root):
            remove_abandoned(root)

    def find_abandoned(self) -> list[Path]:
        """What ``remove_abandoned`` would delete; needs no lock. Raises StoreWriteError, StoreError."""
        return [path for root in (*self._trees_roots(), self.temp_root) for path in find_abandoned(root)]

    def _trees_roots(self) -> tuple[Path, ...]:
        return self.driver.homes.staging_roots


class LayerReader:
    """The layers of a store, as ``rows``, and those that are lent to it by other stores."""

    def __init__(self, rows: Rows[LayerRecord], lent: Mapping[str, LayerRecord]) -> None:
        self.rows, self.lent = rows, lent

    def find(self, layer_id: str) -> LayerRecord | None:
        """The layer with this ID, the store's own or a lent one."""
        return self.rows.by_id.get(layer_id) or self.lent.get(layer_id)

    def depth(self, layer_id: str | None) -> int:
        """How many layers there are from ``layer_id`` down to its base. Raises NotInStoreError for a broken chain."""
        number = 0
        while layer_id is not None:
            layer = self.find(layer_id)
            if layer is None or number > len(self.rows.by_id) + len(self.lent):
                raise NotInStoreError(f"layer {layer_id} is not in the store")
            layer_id = layer.parent
            number += 1
        return number


class LayerWriter(LayerReader):
    """The layers while their lock is held exclusively; ``rows`` are up to date and all complete."""

    def __init__(
        self, layers: Layers, lock: LockedFile, trash: Trash, lent: Mapping[str, LayerRecord] | None = None
    ) -> None:
        """Load, and remove what somebody left incomplete. Raises StoreCorruptError, StoreError."""
        super().__init__(layers.table.load(lock), lent or {})
        self._layers, self._lock, self._trash = layers, lock, trash
        for directory in layers.table.directories:
            sweep(directory)
        incomplete = [layer.id for layer in self.rows.by_id.values() if layer.is_incomplete]
        for layer_id in incomplete:
            _log.warning("found an incomplete layer, removing it", layer=layer_id)
        if incomplete:
            self._drop(incomplete)

    @contextmanager
    def added(self, additions: Sequence[Addition], *, volatile: bool = False) -> Iterator[None]:
        """Make staged layers part of the store, parents first; all of them, or none if that or the body fails.

        Raises NotInStoreError if a parent is missing, NoSpaceError, StoreWriteError, StoreError.
        """
        if not additions:
            yield
            return
        try:
            with self._layers.table.kept(self._lock):
                self._add(additions, volatile)
                yield
        except BaseException:
            self._clear_away([addition.id for addition in additions])
            raise

    def condemn(self, ids: Sequence[str]) -> None:
        """Say of layers that they go: from here on whoever finds them removes them. Then ``remove`` does it.

        Raises NoSpaceError, StoreWriteError, StoreError, and then nothing has changed.
        """
        if ids:
            flags = {layer_id: {"flags": {**_flags(self.rows.raw(layer_id)), "incomplete": True}} for layer_id in ids}
            self.rows = self._layers.table.change(self._lock, self.rows, flags)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove condemned layers, children first. Raises NoSpaceError, StoreWriteError, StoreError."""
        if ids:
            self._drop(ids)

    def remove_stray(self, layer_id: str) -> None:
        """Move away what is there of a layer without a record. Raises NoSpaceError, StoreWriteError, StoreError."""
        with disk_errors(self._layers.directory):
            self._detach(layer_id)

    def _add(self, additions: Sequence[Addition], volatile: bool) -> None:
        self._append(additions, volatile)
        with disk_errors(self._layers.directory):
            for addition in additions:
                self._put_in_place(addition)
            if self._layers.is_synced:
                self._layers.driver.sync([addition.id for addition in additions])
                sync_file(self._layers.directory)
        whole = {addition.id: {"flags": None, **addition.record} for addition in additions}
        self.rows = self._layers.table.change(self._lock, self.rows, whole)

    def _put_in_place(self, addition: Addition) -> None:
        driver, staged = self._layers.driver, addition.staged
        parent = None
        if addition.parent is not None:
            if not driver.has(addition.parent):
                raise NotInStoreError(f"layer {addition.parent}, the parent of {addition.id}, has no tree")
            parent = Parent(addition.parent, driver.directory(addition.parent))
        for path in driver.connect(staged.directory, parent):
            if self._layers.is_synced:
                sync_file(path)
        if addition.root_owner is not None:
            os.chown(staged.diff, *addition.root_owner)
        self._detach(addition.id)
        driver.install(addition.id, staged.directory)
        if addition.has_tar_split:
            staged.tar_split.rename(self._layers.tar_split_path(addition.id))

    def _append(self, additions: Sequence[Addition], volatile: bool) -> None:
        table = self._layers.table
        files: tuple[list[Raw], list[Raw], list[Raw]] = ([], [], [])
        for addition in additions:
            file = 1 if volatile else 2 if table.is_split and addition.staged.is_of_image else 0
            files[file].append(_incomplete(addition.record))
        self.rows = table.change(
            self._lock, self.rows, {}, append=files[0], append_volatile=files[1], append_apart=files[2]
        )

    def _drop(self, ids: Sequence[str]) -> None:
        """Detach trees, then forget the records."""
        with disk_errors(self._layers.directory):
            for layer_id in ids:
                self._detach(layer_id)
            if self._layers.is_synced and not all(self._is_volatile(layer_id) for layer_id in ids):
                # Otherwise a power cut, on btrfs, gives back trees that no record speaks of any more.
                self._layers.driver.sync(())
        try:
            self.rows = self._layers.table.change(self._lock, self.rows, dict.fromkeys(ids))
        except NoSpaceError:
            self._trash.delete()  # the room that these layers take is what is missing
            self.rows = self._layers.table.change(self._lock, self.rows, dict.fromkeys(ids))

    def _is_volatile(self, layer_id: str) -> bool:
        return layer_id in self.rows.by_id and self.rows.by_id[layer_id].volatile

    def _detach(self, layer_id: str) -> None:
        """Move tree, tar-split and big data away; also what is there without a record."""
        self._layers.driver.detach(layer_id, self._trash)
        for path in (self._layers.tar_split_path(layer_id), self._layers.directory / layer_id):
            if path.exists():
                self._trash.take_file(path)

    def _clear_away(self, ids: Sequence[str]) -> None:
        """Move away what is in place of layers that were not added after all. What has a record all the same stays."""
        try:
            self.rows = self._layers.table.load(self._lock)
            for layer_id in ids:
                if layer_id not in self.rows.by_id:
                    self._detach(layer_id)
        except (StoreError, OSError) as error:
            # It is nobody's, or its record says "incomplete"; what comes next in the store is not hindered by it.
            _log.warning("layers of a failed commit are left in part", layers=list(ids), reason=str(error))


def new_record(layer_id: str, parent: str | None, **values: object) -> Raw:
    """A record made now; keys of ``values`` are those of the record with ``_`` for ``-``, empty values are left out."""
    record: Raw = {"id": layer_id, "created": format_time(time.time_ns())}
    if parent is not None:
        record["parent"] = parent
    return record | {key.replace("_", "-"): value for key, value in values.items() if value}


def _incomplete(record: Raw) -> Raw:
    record = {key: value for key, value in record.items() if key in ("id", "names", "parent", "created")}
    return record | {"flags": {"incomplete": True}}


def _flags(record: Raw) -> dict[str, object]:
    flags = record.get("flags")
    return dict(flags) if isinstance(flags, dict) else {}
