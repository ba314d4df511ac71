"""podman on an empty store of its own, for commands that open a store although they need none, such as a login."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def podman_store(share: Path | None = None) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield a directory, below ``share`` if podman sees only what is there, and the command; the store goes with it.

    podman takes no run root with a long path, and of the drivers vfs alone mounts nothing.
    """
    directory = Path(tempfile.mkdtemp(prefix="p", dir=share))
    try:
        roots = (f"--root={directory}/root", f"--runroot={directory}/run")
        yield directory, ("podman", *roots, "--storage-driver=vfs")
    finally:
        shutil.rmtree(directory)
