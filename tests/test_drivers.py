"""What every storage driver has to do, in one suite that all of them go through (store/driver)."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.errors import DiffIDMismatchError
from asyncpull.store.config import StoreConfig
from asyncpull.store.store import Store
from tests.support import images, tars
from tests.support.loops import loop_mounted
from tests.support.pulls import PATIENCE, bench_at
from tests.support.trees import list_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncpull.store.views import LayerRecord
    from tests.support.pulls import Bench

pytestmark = pytest.mark.root

FUSE = shutil.which("fuse-overlayfs") or ""

BASE = tars.tar(
    [
        tars.directory("etc"),
        tars.file("etc/kept", b"kept"),
        tars.file("etc/gone", b"gone"),
        tars.directory("old"),
        tars.file("old/file", b"old"),
        tars.file("one", b"two names", 0o640).with_(uid=1000, gid=1001),
        tars.hard_link("two", "one", 0o640).with_(uid=1000, gid=1001),
        tars.symlink("link", "etc/kept"),
    ]
)
CHANGES = tars.tar(
    [
        tars.directory("etc"),
        tars.whiteout("etc/gone"),
        tars.file("etc/new", b"new"),
        tars.whiteout("old"),
        tars.directory("old"),
        tars.file("old/new", b"new"),
        tars.file("implied/file", b"implied"),
    ]
)
EMPTY = tars.tar([])
DIES = """
import os, sys
from pathlib import Path
from asyncpull.store.config import StoreConfig
from asyncpull.store.driver.opening import open_driver
from asyncpull.store.tempdirs import TempDir

