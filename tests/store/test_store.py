"""Opening a store, what one finds in it, and who may do what at the same time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull.errors import NotInStoreError, StoreCorruptError, StoreError, StoreWriteError
from asyncpull.lockfile import LockMode, locked
from asyncpull.spec.digest import Digest
from asyncpull.store.store import Store
from tests.store.made import GOLDEN, MadeLayer, commit_image, config_at, leftovers
from tests.support.filelocks import waiters

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig

BASE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}


# ------------------------------------------------------------------------------------------------- opening


async def test_a_new_store_has_podmans_modes(place: Path) -> None:
    before = os.umask(0o077)
    try:
        async with Store.open(config_at(place)) as store:
            await commit_image(store, None, BASE)
    finally:
        os.umask(before)
    parts = ["", "overlay", "overlay/l", "overlay-layers", "overlay-images", "overlay-containers", "asyncpull"]
    modes = {part: oct((place / "g" / part).stat().st_mode & 0o7777) for part in parts}
    assert modes == dict.fromkeys(parts, "0o700") | {"overlay": "0o755", "overlay/l": "0o755"}
    assert store.spool_root == place / "g/asyncpull/spool"
    assert store.spool_root.stat().st_mode & 0o7777 == 0o700
    assert not (place / "r").exists()  # needed only by who mounts


async def test_roots_that_lie_deep(place: Path) -> None:
    async with Store.open(root=place / "a/b/g", run_root=place / "c/r") as store:
        await store.mounts()
    assert (place / "a").stat().st_mode & 0o7777 == 0o700
    assert (place / "c/r/overlay-layers").stat().st_mode & 0o7777 == 0o700


async def test_given_roots_win_over_a_configuration(place: Path) -> None:
    async with Store.open(config_at(place), root=place / "other") as store:
        assert store.config.graph_root == place / "other"
        assert store.config.run_root == place / "r"


async def test_a_root_that_is_a_file(place: Path) -> None:
    (place / "g").touch()
    with pytest.raises(StoreError, match="/g"):
        async with Store.open(config_at(place)):
            pass


@pytest.mark.root
async def test_an_unwritable_root(place: Path) -> None:
    """A read-only file system, which stops root too."""
    (place / "g").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place / "g")], check=True)
    with pytest.raises(StoreWriteError) as caught:
        async with Store.open(config_at(place)):
            pass
    assert str(place / "g") in str(caught.value)
    assert caught.value.hint


async def test_a_closed_store_says_so(config: StoreConfig) -> None:
    async with Store.open(config) as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.images()


@pytest.mark.parametrize("noun", ["layers", "images", "containers"])
async def test_broken_records_are_reported_and_nothing_is_changed(store: Store, config: StoreConfig, noun: str) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    path = config.graph_root / f"overlay-{noun}/{noun}.json"
    path.write_bytes(b'[{"id":"')
    with pytest.raises(StoreCorruptError) as caught:
        await getattr(store, noun)()
    assert str(path) in str(caught.value)
    with pytest.raises(StoreCorruptError):
        await store.create_container(record)
    with pytest.raises(StoreCorruptError):
        await store.remove_image(record)
    assert path.read_bytes() == b'[{"id":"'
    assert leftovers(config.graph_root) == []


# -------------------------------------------------------------------------------------------------- looking


async def test_podmans_own_records(store: Store, config: StoreConfig) -> None:
    for noun in ("layers", "images", "containers"):
        for name in (f"{noun}.json", f"volatile-{noun}.json"):
            if (GOLDEN / name).exists():
                (config.graph_root / f"overlay-{noun}" / name).write_bytes((GOLDEN / name).read_bytes())
    layers, (image,), containers = await store.layers(), await store.images(), await store.containers()
    assert [layer.volatile for layer in layers] == [False] * 4 + [True]
    assert (await store.image("img1")).id == image.id
    assert {container.names[0]: container.volatile for container in containers} == {
        "c1": False,
        "img1-working-container": True,
    }
    assert (await store.layer("c1-layer")).parent == image.layer
    top = await store.layer(str(image.layer))
    assert (top.compression, top.diff_size, top.compressed_size > 0) == (2, 10240, True)


async def test_a_snapshot_answers_what_a_plan_asks(store: Store) -> None:
    image = await commit_image(store, "localhost/app:1", BASE, TOP)
    await store.create_container(image)
    snapshot = await store.snapshot()
    base, top = MadeLayer(BASE).diff_id, MadeLayer(TOP).diff_id
    assert snapshot.has_layer(str(image.layer))
    assert not snapshot.has_layer(top.encoded)
    assert snapshot.layer_with_diff_id(base) == base.encoded
    assert snapshot.layer_with_diff_id(top) == image.layer
    assert snapshot.layer_with_diff_id(Digest.of(b"else")) is None
    assert set(snapshot.images) == {image.id}
    assert len(snapshot.layers) == 3


async def test_layers_of_partial_pulls_and_mapped_ones_are_not_for_copying(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE, TOP)
    path = config.graph_root / "overlay-layers/layers.json"
    first, second = orjson.loads(path.read_bytes())
    first["toc-digest"] = str(Digest.of(b"toc"))
    second["uidmap"] = [{"container_id": 0, "host_id": 1000, "size": 1}]
    path.write_bytes(orjson.dumps([first, second]))
    snapshot = await store.snapshot()
    assert snapshot.layer_with_diff_id(MadeLayer(BASE).diff_id) is None
    assert snapshot.layer_with_diff_id(MadeLayer(TOP).diff_id) is None
    assert snapshot.has_layer(second["id"])


async def test_status(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE, TOP)
    await store.create_container(image)
    (store.spool_root / "sha256-x").mkdir()
    (store.spool_root / "sha256-x/blob").write_bytes(b"x" * 8192)
    status = await store.status()
    assert (status.driver, status.images, status.layers, status.containers, status.mounts) == ("overlay", 1, 3, 1, 0)
    assert status.layer_bytes == 2
    assert status.image_bytes == sum(image.big_data_sizes.values())
    assert status.spool_bytes >= 8192
    assert status.free_bytes > 0
    assert status.backing_file_system not in ("", "unknown")
    assert set(status.versions) == {"asyncpull", "python", "kernel"}
    assert orjson.loads(orjson.dumps(asdict(status)))["graph_root"] == str(config.graph_root)


async def test_nothing_there(store: Store) -> None:
    for listing in (store.layers, store.images, store.containers, store.mounts):
        assert await listing() == []
    for look in (store.layer, store.image, store.container):
        with pytest.raises(NotInStoreError):
            await look("x")


# ------------------------------------------------------------------------------------------ at the same time


async def test_readers_wait_for_a_writer_and_then_see_what_it_wrote(store: Store, config: StoreConfig) -> None:
    async with locked(config.graph_root / "overlay-images/images.lock", LockMode.EXCLUSIVE) as lock:
        reader = asyncio.create_task(store.images())
        while waiters(lock.path) == 0:
            await asyncio.sleep(0.001)
        lock.write_token()
        (config.graph_root / "overlay-images/images.json").write_bytes((GOLDEN / "images.json").read_bytes())
    assert len(await reader) == 1


async def test_more_holders_than_threads_finish(config: StoreConfig) -> None:
    """Thirty commits and as many readers over five stores: nobody who holds a lock waits for a thread for ever."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(Store.open(config)) for _ in range(5)]
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                store = stores[number % 5]
                own = {"n": b"%d" % number}
                group.create_task(commit_image(store, f"localhost/app:{number}", BASE, own, remark=str(number)))
                group.create_task(store.snapshot())
        assert len(await stores[0].images()) == 30
    assert leftovers(config.graph_root) == []


