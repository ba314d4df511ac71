"""What is staged goes to the disk meanwhile, and a disk that loses it is told of before anything is committed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import StoreError
from asyncpull.store.store import Store
from tests.store.made import config_at
from tests.support.disks import fill_up, loop_mounted, make_image, missing_tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing_tools("ext4")), reason="mkfs.ext4 is not installed"),
    pytest.mark.skipif(shutil.which("filefrag") is None, reason="filefrag is not installed"),
]

MiB = 1 << 20
DATA = bytes(range(256)) * (4 * MiB // 256)


def is_on_disk(path: Path) -> bool:
    """Whether ext4 has decided where on the disk the file is, which it puts off until it writes it out."""
    told = subprocess.run(["filefrag", "-v", str(path)], check=True, capture_output=True, text=True).stdout
    return "delalloc" not in told


async def write(store: Store, file: Path) -> None:
    async with store.writing_out():
        file.write_bytes(DATA)
        await asyncio.sleep(1)


async def test_what_is_staged_is_on_the_disk_before_the_commit(place: Path) -> None:
    make_image(place / "image", "ext4", 64 * MiB)
    with loop_mounted(place / "image", "ext4", place / "g"):
        async with Store.open(config_at(place)) as store, store.stage() as staging:
            (layer,) = [await store.new_layer(staging, None)]
            file = layer.diff / "file"
            async with store.writing_out():
                file.write_bytes(DATA)
                assert not is_on_disk(file)
                while not is_on_disk(file):
                    await asyncio.sleep(0.05)


async def test_a_disk_that_loses_what_is_staged_is_told_of(place: Path) -> None:
    """An ext4 in a sparse file on a tmpfs that is full: what is written seems to be kept until it is written out."""
    below = place / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", str(below)], check=True)
    make_image(below / "image", "ext4", 64 * MiB)
    with loop_mounted(below / "image", "ext4", place / "g"):
        async with Store.open(config_at(place)) as store, store.stage() as staging:
            layer = await store.new_layer(staging, None)
            fill_up(below / "filler", 0)
            with pytest.raises(StoreError):
                await write(store, layer.diff / "file")
    # A process of somebody else that began meanwhile may keep the mount, in a namespace of its own: the same image
    # would be mounted from there again, read-only since the error. So what is on the disk is looked at in a copy.
    after = place / "after"
    subprocess.run(["cp", "--sparse=always", str(below / "image"), str(after)], check=True)
    # The kernel has noted in it that there was an error, and would let nobody write there.
    mended = subprocess.run(["e2fsck", "-f", "-y", str(after)], check=False, capture_output=True)
    assert mended.returncode in (0, 1)
    with loop_mounted(after, "ext4", place / "g"):
        async with Store.open(config_at(place)) as store:
            assert await store.layers() == []
            assert await store.images() == []
