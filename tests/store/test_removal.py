"""Removing: what goes, what stays because somebody else needs it, what is refused and by whom."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull.errors import InUseError, NotInStoreError, StoreError
from asyncpull.store.removal import layers_to_remove
from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord
from tests.store.made import commit_image, everything_in, leftovers

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.records import Raw
    from asyncpull.store.store import Store

BASE, MIDDLE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}, {"data/x": b"x"}
NOW = "2026-01-01T00:00:00Z"


# -------------------------------------------------------------------------------- which layers go, as a plain rule


def layers(**parents: str | None) -> dict[str, LayerRecord]:
    return {
        name: LayerRecord.from_raw(
            {"id": name, "created": NOW, **({"parent": parent} if parent else {})}, volatile=False
        )
        for name, parent in parents.items()
    }


def image(name: str, layer: str | None, *mapped: str) -> ImageRecord:
    raw: Raw = {"id": name, "created": NOW, "mapped-layers": list(mapped)}
    return ImageRecord.from_raw({**raw, "layer": layer} if layer else raw)


def container(layer: str) -> ContainerRecord:
    return ContainerRecord.from_raw({"id": f"of-{layer}", "image": "", "layer": layer, "created": NOW}, volatile=False)


STACK = {"a": None, "b": "a", "c": "b"}


def test_all_of_an_image_that_is_alone() -> None:
    one = image("1", "c")
    assert layers_to_remove(one, [one], layers(**STACK), []) == ["c", "b", "a"]


def test_down_to_what_another_image_needs() -> None:
    one, two = image("1", "c"), image("2", "b")
    assert layers_to_remove(one, [one, two], layers(**STACK), []) == ["c"]
    assert layers_to_remove(two, [one, two], layers(**STACK), []) == []


def test_down_to_where_another_branch_begins() -> None:
    one, two = image("1", "c"), image("2", "x")
    assert layers_to_remove(one, [one, two], layers(**STACK, x="a"), []) == ["c", "b"]


def test_nothing_below_a_container() -> None:
    one = image("1", "c")
    assert layers_to_remove(one, [one], layers(**STACK, rw="c"), [container("rw")]) == []
    assert layers_to_remove(one, [one], layers(**STACK), [container("b")]) == ["c"]


def test_mapped_copies_of_the_top_layer_go_too() -> None:
    one = image("1", "c", "m")
    assert layers_to_remove(one, [one], layers(**STACK, m="b"), []) == ["m", "c", "b", "a"]


def test_two_images_on_one_layer() -> None:
    one, two = image("1", "c"), image("2", "c")
    assert layers_to_remove(one, [one, two], layers(**STACK), []) == []


def test_an_image_without_layers_or_with_a_missing_one() -> None:
    assert layers_to_remove(image("1", None), [], layers(**STACK), []) == []
    assert layers_to_remove(image("1", "gone"), [], layers(**STACK), []) == []


# ---------------------------------------------------------------------------------------------------- in a store


def trees(config: StoreConfig) -> set[str]:
    return {path.name for path in (config.graph_root / "overlay").iterdir()} - {"l", "tempdirs", ".has-mount-program"}


async def test_an_image_goes_with_everything(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE, MIDDLE)
    assert await store.remove_image("app:1") == ("localhost/app:1", record.id)
    assert await store.images() == []
    assert await store.layers() == []
    assert trees(config) == set()
    assert os.listdir(config.graph_root / "overlay/l") == []
    assert sorted(os.listdir(config.graph_root / "overlay-layers")) == ["layers.json", "layers.lock", "tmp"]
    assert sorted(os.listdir(config.graph_root / "overlay-images")) == ["images.json", "images.lock"]
    assert leftovers(config.graph_root) == []
    with pytest.raises(NotInStoreError):
        await store.remove_image("app:1")


async def test_shared_layers_stay(store: Store, config: StoreConfig) -> None:
    one = await commit_image(store, "localhost/app:1", BASE, MIDDLE)
    await commit_image(store, "localhost/app:2", BASE, TOP)
    await store.remove_image(one)
    assert len(await store.layers()) == 2
    assert trees(config) == {layer.id for layer in await store.layers()}


async def test_one_of_several_names_goes_alone_even_by_force(store: Store) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    await store.tag(record, "localhost/app:2")
    await store.tag(record, "localhost/app:3")
    assert await store.remove_image("app:1") == ("localhost/app:1",)
    assert await store.remove_image("app:2", force=True) == ("localhost/app:2",)
    assert await store.remove_image("app:3") == ("localhost/app:3", record.id)


async def test_by_id_several_names_need_force(store: Store) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    await store.tag(record, "localhost/app:2")
    with pytest.raises(StoreError, match="several names"):
        await store.remove_image(record.id[:12])
    assert await store.remove_image(record, force=True) == ("localhost/app:2", "localhost/app:1", record.id)
    assert await store.layers() == []


async def test_an_image_in_use_is_refused_and_nothing_changes(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    await store.create_container("app:1", "busy")
    before = everything_in(config.graph_root)
    with pytest.raises(InUseError, match="container busy") as caught:
        await store.remove_image("app:1")
    assert caught.value.hint
    assert everything_in(config.graph_root) == before


async def test_force_removes_the_containers_too(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    for name in ("one", "two"):
        await store.create_container("app:1", name)
    userdata = config.graph_root / "overlay-containers" / (await store.container("one")).id / "userdata"
    userdata.mkdir(parents=True)
    (userdata / "config.json").touch()
    assert await store.remove_image("app:1", force=True) == ("localhost/app:1", record.id)
    assert await store.containers() == []
    assert await store.layers() == []
    assert not userdata.exists()
    assert trees(config) == set()


async def test_a_container_goes_and_its_image_stays(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    made = await store.create_container(record, "one")
    (store.diff_path(made.layer)).chmod(0o755)
    (store.diff_path(made.layer) / "written").touch()
    await store.remove_container("one")
    assert trees(config) == {record.layer}
    assert await store.containers() == []
    with pytest.raises(NotInStoreError):
        await store.remove_container("one")


async def test_a_container_that_podman_runs_is_refused_even_by_force(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    made = await store.create_container("app:1", "busy")
    userdata = config.run_root / "overlay-containers" / made.id / "userdata"
    userdata.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        (userdata / "pidfile").write_text(str(process.pid))
        for force in (False, True):
            with pytest.raises(InUseError, match=f"process {process.pid}"):
                await store.remove_container(made, force=force)
            with pytest.raises(InUseError):
                await store.remove_image("app:1", force=force)
        process.communicate(b"\n")
    await store.remove_container(made)
    assert not userdata.parent.exists()


async def test_a_layer_below_the_one_of_somebody_else_is_refused(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    made = await store.create_container("app:1", "below")
    path = config.graph_root / "overlay-layers/layers.json"
    records = [*orjson.loads(path.read_bytes()), {"id": "above", "parent": made.layer, "created": NOW}]
    path.write_bytes(orjson.dumps(records))
    with pytest.raises(InUseError, match="on top"):
        await store.remove_container(made)
    assert orjson.loads(path.read_bytes()) == records
    assert replace(made) == made


async def test_a_container_whose_layer_is_gone_can_be_removed(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    made = await store.create_container("app:1", "headless")
    path = config.graph_root / "overlay-layers/layers.json"
    path.write_bytes(orjson.dumps([r for r in orjson.loads(path.read_bytes()) if r["id"] != made.layer]))
    await store.remove_container(made)
    assert await store.containers() == []
