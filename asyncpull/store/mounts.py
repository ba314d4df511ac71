"""What is mounted: reference counts shared with podman, and the mount that keeps ours from being buried.

Before anything is mounted, ``<graph root>/overlay`` is bound onto itself and made private, unless it is a mount point
already. Every program of the store does so when it begins to use the driver; if we did not, the next one would, and
cover the mounts that were made without it. Whoever takes the last mount down removes the binding again. Both need
storage.lock, which is taken before the lock of the layers; the counts have a lock of their own, taken after it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.dataclass import dataclass
from asyncpull.errors import MountError, NotInStoreError, StoreCorruptError
from asyncpull.log import Log
from asyncpull.store.driver import MountOptions
from asyncpull.store.files import disk_errors, make_directory, read_if_there, write_atomic
from asyncpull.store.fuse import clear_dead, flush
from asyncpull.store.idmap import NO_MAPPINGS
from asyncpull.store.idmapped import maps_owners, unmap
from asyncpull.store.mounting import mount_error, perform
from asyncpull.store.records import Raw, format_json, parse_array
from asyncpull.tree.marks import Marks
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from asyncpull.lockfile import LockedFile
    from asyncpull.store.driver import Driver
    from asyncpull.store.idmap import IDMappings
    from asyncpull.store.layers import LayerReader
    from asyncpull.store.views import ContainerRecord

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A layer that was mounted ``count`` times at ``path``; the kernel is not asked whether it still is."""

    layer: str
    path: Path
    count: int


