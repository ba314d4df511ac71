"""The containers of a store: a record each, a writable layer each, and a directory that belongs to who made them."""

from __future__ import annotations

import json
import os
import secrets
import time
from typing import TYPE_CHECKING

from asyncpull.errors import StoreError
from asyncpull.store.files import disk_errors, sweep
from asyncpull.store.records import CONTAINERS, Raw, format_time
from asyncpull.store.table import Table
from asyncpull.store.views import ContainerRecord
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.table import Rows
    from asyncpull.store.views import ImageRecord


class Containers:
    """The container store below a graph root; ``run_directory`` has what a reboot may lose."""

    def __init__(self, graph_root: Path, run_root: Path, driver: str) -> None:
        self.directory = graph_root / f"{driver}-containers"
        self.run_directory = run_root / f"{driver}-containers"
        self.table: Table[ContainerRecord] = Table(self.directory, CONTAINERS, ContainerRecord.from_raw)

    def running_process(self, container_id: str) -> int | None:
        """The process of a container that podman runs, if it lives; asyncpull itself runs none."""
        try:
            pid = int((self.run_directory / container_id / "userdata/pidfile").read_text())
        except (OSError, ValueError):
            return None
        return pid if _is_alive(pid) else None


class ContainerWriter:
    """The containers while their lock is held exclusively; ``rows`` are up to date."""

    def __init__(self, containers: Containers, lock: LockedFile) -> None:
        """Load. Raises StoreCorruptError, StoreError."""
        self._containers, self._lock = containers, lock
        self.rows: Rows[ContainerRecord] = containers.table.load(lock)
        sweep(containers.directory)

    def require_free(self, name: str) -> None:
        """Raise StoreError if a container has this name."""
        for container in self.rows.by_id.values():
            if name in container.names:
                raise StoreError(
                    f"the name {name!r} is taken by container {container.id[:12]}", hint="choose another name"
                )

    def add(self, record: Raw) -> ContainerRecord:
        """Record a container."""
        self.rows = self._containers.table.change(self._lock, self.rows, {}, append=(record,))
        return self.rows.by_id[str(record["id"])]

    def remove(self, container_id: str) -> None:
        """Forget a container, then delete its directories."""
        self.rows = self._containers.table.change(self._lock, self.rows, {container_id: None})
        for directory in (self._containers.directory, self._containers.run_directory):
            with disk_errors(directory):
                remove_tree(directory / container_id)


def container_name(image: ImageRecord) -> str:
    """A name nobody else is likely to have: the last word of the image's, and some digits."""
    name = image.names[0] if image.names else image.id[:12]
    word = name.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return f"{word}-{secrets.token_hex(4)}"


def new_container(container_id: str, name: str, image: ImageRecord, layer_id: str) -> Raw:
    """The record of a container made now, as podman writes it: podman's view of it is in the metadata."""
    now = time.time_ns()
    metadata = {
        "image-name": image.names[0] if image.names else "",
        "image-id": image.id,
        "name": name,
        "created-at": now // 1_000_000_000,
    }
    return {
        "id": container_id,
        "names": [name],
        "image": image.id,
        "layer": layer_id,
        "metadata": json.dumps(metadata, separators=(",", ":")),
        "created": format_time(now),
        "flags": {"MountLabel": "", "ProcessLabel": ""},
    }


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