async def test_image_locks_are_one_per_digest_and_leave_no_file(store: Store, config: StoreConfig) -> None:
    inside: list[str] = []
    first, second = Digest.of(b"1"), Digest.of(b"2")

    async def pull(digest: Digest, word: str) -> None:
        async with store.image_lock(digest):
            assert word not in inside
            inside.append(word)
            await asyncio.sleep(0)
            inside.remove(word)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(pull(first, "first"))
            group.create_task(pull(second, "second"))
    assert os.listdir(config.graph_root / "asyncpull/locks") == []
    async with store.image_lock(first), store.image_lock(second):
        assert len(os.listdir(config.graph_root / "asyncpull/locks")) == 2


_PULLER = """
import asyncio, sys
from pathlib import Path
from asyncpull.spec.digest import Digest
from asyncpull.store.store import Store
from tests.store.made import config_at

async def main(place):
    mark = place / "mark"
    async with Store.open(config_at(place)) as store:
        for _ in range(40):
            async with store.image_lock(Digest.of(b"1")):
                mark.mkdir()  # fails if somebody else is inside
                await asyncio.sleep(0)
                mark.rmdir()

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_lock_file_that_cannot_be_removed_does_not_undo_the_work(store: Store, config: StoreConfig) -> None:
    async with store.image_lock(Digest.of(b"1")):
        (lock,) = (config.graph_root / "asyncpull" / "locks").iterdir()
        lock.unlink()
        lock.mkdir()
    assert lock.is_dir()


def test_image_locks_exclude_other_processes(place: Path) -> None:
    command = [sys.executable, "-c", _PULLER, str(place)]
    project = Path(__file__).parents[2]
    processes = [subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


async def test_a_large_store_is_listed_quickly_enough_to_be_loaded_twice(store: Store, config: StoreConfig) -> None:
    """Ten thousand layers, loaded once and answered from memory afterwards."""
    (record,) = [r for r in orjson.loads((GOLDEN / "layers.json").read_bytes()) if "parent" not in r]
    records = [{**record, "id": f"{number:064x}"} for number in range(10_000)]
    (config.graph_root / "overlay-layers/layers.json").write_bytes(orjson.dumps(records))
    first = await store.layers()
    second = await store.layers()
    assert len(first) == 10_000
    assert all(one is other for one, other in zip(first, second, strict=True))
