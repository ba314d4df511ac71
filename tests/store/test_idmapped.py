"""Containers with a user namespace of their own: the image's files are seen with the owners that they have there."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull import kernel
from asyncpull.errors import MountError, StoreError, UsageError
from asyncpull.store.containers import ContainerSpec
from asyncpull.store.idmap import IDMap, IDMappings
from asyncpull.store.idmapped import is_supported, unmap, user_namespace
from asyncpull.store.store import Store
from tests.store.made import commit_image, config_at, leftovers

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig

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


def records(config: StoreConfig, kind: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = orjson.loads((config.graph_root / f"overlay-{kind}/{kind}.json").read_bytes())
    return found


@pytest.mark.usefixtures("mapping_kernel")
async def test_a_container_is_made_as_podman_makes_it(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE, TOP)
    made = await store.create_container("app:1", "one", spec=ContainerSpec(mappings=MAPS))
    assert made.mappings == MAPS
    assert made.is_id_mapped
    layer = await store.layer(made.layer)
    assert layer.mappings == MAPS
    assert layer.parent == image.layer
    assert (await store.image(image.id)).mapped_layers == ()
    async with store.mounted("one") as path:
        assert owner(path) == owner(path / "etc/b") == (100000, 200000)
    (raw,) = records(config, "containers")
    assert raw["gidmap"] == [{"container_id": 0, "host_id": 200000, "size": 1000}]
    assert list(raw).index("gidmap") < list(raw).index("flags")


@pytest.fixture
def no_mapping_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What podman's own switch makes of the kernel, for both."""
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")


def odd_files(diff: Path) -> None:
    """Files whose owners are easily changed in the wrong way."""
    (diff / "etc/suid").write_bytes(b"suid")
    os.chown(diff / "etc/suid", 7, 8)
    (diff / "etc/suid").chmod(0o6755)
    os.link(diff / "etc/suid", diff / "other")
    (diff / "link").symlink_to("/nowhere")
    os.chown(diff / "link", 1000, 5000, follow_symlinks=False)
    (diff / "capable").write_bytes(b"c")
    os.setxattr(diff / "capable", "security.capability", CAPABILITY)
    for name in ("etc/suid", "etc"):
        os.utime(diff / name, ns=(10**18, 10**18))


CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


@pytest.mark.usefixtures("no_mapping_kernel")
async def test_where_the_kernel_cannot_map_the_top_layer_is_copied(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE, TOP)
    odd_files(store.diff_path(str(image.layer)))
    before = {layer.id for layer in await store.layers()}

    one = await store.create_container(image, "one", spec=ContainerSpec(mappings=MAPS))

    (mapped,) = (await store.image(image.id)).mapped_layers
    copy, template = await store.layer(mapped), await store.layer(str(image.layer))
    assert (copy.parent, copy.diff_digest, copy.diff_size) == (
        template.parent,
        template.diff_digest,
        template.diff_size,
    )
    assert copy.mappings == MAPS
    assert (await store.layer(one.layer)).parent == mapped
    directory = config.graph_root / "overlay" / mapped
    assert sorted(path.name for path in directory.iterdir()) == [
        *("diff", "diff1", "link", "lower", "lower-layers", "merged", "work")
    ]
    assert (directory / "lower-layers").read_text().split(":")[0] == image.layer
    assert os.listdir(directory / "diff") == []
    assert owner(directory / "diff") == (100000, 200000)
    assert store.tar_split_path(mapped).read_bytes() == store.tar_split_path(template.id).read_bytes()
    assert kernel.mounts_below(config.graph_root) == []
    async with store.mounted("one") as path:
        assert owner(path) == owner(path / "etc") == owner(path / "etc/a") == (100000, 200000)
        assert owner(path / "etc/suid") == (100007, 200008)
        assert owner(path / "link") == (5, 65534)
        assert stat.S_IMODE((path / "etc/suid").stat().st_mode) == 0o6755
        assert (path / "etc/suid").stat().st_nlink == 2
        assert (path / "etc/suid").samefile(path / "other")
        assert (path / "etc").stat().st_mtime_ns == (path / "etc/suid").stat().st_mtime_ns == 10**18
        assert os.getxattr(path / "capable", "security.capability") == CAPABILITY

    assert (await store.check(full=False)).findings == ()

    two = await store.create_container(image, "two", spec=ContainerSpec(mappings=MAPS))
    assert (await store.layer(two.layer)).parent == mapped
    assert leftovers(config.graph_root) == []

    await store.remove_container("one")
    await store.remove_container("two")
    assert {layer.id for layer in await store.layers()} == before | {mapped}
    await store.remove_image(image.id, force=True)
    assert await store.layers() == []


@pytest.mark.usefixtures("no_mapping_kernel")
async def test_a_copy_that_cannot_be_made_leaves_nothing(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE)
    layers = await store.layers()
    (store.diff_path(str(image.layer))).rename(config.graph_root / "aside")
    with pytest.raises(StoreError):
        await store.create_container(image, "one", spec=ContainerSpec(mappings=MAPS))
    (config.graph_root / "aside").rename(store.diff_path(str(image.layer)))
    assert await store.layers() == layers
    assert await store.containers() == []
    assert (await store.image(image.id)).mapped_layers == ()
    assert leftovers(config.graph_root) == []


@pytest.mark.usefixtures("no_mapping_kernel")
async def test_two_copies_at_once_become_one(store: Store) -> None:
    image = await commit_image(store, "localhost/app:1", BASE)
    specs = [ContainerSpec(names=(name,), mappings=MAPS) for name in ("one", "two")]
    made = await asyncio.gather(*(store.create_container(image, spec=spec) for spec in specs))
    (mapped,) = (await store.image(image.id)).mapped_layers
    assert {(await store.layer(container.layer)).parent for container in made} == {mapped}
    assert len(await store.layers()) == 4


@pytest.mark.parametrize("mappings", [IDMappings(MAPS.uids), IDMappings((IDMap(1, 5, 1),), (IDMap(0, 5, 1),))])
def test_a_container_needs_a_root_on_both_sides(mappings: IDMappings) -> None:
    with pytest.raises(UsageError):
        ContainerSpec(mappings=mappings)


async def test_a_mount_program_maps_by_itself(place: Path) -> None:
    program = shutil.which("fuse-overlayfs")
    if program is None or not Path("/dev/fuse").exists():
        pytest.skip("needs fuse-overlayfs and /dev/fuse")
    maps = IDMappings((IDMap(0, 100000, 1000),), (IDMap(0, 200000, 1000),))
    async with Store.open(replace(config_at(place), mount_program=program)) as store:
        image = await commit_image(store, "localhost/app:1", BASE, TOP)
        os.chown(store.diff_path(str(image.layer)) / "etc/b", 7, 8)
        await store.create_container("app:1", "one", spec=ContainerSpec(mappings=maps))
        assert (await store.image(image.id)).mapped_layers == ()
        async with store.mounted("one") as path:
            assert owner(path) == owner(path / "etc/a") == (100000, 200000)
            assert owner(path / "etc/b") == (100007, 200008)
        layers = await store.layers()
        with pytest.raises(MountError, match="gaps"):
            await store.create_container("app:1", "two", spec=ContainerSpec(mappings=MAPS))
        assert await store.layers() == layers
