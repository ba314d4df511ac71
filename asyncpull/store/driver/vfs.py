"""The vfs driver: a layer is a directory, which begins as a copy of its parent's (format, section 9).

It needs nothing of the kernel. Where the file system can, the copies share their content (reflinks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.store.driver.complete import BASE_MODE, CompleteTreeDriver
from asyncpull.store.files import make_directory

if TYPE_CHECKING:
    from pathlib import Path


class VfsDriver(CompleteTreeDriver):
    """Layers below ``<graph root>/vfs/dir``."""

    name = "vfs"
    trees = "dir"
    copies_parent = True

    def stage(self, directory: Path, parent: Path | None) -> Path:
        """Make an empty directory, which a copy of the parent is to fill and describe. Raises OSError."""
        make_directory(directory, BASE_MODE if parent is None else 0o700)
        return directory
