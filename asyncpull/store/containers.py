"""The containers of a store: a record each, a writable layer each, and a directory that belongs to who made them."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.dataclass import dataclass
from asyncpull.errors import NotInStoreError, StoreError, UsageError
from asyncpull.log import Log
from asyncpull.spec.digest import Digest
from asyncpull.store.files import disk_errors, kept, make_directory, sweep, sync_file, write_atomic
from asyncpull.store.idmap import NO_MAPPINGS, format_raw
from asyncpull.store.records import CONTAINERS, Raw, big_data_file_name, format_time
from asyncpull.store.table import Table
from asyncpull.store.views import ContainerRecord
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.idmap import IDMappings
    from asyncpull.store.table import Rows
    from asyncpull.store.views import ImageRecord

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container is to be, apart from its image; by default what ``podman create`` makes of it.

    ``names``: the first one also names the layer; without any it gets one. ``is_volatile``: its records are in the
    files that a reboot may lose, and it is mounted without ever being synced. ``metadata`` is free text; None for what
    podman wants to find there. ``mount_options`` are the words of mount(8) that it is always mounted with, in place of
    the configured ones. The SELinux labels are both given or neither. ``flags`` are recorded beside those that follow
    from the above. ``big_data`` are items with their keys. ``mappings`` are those of the user namespace that it is to
    live in: of users and of groups, both with a root. Raises UsageError for what cannot be.
    """

    names: tuple[str, ...] = ()
    is_volatile: bool = False
    metadata: str | None = None
    mount_options: tuple[str, ...] = ()
    mount_label: str = ""
    process_label: str = ""
    flags: tuple[tuple[str, object], ...] = ()
    big_data: tuple[tuple[str, bytes], ...] = ()
    mappings: IDMappings = NO_MAPPINGS

    def __post_init__(self) -> None:
        if bool(self.mappings.uids) != bool(self.mappings.gids):
            raise UsageError("a container has mappings of users and of groups, or neither")
        try:
            _ = self.mappings.root
        except LookupError as error:
            raise UsageError(str(error), "the mapping must have ID 0 of the container") from error
        if bool(self.mount_label) != bool(self.process_label):
            raise UsageError("a container has a mount label and a process label, or neither")
        for name in self.names:
            if not name or "/" in name or name.strip() != name:
                raise UsageError(f"{name!r} cannot be the name of a container")
        for key, _ in self.big_data:
            checked_key(key)


class Containers:
    """The container store below a graph root; ``run_directory`` has what a reboot may lose."""

    def __init__(self, graph_root: Path, run_root: Path, driver: str, *, is_transient: bool = False) -> None:
        """``is_transient``: lock and records of volatile containers are in the run root, and all new ones are."""
        self.is_transient = is_transient
        self.directory = graph_root / f"{driver}-containers"
        self.run_directory = run_root / f"{driver}-containers"
        self.table: Table[ContainerRecord] = Table(
            self.directory,
            CONTAINERS,
            ContainerRecord.from_raw,
            volatile_directory=self.run_directory if is_transient else None,
            lock_directory=self.run_directory if is_transient else None,
        )

    def data_path(self, container_id: str) -> Path:
        """The directory ``userdata`` of a container, which lasts as long as the container does."""
        return self.directory / container_id / "userdata"

    def run_path(self, container_id: str) -> Path:
        """The directory ``userdata`` of a container in the run root, which a reboot loses."""
        return self.run_directory / container_id / "userdata"

    def read_big_data(self, container: ContainerRecord, key: str) -> bytes:
        """An item of a container. Needs the lock, shared. Raises NotInStoreError, StoreError."""
        if key not in container.big_data_names:
            raise NotInStoreError(f"container {container.id[:12]} has no item {key!r}")
        path = self.directory / container.id / big_data_file_name(key)
        with disk_errors(path):
            return path.read_bytes()

    def make_directory(self, path: Path) -> Path:
        """Make ``data_path`` or ``run_path``. Needs the lock, or the container may vanish. Raises StoreWriteError."""
        for directory in (*reversed(path.parents[:2]), path):
            with disk_errors(directory):
                make_directory(directory, 0o700)
        return path

    def remove_directories(self, container_ids: Iterable[str]) -> None:
        """Delete what removed containers leave; what is mounted there still is unmounted. Needs no lock."""
        roots = (self.directory, self.run_directory)
        for directory in (root / container_id for container_id in container_ids for root in roots):
            for point in reversed(kernel.mounts_below(directory)):
                with suppress(OSError):  # then it cannot be deleted either, and that is told
                    kernel.unmount(directory / point, kernel.MNT_DETACH)
            try:
                remove_tree(directory)
            except OSError as error:
                _log.warning("the directory of a container is left", path=str(directory), reason=str(error))

    def running_process(self, container_id: str) -> int | None:
        """The process of a container that podman runs, if it lives; asyncpull itself runs none."""
        try:
            pid = int((self.run_directory / container_id / "userdata/pidfile").read_text())
        except (OSError, ValueError):
            return None
        return pid if _is_alive(pid) else None


