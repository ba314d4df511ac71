"""Containers as podman makes them, byte for byte, and what happens when one cannot be made."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from asyncpull import kernel
from asyncpull.errors import NotInStoreError, StoreError, UsageError
from asyncpull.store.containers import ContainerSpec, container_name
from asyncpull.store.records import CONTAINERS, LAYERS, format_records
from tests.store.made import GOLDEN, commit_image, leftovers

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.store import Store

BASE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}
MOUNT_LABEL, PROCESS_LABEL = "system_u:object_r:container_file_t:s0:c1", "system_u:system_r:container_t:s0:c1"
LABELS = {
    "mount_label": "system_u:object_r:container_file_t:s0:c1",
    "process_label": "system_u:system_r:container_t:s0",
}


async def test_recorded_as_podman_records_it(store: Store, config: StoreConfig) -> None:
    """Ours and podman's ``create --name c1``, with what must differ replaced: IDs, times, the image's name."""
    image = await commit_image(store, "localhost/img1:latest", BASE, TOP)
    container = await store.create_container("img1", "c1")
    ours = (config.graph_root / "overlay-containers/containers.json").read_bytes()
    assert _anonymous(ours) == _anonymous((GOLDEN / "containers.json").read_bytes())
    assert json.loads(container.metadata)["image-id"] == image.id
    (layer,) = [layer for layer in await store.layers() if layer.id == container.layer]
    (theirs,) = [record for record in orjson.loads((GOLDEN / "layers.json").read_bytes()) if "names" in record]
    mine = [r for r in orjson.loads((config.graph_root / "overlay-layers/layers.json").read_bytes()) if "names" in r]
    assert _anonymous(format_records(mine, LAYERS)) == _anonymous(format_records([theirs], LAYERS))
    assert (layer.names, layer.parent) == (("c1-layer",), image.layer)
    tree = config.graph_root / "overlay" / layer.id
    assert sorted(os.listdir(tree)) == ["diff", "link", "lower", "lower-layers", "merged", "work"]
    assert (tree / "diff").stat().st_mode & 0o7777 == 0o555
    assert not store.tar_split_path(layer.id).exists()
    assert leftovers(config.graph_root) == []


def _anonymous(data: bytes) -> bytes:
    data = re.sub(rb"[0-9a-f]{64}", b"ID", data)
    data = re.sub(rb'"created":"[^"]+"', b'"created":"NOW"', data)
    return re.sub(rb'created-at\\":[0-9]+', b'created-at\\":0', data)


async def test_found_by_name_id_and_beginning(store: Store) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    container = await store.create_container("app:1", "one")
    for target in ("one", container.id, container.id[:10]):
        assert await store.container(target) == container
    assert (await store.layer("one-layer")).id == container.layer
    assert container.created_at.year > 2020
    with pytest.raises(NotInStoreError, match="container 'two'"):
        await store.container("two")


async def test_names_are_made_up_from_the_image(store: Store) -> None:
    image = await commit_image(store, "registry.example:5000/team/app:1", BASE)
    container = await store.create_container(image)
    assert re.fullmatch("app-[0-9a-f]{8}", container.names[0])
    nameless = await store.untag(image, image.names[0])
    assert container_name(nameless).startswith(image.id[:12])


async def test_a_name_that_is_taken(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE)
    await store.create_container(image, "one")
    layers = await store.layers()
    with pytest.raises(StoreError, match="one") as caught:
        await store.create_container(image, "one")
    assert caught.value.hint
    assert await store.layers() == layers
    assert leftovers(config.graph_root) == []


async def test_on_no_image(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE)
    await store.remove_image(image)
    for target in (image, "localhost/app:1"):
        with pytest.raises(NotInStoreError):
            await store.create_container(target)
    assert await store.layers() == []
    assert leftovers(config.graph_root) == []


async def test_on_an_image_without_layers(store: Store) -> None:
    image = await commit_image(store, "localhost/nothing:1")
    container = await store.create_container(image)
    layer = await store.layer(container.layer)
    assert layer.parent is None


async def test_on_the_tallest_image(store: Store) -> None:
    tall = [{"n": b"%d" % number} for number in range(500)]
    image = await commit_image(store, "localhost/tall:1", *tall)
    container = await store.create_container(image)
    lower = store.diff_path(container.layer).with_name("lower").read_text()
    assert len(lower.split(":")) == 500


async def test_when_the_record_cannot_be_written_there_is_no_layer_either(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE)
    layers = await store.layers()
    blocked = config.graph_root / "overlay-containers/containers.json"
    await store.containers()
    blocked.mkdir()
    with pytest.raises(StoreError):
        await store.create_container(image)
    blocked.rmdir()
    assert await store.layers() == layers
    assert await store.containers() == []
    assert leftovers(config.graph_root) == []


async def test_volatile_containers_of_others_are_seen_and_kept(store: Store, config: StoreConfig) -> None:
    """What buildah keeps in the volatile files is listed, used, and untouched by what we write."""
    data = (GOLDEN / "volatile-containers.json").read_bytes()
    path = config.graph_root / "overlay-containers/volatile-containers.json"
    path.write_bytes(data)
    image = await commit_image(store, "localhost/app:1", BASE)
    await store.create_container(image, "one")
    assert path.read_bytes() == data == format_records(orjson.loads(data), CONTAINERS)
    theirs = await store.container("img1-working-container")
    assert theirs.volatile
    assert theirs.flags["Volatile"] is True
    await store.remove_container("one")
    assert path.read_bytes() == data
    assert [container.id for container in await store.containers()] == [theirs.id]


async def test_everything_a_container_can_be(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    spec = ContainerSpec(
        names=("two", "three", "two"),
        metadata="of my own",
        mount_options=("nodev", "noatime"),
        flags=(("Mine", 1),),
        big_data=(("state", b"{}"), ("Odd Key", b"")),
        mount_label=MOUNT_LABEL,
        process_label=PROCESS_LABEL,
    )
    container = await store.create_container("app:1", "one", spec=spec)
    assert container.names == ("one", "two", "three")
    assert container.metadata == "of my own"
    assert container.flags == {
        "Mine": 1,
        "MountLabel": MOUNT_LABEL,
        "MountOpts": ["nodev", "noatime"],
        "ProcessLabel": PROCESS_LABEL,
    }
    layer = await store.layer(container.layer)
    assert (layer.names, layer.mount_label, layer.volatile) == (("one-layer",), MOUNT_LABEL, False)
    assert container.big_data_names == ("state", "Odd Key")
    assert container.big_data_sizes == {"state": 2, "Odd Key": 0}
    files = config.graph_root / "overlay-containers" / container.id
    assert sorted(os.listdir(files)) == ["=T2RkIEtleQ==", "state"]
    assert {path.stat().st_mode & 0o7777 for path in files.iterdir()} == {0o600}
    for target in ("one", "two", "three"):
        assert (await store.container(target)).id == container.id
    with pytest.raises(StoreError, match="three"):
        await store.create_container("app:1", "three")


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": ("",)},
        {"names": ("a/b",)},
        {"mount_label": "alone"},
        {"process_label": "alone"},
        {"big_data": (("", b""),)},
        {"big_data": (("x" * 300, b""),)},
    ],
)
def test_what_no_container_can_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ContainerSpec(**wrong)


async def test_on_nothing(store: Store, config: StoreConfig) -> None:
    container = await store.create_container(None)
    assert re.fullmatch("container-[0-9a-f]{8}", container.names[0])
    assert container.image == ""
    assert (await store.layer(container.layer)).parent is None
    (record,) = orjson.loads((config.graph_root / "overlay-containers/containers.json").read_bytes())
    assert record["image"] == ""
    await store.remove_container(container)
    assert await store.layers() == []


async def test_a_volatile_one_is_recorded_where_a_reboot_may_lose_it(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    container = await store.create_container("app:1", spec=ContainerSpec(names=("one",), is_volatile=True))
    assert container.volatile
    assert container.flags["Volatile"] is True
    assert (await store.layer(container.layer)).volatile
    assert not (config.graph_root / "overlay-containers/containers.json").read_bytes().strip(b"[]")
    (layer,) = orjson.loads((config.graph_root / "overlay-layers/volatile-layers.json").read_bytes())
    assert "flags" not in layer
    await store.set_container_data("one", {"state": b"1"})
    assert (await store.container("one")).volatile
    await store.remove_container("one")
    assert (config.graph_root / "overlay-layers/volatile-layers.json").read_bytes() == b"[]"


async def test_items_come_and_change(store: Store) -> None:
    await store.create_container(None, "one")
    await store.set_container_data("one", {"a": b"1", "b": b"2"})
    changed = await store.set_container_data("one", {"a": b"123"})
    assert changed == await store.container("one")
    assert changed.big_data_names == ("a", "b")
    assert changed.big_data_sizes == {"a": 3, "b": 1}
    assert changed.big_data_digests["a"] == f"sha256:{hashlib.sha256(b'123').hexdigest()}"
    assert [await store.container_data("one", key) for key in ("a", "b")] == [b"123", b"2"]
    with pytest.raises(NotInStoreError, match="'c'"):
        await store.container_data("one", "c")
    with pytest.raises(NotInStoreError):
        await store.set_container_data("two", {"a": b""})
    with pytest.raises(UsageError):
        await store.set_container_data("one", {"": b""})


async def test_an_item_that_cannot_be_written(store: Store, config: StoreConfig) -> None:
    container = await store.create_container(None, "one")
    (config.graph_root / "overlay-containers" / container.id).touch()
    with pytest.raises(StoreError):
        await store.set_container_data("one", {"a": b"1"})
    assert await store.container("one") == container


async def test_directories_last_as_long_as_the_container(store: Store, config: StoreConfig) -> None:
    container = await store.create_container(None, "one")
    data, run = await store.container_directory("one"), await store.container_run_directory(container)
    assert data == config.graph_root / "overlay-containers" / container.id / "userdata"
    assert run == config.run_root / "overlay-containers" / container.id / "userdata"
    for path in (data, data.parent, run, run.parent):
        assert path.stat().st_mode & 0o7777 == 0o700
    (data / "state").write_bytes(b"mine")
    assert await store.container_directory("one") == data
    await store.remove_container("one")
    assert not data.parent.exists()
    assert not run.parent.exists()


@pytest.mark.root
async def test_what_is_mounted_in_its_directory_goes_with_it(store: Store) -> None:
    await store.create_container(None, "one")
    shm = await store.container_directory("one") / "shm"
    shm.mkdir()
    kernel.mount("tmpfs", shm, "tmpfs", 0)
    await store.remove_container("one")
    assert not shm.parent.parent.exists()
