"""Where the stores of the runs lie, so that no run meets what an earlier one has left on its file system.

ext4 passes over inodes that were deleted in the last minutes, and takes ten times as long to make files meanwhile. So
either every run has a new directory, and all are deleted after the last run; or every run has a new file system, made
again and again in one image file, and nothing is ever deleted.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_MAKERS = {
    # All inode tables at once: the kernel would write them during the runs.
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}
KINDS = tuple(_MAKERS)


class Ground(Protocol):
    """Gives each run its place."""

    def place(self) -> AbstractContextManager[Path]:
        """Give an empty directory for one run, which is of no use after the block."""
        ...

    @property
    def says(self) -> str: ...


@dataclass(slots=True)
class Directories:
    """New directories below ``root``; whoever made that deletes it in the end."""

    root: Path
    _count: int = 0

    @property
    def says(self) -> str:
        kind = subprocess.run(["stat", "-fc", "%T", self.root], capture_output=True, text=True, check=True)
        return kind.stdout.strip().replace("ext2/ext3", "ext4")

    @contextmanager
    def place(self) -> Iterator[Path]:
        self._count += 1
        directory = self.root / str(self._count)
        directory.mkdir()
        yield directory


@dataclass(slots=True)
class LoopFilesystem:
    """A file system of ``kind`` in a file of ``size`` bytes below ``root``, made anew for every run; takes root.

    ``prefix`` is put before commands to run them in the mount namespace of the peers, where it is mounted as well.
    """

    root: Path
    kind: str
    size: int
    prefix: tuple[str, ...] = field(default_factory=tuple)

    @property
    def says(self) -> str:
        return f"{self.kind} on a loop device, made anew for each run"

    @contextmanager
    def place(self) -> Iterator[Path]:
        image, directory = self.root / "image", self.root / "m"
        if not image.exists():
            directory.mkdir()
            with image.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.size)
        _run(*_MAKERS[self.kind], str(image))
        device = _run("losetup", "--find", "--show", "--direct-io=on", str(image))
        try:
            _run("mount", "-t", self.kind, device, str(directory))
            try:
                if self.prefix:
                    _run(*self.prefix, "mount", "-t", self.kind, device, str(directory))
                store = directory / "s"
                store.mkdir()
                yield store
            finally:
                for prefix in (self.prefix, ()) if self.prefix else ((),):
                    _unmount(prefix, directory)
        finally:
            _run("losetup", "--detach", device)


def _unmount(prefix: tuple[str, ...], directory: Path) -> None:
    """Unmount what peers have left there, too; processes that have just ended may keep it busy for a moment."""
    command = [*prefix, "umount", "-R", str(directory)]
    for _ in range(50):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    _run(*command)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
