"""The quick check: silent on a sound store, and on what others do meanwhile; what has no record is garbage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.check.findings import Damage
from asyncpull.store.store import Store
from tests.store.made import commit_image, everything_in, leftovers

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig

pytestmark = pytest.mark.root

BASE, TOP, OTHER = {"etc/a": b"a"}, {"etc/b": b"b"}, {"data/x": b"x"}


async def test_a_sound_store_is_clean_and_unchanged(store: Store) -> None:
    image = await commit_image(store, "localhost/a:1", BASE, TOP)
    await commit_image(store, "localhost/b:1", BASE, OTHER, remark="b")
    await store.create_container(image, "c")
    before = everything_in(store.config.graph_root)

    report = await store.check(full=False)

    assert report.findings == ()
    assert report.is_clean
    assert (report.layers, report.images, report.containers) == (4, 2, 1)
    assert everything_in(store.config.graph_root) == before


async def test_an_empty_store_is_clean(store: Store) -> None:
    assert (await store.check(full=False)).is_clean
    assert await store.gc() == ()


async def test_what_others_do_meanwhile_is_no_damage(config: StoreConfig) -> None:
    async with Store.open(config) as one, Store.open(config) as other:

        async def come_and_go() -> None:
            for number in range(6):
                image = await commit_image(other, "localhost/a:1", BASE, {f"file{number}": b"x"}, remark=str(number))
                container = await other.create_container(image, "c")
                await other.remove_container(container)
                await other.remove_image(image.id, force=True)

        busy = asyncio.ensure_future(come_and_go())
        reports = []
        while not busy.done():
            reports.append(await one.check(full=False, max_age_seconds=0))
        await busy
        reports.append(await one.check(full=False, max_age_seconds=0))

    assert [finding for report in reports for finding in report.findings] == []


async def test_garbage_is_found_and_removed(store: Store) -> None:
    image = await commit_image(store, "localhost/a:1", BASE, TOP)
    root, stray = store.config.graph_root, "f" * 64
    before = everything_in(root)
    (root / "overlay" / stray / "diff").mkdir(parents=True)
    (root / "overlay/l/AAAAAAAAAAAAAAAAAAAAAAAAAA").symlink_to(f"../{'e' * 64}/diff")
    (root / "overlay-layers" / f"{stray}.tar-split.gz").write_bytes(b"x")
    (root / "overlay-images" / stray).mkdir()
    (root / "overlay-containers" / stray / "userdata").mkdir(parents=True)
    (root / "overlay-images/.tmp-images.json7").write_bytes(b"[")
    (root / "overlay/tempdirs/temp-dir-7/0-addition").mkdir(parents=True)
    (root / "overlay/tempdirs/lock-7").touch()
    (root / "asyncpull/locks/sha256-00").touch()
    dirty = everything_in(root)

    seen = await store.gc(dry_run=True)
    assert everything_in(root) == dirty
    removed = await store.gc()

    assert [finding.damage for finding in removed] == [finding.damage for finding in seen]
    assert {finding.damage for finding in seen} == {
        Damage.STRAY_TREE,
        Damage.STRAY_LAYER_DATA,
        Damage.STRAY_IMAGE_DATA,
        Damage.STRAY_CONTAINER_DATA,
        Damage.ABANDONED,
        Damage.STRAY_SHORT_NAME,
    }
    assert len(seen) == 8
    assert all(finding.is_repaired for finding in removed)
    assert everything_in(root) == before
    assert leftovers(root) == []
    assert (await store.images())[0].id == image.id
    assert (await store.check(full=False)).is_clean


async def test_layers_that_nobody_needs_may_be_young(store: Store) -> None:
    image = await commit_image(store, "localhost/a:1", BASE, TOP)
    raw = store.config.graph_root / "overlay-images/images.json"
    raw.write_bytes(b"[]")

    assert [each.damage for each in (await store.check(full=False)).findings] == []
    assert {each.damage for each in await store.gc()} == {Damage.STRAY_IMAGE_DATA}
    found = (await store.check(full=False, max_age_seconds=0)).findings
    assert [each.damage for each in found] == [Damage.LAYER_UNREFERENCED, Damage.LAYER_UNREFERENCED]
    assert len(await store.gc(max_age_seconds=0)) == 2
    assert await store.layers() == []
    assert image.layer is not None
    assert not store.diff_path(image.layer).exists()


async def test_counts_of_mounts_that_are_gone(store: Store) -> None:
    image = await commit_image(store, "localhost/a:1", BASE)
    path = await store.mount(image)
    counts = store.config.run_root / "overlay-layers/mountpoints.json"
    kept = counts.read_bytes()
    assert await store.gc() == ()
    await store.unmount(image)
    counts.write_bytes(kept)

    assert (await store.check(full=False)).is_clean, "the next mount puts it right"
    (finding,) = await store.gc()

    assert (finding.damage, finding.path, finding.is_repaired) == (Damage.MOUNT_COUNT_STALE, str(path), True)
    assert await store.mounts() == []
