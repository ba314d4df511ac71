"""Containers with a user namespace of their own: the image's files are seen with the owners that they have there."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull import kernel
from asyncpull.errors import MountError
from asyncpull.store.idmap import IDMap, IDMappings
from asyncpull.store.idmapped import is_supported, unmap, user_namespace
from tests.store.made import commit_image, leftovers

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.store import Store

pytestmark = pytest.mark.root

MAPS = IDMappings((IDMap(0, 100000, 1000), IDMap(1000, 5, 1)), (IDMap(0, 200000, 1000),))
BASE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}


def owner(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_uid, info.st_gid


def children() -> set[str]:
    """The processes that this one started and has not waited for."""
    return {number for task in Path("/proc/self/task").iterdir() for number in (task / "children").read_text().split()}


@pytest.fixture
def mapping_kernel(config: StoreConfig) -> None:
    if not is_supported(config.graph_root.parent / "tried", config.run_root / "overlay"):
        pytest.skip("this kernel does not map the lower layers of overlay (Linux 5.19 does on usual file systems)")


async def a_mapped_container(store: Store, config: StoreConfig) -> str:
    """Its record is as podman 4.3 writes it: the layer has no mappings, the container has."""
    image = await commit_image(store, "localhost/app:1", BASE, TOP)
    os.chown(store.diff_path(str(image.layer)) / "etc/b", 7, 8)
    made = await store.create_container("app:1", "one")
    path = config.graph_root / "overlay-containers/containers.json"
    (raw,) = orjson.loads(path.read_bytes())
    maps = {
        "uidmap": [part.as_json for part in MAPS.uids],
        "gidmap": [part.as_json for part in MAPS.gids],
    }
    path.write_bytes(orjson.dumps([{**raw, **maps}]))
    return made.layer


@pytest.mark.usefixtures("mapping_kernel")
async def test_lower_layers_are_mapped_and_the_writable_one_is_not(store: Store, config: StoreConfig) -> None:
    layer = await a_mapped_container(store, config)
    for _ in range(2):
        async with store.mounted("one") as path:
            assert owner(path) == owner(path / "etc/a") == (100000, 200000)
            assert owner(path / "etc/b") == (100007, 200008)
            (path / "etc/a").write_bytes(b"changed")
            os.chown(path / "etc/a", 5, 200000)
            assert sorted(kernel.mounts_below(config.graph_root / "overlay")) == [str(path)]
            os.chown(path / "etc/a", 100000, 200000)
    diff = store.diff_path(layer)
    assert owner(diff) == owner(diff / "etc/a") == (100000, 200000)
    assert kernel.mounts_below(config.graph_root) == []
    assert not (diff.parent / "mapped").exists()
    await store.remove_container("one")
    assert leftovers(config.graph_root) == []


@pytest.mark.usefixtures("mapping_kernel")
async def test_what_a_killed_mount_left_is_no_hindrance_and_nothing_is_deleted_through_it(
    store: Store, config: StoreConfig
) -> None:
    layer = await a_mapped_container(store, config)
    home = config.graph_root / "overlay"
    left = home / layer / "mapped/0"
    path = await store.mount("app:1")  # whoever mounts has the driver's directory bound onto itself first
    for act in (store.mount, store.remove_container):
        left.mkdir(parents=True, exist_ok=True)
        with user_namespace(MAPS) as namespace:
            kernel.mount_mapped(home, left, namespace)
        await act("one")
        assert str(left) not in kernel.mounts_below(home)
        if act == store.mount:
            await store.unmount("one")
    assert (path / "etc/a").read_bytes() == b"a"
    await store.unmount("app:1")


async def test_a_kernel_that_cannot_is_told_and_nothing_stays_mounted(
    store: Store, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_mapped_container(store, config)
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    with pytest.raises(MountError, match="owners"):
        await store.mount("one")
    assert await store.mounts() == []
    assert kernel.mounts_below(config.graph_root) == []


def test_the_answer_of_the_kernel_is_the_one_that_podman_remembers(place: Path) -> None:
    run_home = place / "run/overlay"
    run_home.mkdir(parents=True)
    (run_home / "idmapped-lower-dir-false").touch()
    assert not is_supported(place / "staging", run_home)
    (run_home / "idmapped-lower-dir-false").unlink()
    answer = is_supported(place / "staging", run_home)
    assert [path.name for path in run_home.iterdir()] == [f"idmapped-lower-dir-{str(answer).lower()}"]
    assert list((place / "staging").iterdir()) == []
    assert is_supported(place / "staging", run_home) == answer


def test_a_namespace_comes_from_any_thread_and_leaves_no_process() -> None:
    seen: list[bool] = []
    before = children()

    def make() -> None:
        with user_namespace(MAPS) as fd:
            seen.append(os.fstat(fd).st_ino != os.stat("/proc/self/ns/user").st_ino)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 4
    assert children() == before


def test_overlapping_ranges_are_the_kernels_error() -> None:
    with pytest.raises(OSError, match="Invalid"):
        kernel.new_user_namespace("0 0 10\n5 100 10", "0 0 1")


def test_a_directory_that_is_not_there_is_nothing_to_unmap(place: Path) -> None:
    unmap(place / "nothing")
    (place / "mapped/0").mkdir(parents=True)
    (place / "mapped/0/kept").touch()
    unmap(place / "mapped")
    assert (place / "mapped/0/kept").exists()
