"""Containers as podman makes them, byte for byte, and what happens when one cannot be made."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull.errors import NotInStoreError, StoreError
from asyncpull.store.containers import container_name
from asyncpull.store.records import CONTAINERS, LAYERS, format_records
from tests.store.made import GOLDEN, commit_image, leftovers

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.store import Store

BASE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}


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