graph_root, run_root, name, program, parent = sys.argv[1:]
driver = open_driver(StoreConfig(Path(graph_root), Path(run_root), name, mount_program=program))
room = TempDir.create(driver.homes.staging_root(for_images=False))
(driver.stage(room.addition(), None) / "read-only").mkdir(0o500)
driver.stage(room.addition(), driver.directory(parent))
os._exit(0)
"""
SHOWN = {"etc", "etc/kept", "etc/new", "old", "old/new", "one", "two", "link", "implied", "implied/file"}


@pytest.fixture(params=["overlay", "fuse-overlayfs", "vfs", "btrfs"])
def driver(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    if chosen == "fuse-overlayfs" and not FUSE:
        pytest.skip("no fuse-overlayfs")
    return chosen


@pytest.fixture
def home(driver: str, tmp_path: Path) -> Iterator[Path]:
    """Where a store can be: of btrfs only on btrfs."""
    if driver != "btrfs":
        yield tmp_path
        return
    with loop_mounted(tmp_path / "disk", "btrfs") as disk:
        yield disk


@pytest.fixture
async def bench(driver: str, home: Path) -> AsyncIterator[Bench]:
    name, program = ("overlay", FUSE) if driver == "fuse-overlayfs" else (driver, "")
    async with bench_at(home, name, mount_program=program) as made:
        yield made


def trees_of(bench: Bench) -> set[str]:
    """The names of all directories that could be taken for layers."""
    driver = bench.store.config.driver
    where = bench.root / driver / {"vfs": "dir", "btrfs": "subvolumes"}.get(driver, ".")
    return {path.name for path in where.iterdir() if len(path.name) == 64}


def temporary(bench: Bench) -> list[str]:
    places = (
        bench.root / bench.store.config.driver / "tempdirs",
        bench.root / f"{bench.store.config.driver}-layers/tmp",
    )
    return [path.name for place in places if place.is_dir() for path in place.iterdir()]


async def archive(bench: Bench, layer: LayerRecord | str) -> bytes:
    return b"".join([piece async for piece in bench.store.export(layer)])


async def test_an_image_is_what_its_layers_make_of_it(bench: Bench) -> None:
    pulled = await bench.puller.pull(bench.offer(images.image([BASE, CHANGES])))
    async with bench.store.mounted(pulled.id) as path:
        shown = list_tree(path)
        assert set(shown) - {"."} == SHOWN
        assert (path / "old/new").read_bytes() == b"new"
        assert (shown["one"].uid, shown["one"].gid, shown["one"].mode & 0o7777) == (1000, 1001, 0o640)
        assert (path / "one").stat().st_ino == (path / "two").stat().st_ino
        assert shown["etc/kept"].mtime_ns == tars.DAY_ONE
        assert [record.count for record in await bench.store.mounts()] == [1]
    assert await bench.store.mounts() == []
    assert kernel.mounts_below(bench.root) == []
    assert (await bench.store.check()).findings == ()


async def test_what_is_pulled_can_be_given_back_bit_by_bit(bench: Bench) -> None:
    pulled = await bench.puller.pull(bench.offer(images.image([BASE, CHANGES, EMPTY])))
    layers = [await bench.store.layer(layer.id) for layer in pulled.layers]
    assert [await archive(bench, layer) for layer in layers] == [BASE, CHANGES, EMPTY]


async def test_the_same_layer_in_several_places(bench: Bench) -> None:
    """Each one is made on the one below it, and the blob comes once: neither waits for the other for ever."""
    target = images.image([BASE, EMPTY, CHANGES, EMPTY, BASE, EMPTY])
    async with asyncio.timeout(PATIENCE):
        pulled = await bench.puller.pull(bench.offer(target))
    assert pulled.bytes_fetched == sum(
        len(blob.data) for blob in {blob.digest: blob for blob in target.layers}.values()
    )
    async with bench.store.mounted(pulled.id) as path:
        assert (path / "etc/gone").read_bytes() == b"gone"
        assert (path / "etc/new").read_bytes() == b"new"
    assert (await bench.store.check()).findings == ()


async def test_a_layer_on_another_parent_is_not_fetched(bench: Bench) -> None:
    other = tars.tar([tars.directory("etc"), tars.file("etc/other", b"other")])
    await bench.puller.pull(bench.offer(images.image([BASE, CHANGES]), "1"))
    pulled = await bench.puller.pull(bench.offer(images.image([BASE, other, CHANGES]), "2"))
    assert [layer.reused for layer in pulled.layers] == [True, False, True]
    async with bench.store.mounted(pulled.id) as path:
        assert {each.name for each in (path / "etc").iterdir()} == {"kept", "other", "new"}
    assert (await bench.store.check()).findings == ()


async def test_a_damaged_layer_is_not_copied(bench: Bench) -> None:
    if bench.store.is_layered:
        pytest.skip("whole trees only: others are copied as they are, and checked when they are exported")
    first = await bench.puller.pull(bench.offer(images.image([BASE, CHANGES]), "1"))
    (bench.store.diff_path(first.layers[1].id) / "etc/new").write_bytes(b"bad")
    pulled = await bench.puller.pull(bench.offer(images.image([CHANGES]), "2"))
    assert [layer.reused for layer in pulled.layers] == [False]
    assert (bench.store.diff_path(pulled.layers[0].id) / "etc/new").read_bytes() == b"new"


async def test_pulls_that_share_layers_at_the_same_time(bench: Bench) -> None:
    tops = [tars.tar([tars.file(f"top{number}", b"x")]) for number in range(4)]
    references = [bench.offer(images.image([BASE, CHANGES, top]), str(number)) for number, top in enumerate(tops)]
    pulled = await asyncio.gather(*(bench.puller.pull(reference) for reference in references))
    assert len(trees_of(bench)) == len(await bench.store.layers()) == 2 + len(tops)
    for number, image in enumerate(pulled):
        async with bench.store.mounted(image.id) as path:
            assert {each.name for each in path.glob("top*")} == {f"top{number}"}
    assert temporary(bench) == []


async def test_a_container_writes_for_itself_alone(bench: Bench) -> None:
    pulled = await bench.puller.pull(bench.offer(images.image([BASE, CHANGES])))
    before = list_tree(bench.store.diff_path(pulled.layers[-1].id))
    one, other = [await bench.store.create_container(pulled.id) for _ in range(2)]
    async with bench.store.mounted(one) as path:
        (path / "etc/kept").write_bytes(b"mine")
        (path / "etc/new").unlink()
        (path / "written").write_bytes(b"x")
    async with bench.store.mounted(other) as path:
        assert set(list_tree(path)) - {"."} == SHOWN
        assert (path / "etc/kept").read_bytes() == b"kept"
    async with bench.store.mounted(one) as path:
        assert (path / "etc/kept").read_bytes() == b"mine"
        assert set(list_tree(path)) - {"."} == SHOWN - {"etc/new"} | {"written"}
    assert list_tree(bench.store.diff_path(pulled.layers[-1].id)) == before
    changes = {change.path for change in await bench.store.changes(one)}
    assert changes == {b"etc", b"etc/kept", b"etc/new", b"written"}


async def test_removal_leaves_nothing_but_what_others_need(bench: Bench) -> None:
    first = await bench.puller.pull(bench.offer(images.image([BASE, CHANGES]), "1"))
    second = await bench.puller.pull(bench.offer(images.image([BASE, EMPTY]), "2"))
    container = await bench.store.create_container(first.id)
    await bench.store.remove_container(container)
    await bench.store.remove_image(first.id)
    assert trees_of(bench) == {layer.id for layer in second.layers}
    async with bench.store.mounted(second.id) as path:
        assert (path / "etc/gone").read_bytes() == b"gone"
    await bench.store.remove_image(second.id)
    assert trees_of(bench) == set()
    assert temporary(bench) == []


async def test_a_failure_of_the_top_layer_leaves_no_layer(bench: Bench) -> None:
    await bench.puller.pull(bench.offer(images.image([BASE]), "1"))
    wrong = images.image([BASE, CHANGES, EMPTY], diff_ids=[images.sha256(data) for data in (BASE, CHANGES, b"other")])
    before = await bench.listed()
    with pytest.raises(DiffIDMismatchError):
        await bench.puller.pull(bench.offer(wrong, "2"))
    assert await bench.listed() == before
    assert temporary(bench) == []


async def test_what_a_dead_program_staged_is_cleared_away(bench: Bench) -> None:
    """A child stages a layer on a layer, with a directory in it that nobody may write to, and dies."""
    pulled = await bench.puller.pull(bench.offer(images.image([BASE])))
    config = bench.store.config
    program = [sys.executable, "-c", DIES, *map(str, (config.graph_root, config.run_root, config.driver))]
    child = await asyncio.create_subprocess_exec(*program, config.mount_program, pulled.layers[0].id)
    assert await child.wait() == 0
    assert temporary(bench)
    again = StoreConfig(config.graph_root, config.run_root, config.driver, mount_program=config.mount_program)
    async with Store.open(again) as opened:
        assert len(await opened.layers()) == 1
    assert temporary(bench) == []
    assert trees_of(bench) == {pulled.layers[0].id}


async def test_layers_that_another_store_lends(bench: Bench, driver: str, home: Path) -> None:
    if driver not in ("overlay", "vfs"):
        pytest.skip("this driver uses no other stores")
    top = tars.tar([tars.file("top", b"top")])
    await bench.puller.pull(bench.offer(images.image([BASE, CHANGES])))
    before = list_tree(bench.root)
    async with bench_at(home / "own", driver, additional_roots=(bench.root,)) as own:
        pulled = await own.puller.pull(own.offer(images.image([BASE, CHANGES, top])))
        assert [layer.reused for layer in pulled.layers] == [True, True, False]
        container = await own.store.create_container(pulled.id)
        async with own.store.mounted(container) as path:
            assert set(list_tree(path)) - {"."} == SHOWN | {"top"}
            (path / "etc/kept").write_bytes(b"mine")
        await own.store.remove_container(container)
        await own.store.remove_image(pulled.id)
        assert trees_of(own) == set()
    assert list_tree(bench.root) == before


async def test_images_in_a_root_of_their_own(driver: str, home: Path) -> None:
    if driver not in ("overlay", "vfs"):
        pytest.skip("this driver keeps images and containers together")
    (home / "images").mkdir()
    async with bench_at(home, driver, image_root=home / "images") as bench:
        pulled = await bench.puller.pull(bench.offer(images.image([BASE, CHANGES])))
        assert trees_of(bench) == set()
        container = await bench.store.create_container(pulled.id)
        assert trees_of(bench) == {container.layer}
        async with bench.store.mounted(container) as path:
            assert set(list_tree(path)) - {"."} == SHOWN
        await bench.store.remove_container(container)
        await bench.store.remove_image(pulled.id)
        assert trees_of(bench) == set()
        assert not list((home / "images").rglob("*/etc/kept"))


async def test_a_subvolume_that_was_made_in_a_container_goes_with_it(bench: Bench, driver: str) -> None:
    if driver != "btrfs":
        pytest.skip("only btrfs has subvolumes")
    pulled = await bench.puller.pull(bench.offer(images.image([BASE])))
    container = await bench.store.create_container(pulled.id)
    async with bench.store.mounted(container) as path:
        nested = path / "etc" / "nested"
        subprocess.run(["btrfs", "subvolume", "create", nested], check=True, capture_output=True)
        (nested / "file").write_bytes(b"x")
        subprocess.run(["btrfs", "subvolume", "create", nested / "deeper"], check=True, capture_output=True)
    await bench.store.remove_container(container)
    assert trees_of(bench) == {pulled.layers[0].id}
    assert temporary(bench) == []
