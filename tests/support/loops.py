"""A file system of a certain kind in a file, mounted for a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SMALLEST = {"btrfs": 128 << 20, "xfs": 320 << 20, "ext4": 16 << 20}


@contextmanager
def loop_mounted(directory: Path, kind: str) -> Iterator[Path]:
    """Mount a new file system at ``directory``, which is made; unmounted, and its image removed, in the end."""
    if os.geteuid() != 0:
        pytest.skip("mounts a loop device, which takes root")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"no mkfs.{kind}")
    image = directory.with_name(f"{directory.name}.{kind}")
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(_SMALLEST[kind])
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, directory], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a loop device here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-R", directory], check=True)
        image.unlink()
