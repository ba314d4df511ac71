"""After ``pull`` has returned, the image survives a power cut; at every other moment the store is whole.

The store lies on a disk whose power is cut at random moments of pulls and removals (tests/support/disks.py). Then each
cut is mounted, the store opened and checked. Every image of which a pull had said before the cut that it is there must
be there, and every image that is listed, whatever the moment, must be complete to the last byte. With
ASYNCPULL_TEST_FULL=1 there are 110 cuts over three file systems and three drivers, else a few.

What is claimed is claimed for the default only: the option ``sync = "none"`` gives the disk no order.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.config import StoreConfig
from asyncpull.store.files import sync_file
from asyncpull.store.store import Store
from asyncpull.tarstream import rebuild_layer
from tests.support.disks import CuttableDisk, MiB, missing_tools, sharing_file_system
from tests.support.images import image, noise
from tests.support.pulls import Bench, bench_at
from tests.support.tars import directory, file, symlink, tar

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.support.images import Image

pytestmark = pytest.mark.root

FULL = os.environ.get("ASYNCPULL_TEST_FULL") == "1"
KINDS = ("ext4", "xfs", "btrfs")
CUTS = 22 if FULL else 3
LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """The disk after a cut, and the images that pulls had promised before it."""

    disk: Path
    promised: frozenset[str]


@pytest.fixture
def outer(place: Path) -> Path:
    missing = missing_tools(*KINDS)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return place


def _layer(number: int) -> bytes:
    names = [f"d{number}/{each}" for each in range(200)]
    return tar(
        [
            directory(f"d{number}"),
            *(file(name, noise(number, 3_000)) for name in names),
            file(f"d{number}/large", noise(number + 1, 2_000_000)),
            symlink(f"d{number}/link", "large"),
        ]
    )


def _image(number: int) -> Image:
    return image([_layer(0), *(_layer(10 * number + each) for each in range(1, 4))])


@pytest.mark.parametrize(
    ("kind", "driver"),
    [("ext4", "overlay"), ("xfs", "overlay"), ("btrfs", "overlay"), ("xfs", "vfs"), ("btrfs", "btrfs")],
)
async def test_every_moment_leaves_a_store_that_is_whole(outer: Path, kind: str, driver: str) -> None:
    chance = random.Random(f"{kind} {driver} {CUTS}")
    with sharing_file_system(outer, 4096 * MiB) as shared:
        disk = CuttableDisk(shared, kind)
        with disk.mounted() as point:
            async with bench_at(point, driver) as bench:
                moments = await _cut_while_pulling(bench, disk, chance)
            async with _opened(point, driver) as store:
                at_the_end = frozenset(record.id for record in await store.images())
        assert len(moments) == CUTS
        for moment in moments:
            with disk.after(moment.disk) as point:
                await _is_whole(point, driver, moment.promised)
        with disk.after(disk.image) as point:
            await _is_whole(point, driver, at_the_end)


async def _cut_while_pulling(bench: Bench, disk: CuttableDisk, chance: random.Random) -> list[Moment]:
    """Pull images and remove old ones, over and over, until the power was cut often enough."""
    moments: list[Moment] = []
    promised: list[str] = []

    async def pull_and_remove() -> None:
        number = 0
        while True:
            number += 1
            pulled = await bench.puller.pull(bench.offer(_image(number % 7), str(number % 7)))
            promised.append(pulled.id)
            if len(promised) > 3:
                oldest = promised.pop(0)
                if oldest not in promised:
                    await bench.store.remove_image(oldest, force=True)

    work = asyncio.create_task(pull_and_remove())
    try:
        while len(moments) < CUTS:
            await asyncio.wait((work,), timeout=chance.uniform(0, LONGEST_PAUSE_SECONDS))
            if work.done():
                work.result()
            before = frozenset(promised)
            cut = await asyncio.to_thread(disk.cut)
            # What was removed while the disk was cut may be there or not.
            moments.append(Moment(cut, before & frozenset(promised)))
    finally:
        work.cancel()
        await asyncio.wait((work,))
    return moments


def _opened(point: Path, driver: str) -> AbstractAsyncContextManager[Store]:
    return Store.open(StoreConfig(point / "graph", point / "run", driver))


async def _is_whole(point: Path, driver: str, promised: frozenset[str]) -> None:
    """The store opens, is sound, has what was promised; every layer is to the byte what its diff ID says."""
    async with _opened(point, driver) as store:
        images = {record.id: record for record in await store.images()}
        layers = {layer.id: layer for layer in await store.layers()}
        report = await store.check()
        assert report.findings == ()
        assert promised <= images.keys()
        for record in images.values():
            assert record.layer in layers
            assert hashlib.sha256(await store.big_data(record, f"sha256:{record.id}")).hexdigest() == record.id
        for layer in layers.values():
            archive = hashlib.sha256()
            for piece in rebuild_layer(store.tar_split_path(layer.id), [store.diff_path(layer.id)]):
                archive.update(piece)
            assert f"sha256:{archive.hexdigest()}" == layer.diff_digest


async def test_a_cut_loses_what_was_not_synced(outer: Path) -> None:
    """The test above can fail: what nobody synced is not on a disk that was cut, and what was synced is."""
    with sharing_file_system(outer, 1024 * MiB) as shared:
        disk = CuttableDisk(shared, "ext4", 128 * MiB)
        with disk.mounted() as point:
            (point / "synced").write_bytes(b"kept")
            sync_file(point / "synced")
            sync_file(point)
            (point / "hoped").write_bytes(b"lost")
            cut = disk.cut()
        with disk.after(cut) as point:
            assert (point / "synced").read_bytes() == b"kept"
            assert not (point / "hoped").exists()
