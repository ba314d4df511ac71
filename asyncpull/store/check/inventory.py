"""What a store has at one moment: its records, and the names in its directories; read under the locks, shared."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import StoreCorruptError
from asyncpull.store.check.findings import Damage, Finding, Remedy, Subject
from asyncpull.store.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from asyncpull.store.additional import Lent
    from asyncpull.store.mounts import MountRecord
    from asyncpull.store.sections import RecordLocks, Sections
    from asyncpull.store.table import Rows, View
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord

T = TypeVar("T")
V = TypeVar("V", bound="View")

# In the directory of layers, beside them. Everything else that is a directory counts as a layer (format, 1.1).
_NO_LAYERS = frozenset(("l", "staging", "tempdirs"))


@dataclass(frozen=True, slots=True)
class Inventory:
    """Records by ID, and names of files; ``unreadable`` says why nothing else can be told.

    ``duplicates`` are the IDs that come twice. ``trees`` are the directories of layers, ``layer_files`` all that lies
    beside their records, ``image_directories`` and ``container_directories`` likewise. ``short_names`` are those in
    ``overlay/l``. ``running`` are the IDs of the containers that podman runs. ``lent`` and ``lent_images`` are
    the layers and images of additional stores that this store has not itself, ``lenders`` these stores.
    """

    layers: Mapping[str, LayerRecord]
    images: Mapping[str, ImageRecord]
    containers: Mapping[str, ContainerRecord]
    mounts: tuple[MountRecord, ...]
    duplicates: tuple[tuple[Subject, str], ...] = ()
    trees: frozenset[str] = frozenset()
    short_names: frozenset[str] = frozenset()
    layer_files: frozenset[str] = frozenset()
    image_directories: frozenset[str] = frozenset()
    container_directories: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    unreadable: tuple[Finding, ...] = ()
    lent: Mapping[str, LayerRecord] = field(default_factory=dict)
    lent_images: Mapping[str, ImageRecord] = field(default_factory=dict)
    lenders: tuple[Lent, ...] = ()

    def layer(self, layer_id: str) -> LayerRecord | None:
        """The layer with this ID, the store's own or a lent one."""
        return self.layers.get(layer_id) or self.lent.get(layer_id)

    def chain(self, layer_id: str | None) -> Iterator[LayerRecord]:
        """The layer and all below it; ends where a record is missing, or where it would begin again."""
        seen = set()
        while layer_id and layer_id not in seen:
            seen.add(layer_id)
            layer = self.layer(layer_id)
            if layer is None:
                return
            yield layer
            layer_id = layer.parent

    def record(self, subject: Subject, record_id: str) -> LayerRecord | ImageRecord | ContainerRecord | None:
        """The record that a finding is about."""
        tables: Mapping[Subject, Mapping[str, LayerRecord | ImageRecord | ContainerRecord]] = {
            Subject.LAYER: {**self.lent, **self.layers},
            Subject.IMAGE: {**self.lent_images, **self.images},
            Subject.CONTAINER: self.containers,
        }
        return tables[subject].get(record_id) if subject in tables else None


def take_inventory(sections: Sections, locks: RecordLocks) -> Inventory:
    """Read records and directories. Needs all locks of records, shared. Raises StoreError."""
    unreadable: list[Finding] = []
    layers = _readable(partial(sections.layers.table.load, locks.layers), unreadable)
    images = _readable(partial(sections.images.table.load, locks.images), unreadable)
    containers = _readable(partial(sections.containers.table.load, locks.containers), unreadable)
    mounts = _readable(sections.mounts.list, unreadable)
    unreadable += [_unreadable(error) for lent in locks.lent for error in lent.unreadable]
    if layers is None or images is None or containers is None or mounts is None:
        return Inventory({}, {}, {}, (), unreadable=tuple(unreadable))
    homes = sections.driver.homes
    with disk_errors(homes.main):
        return Inventory(
            layers.by_id,
            images.by_id,
            containers.by_id,
            mounts,
            duplicates=(
                *((Subject.LAYER, each) for each in ids_that_come_twice(layers)),
                *((Subject.IMAGE, each) for each in ids_that_come_twice(images)),
                *((Subject.CONTAINER, each) for each in ids_that_come_twice(containers)),
            ),
            trees=frozenset().union(*(_directories(home / homes.trees) for home in homes.own)) - _NO_LAYERS,
            short_names=frozenset().union(*(_names(home / "l") for home in homes.own)),
            layer_files=_names(sections.layers.directory),
            image_directories=_directories(sections.images.directory),
            container_directories=_directories(sections.containers.directory),
            running=frozenset(each for each in containers.by_id if sections.containers.running_process(each)),
            unreadable=tuple(unreadable),
            lent=_others(layers.by_id, [lent.layers for lent in locks.lent], lambda layer: not layer.is_incomplete),
            lent_images=_others(images.by_id, [lent.images for lent in locks.lent], lambda _: True),
            lenders=locks.lent,
        )


def _readable(load: Callable[[], T], unreadable: list[Finding]) -> T | None:
    try:
        return load()
    except StoreCorruptError as error:
        unreadable.append(_unreadable(error))
        return None


def _unreadable(error: StoreCorruptError) -> Finding:
    return Finding(Damage.RECORDS_UNREADABLE, Subject.STORE, "", error.path or "", str(error.args[0]), Remedy.NONE)


def _others(own: Mapping[str, V], lent: Iterable[Rows[V] | None], wanted: Callable[[V], bool]) -> dict[str, V]:
    """What other stores lend that is not in the own one; the first store's first."""
    found: dict[str, V] = {}
    for rows in filter(None, lent):
        for record in rows.by_id.values():
            if record.id not in own and wanted(record):
                found.setdefault(record.id, record)
    return found


def ids_that_come_twice(rows: Rows[V]) -> list[str]:
    """The IDs of which a table has two records or more."""
    ids = Counter(str(raw["id"]) for raw in (*rows.stable, *rows.volatile))
    return [record_id for record_id, number in ids.items() if number > 1]


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))
    except FileNotFoundError:
        return frozenset()


def _directories(directory: Path) -> frozenset[str]:
    try:
        with os.scandir(directory) as entries:
            return frozenset(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return frozenset()
