"""File systems in files, mounted through loop devices; and a disk whose power can be cut at any moment.

A ``CuttableDisk`` is an image file on a file system that can share blocks between files. A cut is a clone of that image
by FICLONE: the kernel stops writes to it for that instant, so a clone is what a real disk would hold had it stopped
then. A copy of an image that is in use would mix several moments.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FICLONE = 0x40049409
MiB = 1 << 20
PAGE = 4096
_PATIENCE_SECONDS = 90  # a busy disk writes slowly, and nothing is said about how fast

MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_MOUNT_OPTIONS = {"ext4": "", "xfs": "nouuid", "btrfs": ""}


def missing_tools(*kinds: str) -> list[str]:
    """The programs that are not here and are needed to make file systems of these kinds."""
    return [MAKERS[kind][0] for kind in kinds if shutil.which(MAKERS[kind][0]) is None]


@contextmanager
def loop_mounted(image: Path, kind: str, point: Path) -> Iterator[Path]:
    """Mount the file system in ``image`` at ``point``, through a loop device that goes with it."""
    point.mkdir(exist_ok=True)
    options = ",".join(option for option in ("loop", _MOUNT_OPTIONS[kind]) if option)
    _run("mount", "-t", kind, "-o", options, str(image), str(point))
    try:
        yield point
    finally:
        _unmount(point)


def _unmount(point: Path) -> None:
    """Unmount; the kernel gives up a loop device whose image lies there a while after its mount has gone."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            _run("umount", str(point))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def make_image(path: Path, kind: str, size: int) -> None:
    """Make a sparse file of ``size`` bytes with an empty file system in it."""
    with path.open("wb") as file:
        file.truncate(size)
    _run(*MAKERS[kind], str(path))


@dataclass(slots=True)
class CuttableDisk:
    """A file system of this kind, whose image lies in ``directory``, below which blocks can be shared."""

    directory: Path
    kind: str
    size: int = 512 * MiB
    cuts: list[Path] = field(default_factory=list)

    @property
    def image(self) -> Path:
        return self.directory / f"{self.kind}.img"

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Make it, empty, and mount it for the time of the body."""
        make_image(self.image, self.kind, self.size)
        with loop_mounted(self.image, self.kind, self.directory / self.kind) as point:
            yield point

    def cut(self) -> Path:
        """Keep the disk as it is at this moment; may be called from any thread, while anybody writes."""
        clone = self.directory / f"{self.kind}-{len(self.cuts)}.img"
        source, target = os.open(self.image, os.O_RDONLY), os.open(clone, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            fcntl.ioctl(target, _FICLONE, source)
        finally:
            os.close(source)
            os.close(target)
        self.cuts.append(clone)
        return clone

    @contextmanager
    def after(self, cut: Path) -> Iterator[Path]:
        """Mount the disk as it was at a cut, writable, as after the power came back. The disk itself is not mounted."""
        with loop_mounted(cut, self.kind, self.directory / f"{self.kind}-after") as point:
            yield point


@contextmanager
def sharing_file_system(directory: Path, size: int) -> Iterator[Path]:
    """Give a directory on a file system of ``size`` bytes that can share blocks between files: XFS, in a file."""
    image = directory / "outer.img"
    make_image(image, "xfs", size)
    with loop_mounted(image, "xfs", directory / "outer") as point:
        yield point


def fill_up(filler: Path, room: int) -> None:
    """Fill a file system up with the file ``filler``, but for ``room`` pages."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            pass
    os.truncate(filler, max(0, filler.stat().st_size - room * PAGE))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
