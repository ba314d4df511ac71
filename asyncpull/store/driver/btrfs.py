"""The btrfs driver: a layer is a subvolume, which begins as a snapshot of its parent's.

A snapshot is made in one moment and costs nothing, however large the parent is. Staged subvolumes lie in
``btrfs/tempdirs``, where no program looks for layers; a subvolume can be renamed like a directory. It is removed by an
ioctl, also from temporary directories, and file by file where a user may not do that (``tree/removal``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.errors import ConfigurationError, NotInStoreError
from asyncpull.store.driver.complete import BASE_MODE, CompleteTreeDriver
from asyncpull.store.files import disk_errors

if TYPE_CHECKING:
    from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BtrfsDriver(CompleteTreeDriver):
    """Layers below ``<graph root>/btrfs/subvolumes``."""

    name = "btrfs"
    trees = "subvolumes"
    copies_parent = False

    def prepare(self) -> None:
        """Make the directories if they are missing. Raises ConfigurationError where the file system is another."""
        existing = next(path for path in (self.homes.main, *self.homes.main.parents) if path.exists())
        with disk_errors(existing):
            is_btrfs = kernel.file_system_magic(existing) == kernel.BTRFS_MAGIC
        if not is_btrfs:
            raise ConfigurationError(
                f"{self.homes.main} is not on a btrfs file system, which the driver btrfs needs",
                "choose another driver with --storage-driver, or another store with --root",
            )
        super().prepare()

    def stage(self, directory: Path, parent: Path | None) -> Path:
        """Make a subvolume: an empty one, or a snapshot of the parent's.

        Raises OSError, NotInStoreError if the parent was removed at that moment.
        """
        above = os.open(directory.parent, _OPEN)
        try:
            if parent is None:
                kernel.create_subvolume(above, directory.name)
                directory.chmod(BASE_MODE)
            else:
                _snapshot(parent, above, directory.name)
        finally:
            os.close(above)
        return directory


def _snapshot(parent: Path, above: int, name: str) -> None:
    """Snapshot a layer that may be removed meanwhile: then it was moved away first, and nothing is at its path."""
    try:
        source = os.open(parent, _OPEN)
    except FileNotFoundError as error:
        raise NotInStoreError(f"layer {parent.name} was removed from the store meanwhile") from error
    try:
        kernel.snapshot_subvolume(source, above, name)
        try:
            is_there = os.path.samestat(os.fstat(source), parent.lstat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise NotInStoreError(f"layer {parent.name} was removed from the store meanwhile")
    finally:
        os.close(source)