class Mounts:
    """The mounts of a store. Each method needs storage.lock and the lock of the layers where it changes anything."""

    def __init__(
        self, run_root: Path, driver: Driver, *, binds_home: bool = True, allows_volatile: bool = True
    ) -> None:
        """``binds_home``: as told above; ``allows_volatile``: overlay need not sync what volatile containers write."""
        self._binds_home, self._allows_volatile = binds_home, allows_volatile
        self.directory = run_root / f"{driver.name}-layers"
        self.lock_path = self.directory / "mountpoints.lock"
        self.lease_root = run_root / "asyncpull" / f"{driver.name}-leases"
        self._path = self.directory / "mountpoints.json"
        self._driver = driver

    def prepare(self) -> None:
        """Make the directories that the lock lies in. Raises StoreWriteError, NoSpaceError, StoreError."""
        make_run_root(self.directory.parent)
        with disk_errors(self.directory):
            make_directory(self.directory, 0o700)

    def list(self) -> tuple[MountRecord, ...]:
        """All layers with a count. Raises StoreCorruptError, StoreError."""
        return tuple(_record(raw, self._path) for raw in self._load())

    def maps(self, mappings: IDMappings) -> bool:
        """Whether layers can be seen with these owners without a copy of them."""
        return maps_owners(self._driver, self.directory.parent, mappings)

    def find(self, layer_id: str) -> MountRecord | None:
        """The mount of one layer."""
        return next((record for record in self.list() if record.layer == layer_id), None)

    def mount(self, lock: LockedFile, layer_id: str, how: MountOptions) -> MountRecord:
        """Mount a layer, or count once more. ``lock`` is that of the counts. Raises MountError, StoreError."""
        known = self.find(layer_id)
        if known is not None and clear_dead(known.path):
            _log.warning("the program of a mount has died, mounting anew", path=str(known.path))
        if known is not None and known.count > 0 and kernel.is_mount_point(known.path):
            _require_alike(known.path, how)
            return self._count(lock, MountRecord(layer_id, known.path, known.count + 1))
        how = replace(how, volatile=how.volatile and self._allows_volatile)
        plan = self._driver.plan_mount(layer_id, how)
        if plan.is_in_place:
            return self._count(lock, MountRecord(layer_id, plan.target, known.count + 1 if known else 1))
        if self._binds_home and plan.target.is_relative_to(self._driver.homes.main):
            self._keep_private()
        if kernel.is_mount_point(plan.target):
            _require_alike(plan.target, how)
        else:
            if how.volatile and plan.work is not None:
                _allow_volatile_again(plan.work)
            perform(plan)
        try:
            # A count of which nothing is mounted is what a dead mount namespace leaves; it begins anew.
            return self._count(lock, MountRecord(layer_id, plan.target, 1))
        except BaseException:
            kernel.unmount(plan.target, kernel.MNT_DETACH)
            raise

    def flush(self, layer_id: str) -> None:
        """Have what was written through a mount program on the disk, ahead of ``unmount``. Slow; needs no lock."""
        known = self.find(layer_id) if self._driver.marks is Marks.AUFS else None
        if known is not None:
            flush(known.path)

    def unmount(self, storage_lock: LockedFile | None, lock: LockedFile, layer_id: str, *, force: bool) -> int:
        """Count down, and unmount at zero, or at once with ``force``; the count that remains.

        Without ``storage_lock`` the store is on read-only media. Raises MountError if it is not mounted, StoreError.
        """
        known = self.find(layer_id)
        if known is None:
            raise MountError(f"layer {layer_id} is not mounted")
        if known.count > 1 and not force:
            self._count(lock, MountRecord(layer_id, known.path, known.count - 1))
            return known.count - 1
        if not self._driver.is_layered:  # nothing was mounted
            self._count(lock, MountRecord(layer_id, known.path, 0))
            return 0
        try:
            kernel.unmount(known.path, kernel.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted, or not even there
                raise mount_error(error, known.path) from error
        unmap(known.path.with_name("mapped"))
        self._count(lock, MountRecord(layer_id, known.path, 0))
        self._renew(known.path)
        if storage_lock is not None:
            self._release(storage_lock)
        return 0

    def _count(self, lock: LockedFile, record: MountRecord) -> MountRecord:
        entries = [raw for raw in self._load() if raw.get("id") != record.layer]
        if record.count:
            entries.append({"id": record.layer, "path": str(record.path), "count": record.count})
        with disk_errors(self._path):
            lock.write_token()
            write_atomic(self._path, format_json(entries))
        return record

    def _load(self) -> tuple[Raw, ...]:
        with disk_errors(self._path):
            return parse_array(read_if_there(self._path), str(self._path))

    def _keep_private(self) -> None:
        home = self._driver.homes.main
        try:
            if not kernel.is_mount_point(home):
                kernel.mount(str(home), home, "none", kernel.MS_BIND)
            kernel.mount("", home, "none", kernel.MS_PRIVATE)
        except OSError as error:
            raise mount_error(error, home) from error

    def _release(self, storage_lock: LockedFile) -> None:
        """Remove the binding if nothing is mounted any more; a file system of its own at this place stays."""
        home = self._driver.homes.main
        if self.list() or not kernel.is_mount_point(home) or home.stat().st_dev != home.parent.stat().st_dev:
            return
        # Running services see the new token and bind again before they mount.
        storage_lock.write_token()
        try:
            kernel.unmount(home)
        except OSError as error:
            if error.errno != errno.EBUSY or kernel.mounts_below(home):
                _log.debug("the binding of the driver's directory stays", path=str(home), reason=str(error))
            else:
                kernel.unmount(home, kernel.MNT_DETACH)  # busy with open files only, of a pull perhaps

    def _renew(self, path: Path) -> None:
        """Put a new directory in the place of the mount point, so that whoever still has it open does not use it.

        In the run root there is nothing else beside it, and it goes.
        """
        if not path.is_relative_to(self._driver.homes.main):
            remove_tree(path.parent)
            return
        fresh = path.with_name(f"{path.name}.1")
        try:
            if path.is_dir():
                make_directory(fresh, 0o700)
                fresh.rename(path)
        except OSError as error:  # a full disk is no reason to keep a container that is to make room
            _log.debug("the directory of a mount is left as it is", path=str(path), reason=str(error))


@dataclass(frozen=True, slots=True)
class MountRequest:
    """How somebody wants a container or image mounted. Images are always read-only.

    ``words`` of mount(8) replace those of the container, or the configured ones; ``label`` the recorded SELinux label,
    and both mean nothing to a kernel without SELinux.
    """

    read_only: bool = False
    words: tuple[str, ...] = ()
    label: str = ""


def mount_layer(
    mounts: Mounts,
    lock: LockedFile,
    layers: LayerReader,
    layer_id: str,
    container: ContainerRecord | None,
    request: MountRequest,
) -> MountRecord:
    """Mount the layer of ``container``, writable, or without one an image's, read-only.

    Raises NotInStoreError, MountError, StoreError.
    """
    layer = layers.find(layer_id)
    if layer is None:
        raise NotInStoreError(f"layer {layer_id} is not in the store")
    mappings = container.mappings if container is not None else NO_MAPPINGS
    parent = layers.find(layer.parent or "")
    if parent is None or parent.mappings == mappings or not (mappings.uids and mappings.gids):
        mappings = NO_MAPPINGS  # the files have the owners already that they are to be seen with
    elif not mounts.maps(mappings):
        raise MountError(
            f"the owners of files in layer {layer_id} cannot be mapped by this kernel here",
            "make the container anew: then it gets a copy of the image's files with their owners changed",
        )
    return mounts.mount(lock, layer_id, _how(container, layer.mount_label, mappings, request))


def _how(
    container: ContainerRecord | None, recorded_label: str, mappings: IDMappings, request: MountRequest
) -> MountOptions:
    words = request.words or _recorded_words(container)
    return MountOptions(
        writable=container is not None and not request.read_only,
        words=words,
        context=(request.label or recorded_label) if kernel.has_selinux() else "",
        volatile=container is not None and container.flags.get("Volatile") is True,
        mappings=mappings,
    )


def _recorded_words(container: ContainerRecord | None) -> tuple[str, ...]:
    words = container.flags.get("MountOpts") if container is not None else None
    return tuple(map(str, words)) if isinstance(words, list) else ()


def make_run_root(run_root: Path) -> None:
    """Make the run root, and what is missing above it, for its owner only."""
    with disk_errors(run_root):
        for directory in (*reversed(run_root.parents), run_root):
            if not directory.exists():
                make_directory(directory, 0o700)


def _record(raw: Raw, path: Path) -> MountRecord:
    layer, where, count = raw.get("id"), raw.get("path"), raw.get("count")
    if not isinstance(layer, str) or not isinstance(where, str) or not isinstance(count, int):
        raise StoreCorruptError("an entry is not of id, path and count", str(path))
    return MountRecord(layer, Path(where), count)


def _require_alike(path: Path, how: MountOptions) -> None:
    """Raise MountError if what is mounted already can be written to and must not be, or the reverse."""
    with disk_errors(path):
        is_writable = not os.statvfs(path).f_flag & os.ST_RDONLY
    if is_writable != how.is_writable:
        raise MountError(
            f"{path} is mounted {'writable' if is_writable else 'read-only'} already", "unmount it first, or use force"
        )


def _allow_volatile_again(work: Path) -> None:
    """Overlay refuses a second volatile mount, for fear of a crash in between; who asks for volatile accepts that."""
    with disk_errors(work):
        remove_tree(work / "work/incompat/volatile")