class ContainerWriter:
    """The containers while their lock is held exclusively; ``rows`` are up to date."""

    def __init__(self, containers: Containers, lock: LockedFile, removed: list[str]) -> None:
        """Load; ``removed`` gets the IDs of those whose directories are to be deleted. Raises StoreCorruptError."""
        self._containers, self._lock, self._removed = containers, lock, removed
        self.rows: Rows[ContainerRecord] = containers.table.load(lock)
        sweep(containers.directory)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Have the containers that are there now again if the body fails. Raises NoSpaceError, StoreError."""
        before, removed = self.rows, len(self._removed)
        try:
            with self._containers.table.kept(self._lock):
                yield
        except BaseException:
            self._removed[removed:] = self.rows.by_id.keys() - before.by_id.keys()  # their directories are nobody's
            self.rows = before
            raise

    def require_free(self, name: str) -> None:
        """Raise StoreError if a container has this name."""
        for container in self.rows.by_id.values():
            if name in container.names:
                raise StoreError(
                    f"the name {name!r} is taken by container {container.id[:12]}", hint="choose another name"
                )

    def add(self, record: Raw, *, volatile: bool = False) -> ContainerRecord:
        """Record a container; ``volatile`` in the file that a reboot may lose."""
        stable, lost = ((), (record,)) if volatile else ((record,), ())
        self.rows = self._containers.table.change(self._lock, self.rows, {}, append=stable, append_volatile=lost)
        return self.rows.by_id[str(record["id"])]

    def set_big_data(self, container_id: str, items: Collection[tuple[str, bytes]]) -> ContainerRecord:
        """Write items of a container and record them, new keys last; all of them, or after an error the old ones.

        Raises NoSpaceError, StoreWriteError, StoreError.
        """
        container = self.rows.by_id[container_id]
        names, sizes = list(container.big_data_names), dict(container.big_data_sizes)
        digests = dict(container.big_data_digests)
        directory = self._containers.directory / container_id
        paths = {key: directory / big_data_file_name(key) for key, _ in items}
        with disk_errors(directory), self.kept(), kept(paths.values()):
            make_directory(directory, 0o700)
            for key, data in items:
                write_atomic(paths[key], data, durable=not container.volatile)
                names += [] if key in names else [key]
                sizes[key], digests[key] = len(data), str(Digest.of(data))
            if not container.volatile:
                sync_file(directory)
            values = {"big-data-names": names, "big-data-sizes": sizes, "big-data-digests": digests}
            self.rows = self._containers.table.change(self._lock, self.rows, {container_id: values})
        return self.rows.by_id[container_id]

    def remove(self, container_id: str) -> None:
        """Forget a container; its directories are deleted when the lock has been given back."""
        self.rows = self._containers.table.change(self._lock, self.rows, {container_id: None})
        self._removed.append(container_id)


def checked_key(key: str) -> str:
    """A key that an item can be stored under. Raises UsageError."""
    try:
        big_data_file_name(key)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return key


def container_name(image: ImageRecord | None) -> str:
    """A name nobody else is likely to have: the last word of the image's, and some digits."""
    if image is None:
        return f"container-{os.urandom(4).hex()}"
    name = image.names[0] if image.names else image.id[:12]
    word = name.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return f"{word}-{os.urandom(4).hex()}"


def new_container(container_id: str, spec: ContainerSpec, image: ImageRecord | None, layer_id: str) -> Raw:
    """The record of a container made now, as podman writes it: podman's view of it is in the metadata."""
    now = time.time_ns()
    metadata = {
        "image-name": image.names[0] if image and image.names else "",
        "image-id": image.id if image else "",
        "name": spec.names[0] if spec.names else "",
        "created-at": now // 1_000_000_000,
    }
    flags: dict[str, object] = {"MountLabel": spec.mount_label, "ProcessLabel": spec.process_label}
    if spec.mount_options:
        flags["MountOpts"] = list(spec.mount_options)
    if spec.is_volatile:
        flags["Volatile"] = True
    record: Raw = {
        "id": container_id,
        "names": list(spec.names),
        "image": image.id if image else "",
        "layer": layer_id,
        "metadata": json.dumps(metadata, separators=(",", ":")) if spec.metadata is None else spec.metadata,
        "created": format_time(now),
        "uidmap": format_raw(spec.mappings.uids),
        "gidmap": format_raw(spec.mappings.gids),
        "flags": {**flags, **dict(spec.flags)},
    }
    return {key: value for key, value in record.items() if value or key == "image"}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
