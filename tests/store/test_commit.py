"""Committing images: podman's bytes, layers shared with others, what is refused, races and cancellation."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull.errors import NotInStoreError, StoreCorruptError, StoreError, TooManyLayersError
from asyncpull.lockfile import LockMode, locked
from asyncpull.spec.digest import Digest
from asyncpull.spec.layerid import layer_id
from asyncpull.store.staging import NewImage, NewLayer
from asyncpull.store.store import Store
from tests.store.made import (
    GOLDEN,
    MadeLayer,
    commit_image,
    config_at,
    everything_in,
    leftovers,
    made,
    new_image,
    stage_layers,
)
from tests.support.filelocks import waiters

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.store.config import StoreConfig

BASE, MIDDLE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}, {"data/x": b"x" * 5000}


def records(config: StoreConfig, noun: str) -> list[dict[str, object]]:
    path = config.graph_root / f"overlay-{noun}s/{noun}s.json"
    loaded: list[dict[str, object]] = orjson.loads(path.read_bytes()) if path.exists() else []
    return loaded


def without_times(record: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in record.items() if key != "created"}


# ------------------------------------------------------------------------------------------ what is written


async def test_an_image_is_recorded_byte_for_byte_as_podman_recorded_it(store: Store) -> None:
    """The records of podman's own pull, made anew through our commit; only the moment of the layers may differ."""
    wanted = [r for r in orjson.loads((GOLDEN / "layers.json").read_bytes()) if "diff-digest" in r]
    (wanted_image,) = orjson.loads((GOLDEN / "images.json").read_bytes())
    config, manifest = (GOLDEN / "config").read_bytes(), (GOLDEN / "manifest").read_bytes()
    digest = Digest.of(manifest)
    async with store.stage() as staging:
        layers = []
        for record in wanted:
            staged = staging.new_layer(record.get("parent"))
            staged.tar_split.write_bytes(b"")
            layers.append(
                NewLayer(
                    record["id"],
                    record.get("parent"),
                    staged,
                    Digest.parse(record["diff-digest"]),
                    record["diff-size"],
                    Digest.parse(record["compressed-diff-digest"]),
                    record["compressed-size"],
                    record["compression"],
                    tuple(record["uidset"]),
                    tuple(record["gidset"]),
                )
            )
        newest, oldest = wanted_image["names"]
        big_data = ((f"sha256:{wanted_image['id']}", config), (f"manifest-{digest}", manifest), ("manifest", manifest))
        image = NewImage(wanted_image["id"], digest, (oldest,), tuple(layers), big_data, json.loads(config)["created"])
        await store.commit(staging, image)
    await store.tag(wanted_image["id"], newest)

    written = (store.config.graph_root / "overlay-images/images.json").read_bytes()
    assert written == (GOLDEN / "images.json").read_bytes()
    moment = re.compile(rb'"created":"[^"]+"')
    text = (store.config.graph_root / "overlay-layers/layers.json").read_bytes()
    expected = orjson.dumps(wanted)
    assert moment.sub(b"", text) == moment.sub(b"", expected)


async def test_everything_is_in_its_place(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/app:1", BASE, TOP)
    root = config.graph_root
    base, top = await store.layers()
    assert image.layer == top.id
    assert top.parent == base.id
    assert (root / f"overlay/{base.id}/diff/etc/a").read_bytes() == b"a"
    assert store.diff_path(top.id) == root / f"overlay/{top.id}/diff"
    assert (store.diff_path(top.id) / "data/x").read_bytes() == b"x" * 5000
    assert store.tar_split_path(top.id).is_file()
    assert (root / f"overlay/{base.id}/diff").stat().st_mode & 0o7777 == 0o555
    assert await store.big_data(image, "manifest") == await store.big_data(image, f"manifest-{image.digest}")
    names = sorted(os.listdir(root / "overlay-images" / image.id))
    assert [name[:1] for name in names] == ["=", "=", "m"]
    assert {path.stat().st_mode & 0o7777 for path in (root / "overlay-images" / image.id).iterdir()} == {0o600}
    assert leftovers(root) == []
    assert oct((root / "overlay-layers/layers.lock").stat().st_size) == oct(64)
    assert (root / "overlay-images/images.lock").stat().st_size == 64


async def test_a_staging_that_is_closed(store: Store, config: StoreConfig) -> None:
    async with store.stage() as staging:
        image = new_image("localhost/app:1", stage_layers(staging, made(BASE)))
    with pytest.raises(StoreError, match="closed"):
        await store.commit(staging, image)
    assert records(config, "layer") == []


async def test_an_image_without_layers(store: Store, config: StoreConfig) -> None:
    image = await commit_image(store, "localhost/empty:1")
    assert image.layer is None
    assert "layer" not in records(config, "image")[0]


async def test_without_a_usable_time_the_image_is_of_now(store: Store) -> None:
    async with store.stage() as staging:
        layers = stage_layers(staging, made(BASE))
        image = await store.commit(staging, new_image(None, layers, created="the other day"))
    assert image.created.startswith("20")
    async with store.stage() as staging:
        layers = stage_layers(staging, made(BASE))
        image = await store.commit(staging, new_image(None, layers, remark="2", created="2001-02-03T04:05:06+01:00"))
    assert image.created == "2001-02-03T04:05:06+01:00"


# --------------------------------------------------------------------------------------- layers of others


async def test_layers_that_are_there_are_reused(store: Store, config: StoreConfig) -> None:
    first = await commit_image(store, "localhost/app:1", BASE, MIDDLE)
    before = everything_in(config.graph_root / "overlay" / str(first.layer))
    reuse = [layer.id for layer in await store.layers()]
    second = await commit_image(store, "localhost/app:2", BASE, MIDDLE, TOP, reuse=reuse)
    assert len(await store.layers()) == 3
    assert second.layer != first.layer
    assert everything_in(config.graph_root / "overlay" / str(first.layer)) == before


async def test_of_layers_that_somebody_made_meanwhile_ours_are_dropped(store: Store, config: StoreConfig) -> None:
    async with store.stage() as staging:
        ours = stage_layers(staging, made(BASE, MIDDLE, TOP))
        theirs = await commit_image(store, "localhost/their:1", BASE, MIDDLE)
        link = (config.graph_root / "overlay" / str(theirs.layer) / "link").read_text()
        await store.commit(staging, new_image("localhost/our:1", ours))
    assert len(records(config, "layer")) == 3
    top = config.graph_root / "overlay" / ours[-1].id
    assert (top / "lower").read_text().split(":")[0] == f"l/{link}"  # prepared for our own parent, written again
    assert len(os.listdir(config.graph_root / "overlay/l")) == 3
    assert leftovers(config.graph_root) == []


async def test_a_layer_to_be_reused_that_is_gone(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    (base,) = await store.layers()
    async with store.stage() as staging:
        layers = stage_layers(staging, made(BASE, TOP), reuse=[base.id])
        await store.remove_image("localhost/app:1")
        with pytest.raises(NotInStoreError, match=base.id) as caught:
            await store.commit(staging, new_image("localhost/app:2", layers))
        assert caught.value.hint
    assert await store.images() == []
    assert records(config, "layer") == []
    assert leftovers(config.graph_root) == []


async def test_a_stray_directory_in_the_place_of_a_layer_is_replaced(store: Store, config: StoreConfig) -> None:
    base = MadeLayer(BASE).diff_id.encoded
    stray = config.graph_root / "overlay" / base
    (stray / "diff").mkdir(parents=True)
    (stray / "diff/stray").touch()
    (stray / "link").write_text("A" * 26)
    (config.graph_root / "overlay/l" / ("A" * 26)).symlink_to(f"../{base}/diff")
    (config.graph_root / f"overlay-layers/{base}.tar-split.gz").write_bytes(b"stray")
    await commit_image(store, "localhost/app:1", BASE)
    assert os.listdir(stray / "diff") == ["etc"]
    assert len(os.listdir(config.graph_root / "overlay/l")) == 1
    assert store.tar_split_path(base).read_bytes() != b"stray"
    assert leftovers(config.graph_root) == []


async def test_a_layer_recorded_on_another_parent_is_damage(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE, MIDDLE)
    path = config.graph_root / "overlay-layers/layers.json"
    damaged = orjson.loads(path.read_bytes())
    del damaged[1]["parent"]
    path.write_bytes(orjson.dumps(damaged))
    with pytest.raises(StoreCorruptError, match="belongs on"):
        await commit_image(store, "localhost/app:2", BASE, MIDDLE, TOP)
    assert orjson.loads(path.read_bytes()) == damaged


async def test_many_commits_at_once_share_their_layers(store: Store, config: StoreConfig) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(
                commit_image(
                    store, f"localhost/app:{number}", BASE, MIDDLE, {"own": b"%d" % number}, remark=str(number)
                )
            )
    assert len(await store.images()) == 8
    assert len(await store.layers()) == 2 + 8
    assert leftovers(config.graph_root) == []


# --------------------------------------------------------------------------------------------- the image


async def test_the_same_image_again_gets_one_more_name(store: Store, config: StoreConfig) -> None:
    first = await commit_image(store, "localhost/app:1", BASE)
    (config.graph_root / "overlay-images" / first.id / "manifest").write_bytes(b"damaged")
    second = await commit_image(store, "localhost/app:2", BASE)
    assert second.id == first.id
    assert second.names == ("localhost/app:2", "localhost/app:1")
    assert second.names_history == ("localhost/app:1", "localhost/app:2")
    assert (second.created, second.digest) == (first.created, first.digest)
    assert Digest.of(await store.big_data(second, "manifest")) == Digest.parse(first.digest)
    assert len(await store.images()) == 1


async def test_a_name_moves_to_the_newer_image(store: Store) -> None:
    old = await commit_image(store, "localhost/app:1", BASE)
    new = await commit_image(store, "localhost/app:1", TOP)
    assert (await store.image("localhost/app:1")).id == new.id
    old = await store.image(old.id)
    assert old.names == ()
    assert old.names_history == ("localhost/app:1",)


async def test_the_same_image_on_other_layers_is_damage(store: Store, config: StoreConfig) -> None:
    async with store.stage() as staging:
        image = new_image("localhost/app:1", stage_layers(staging, made(BASE)))
        await store.commit(staging, image)
    before = everything_in(config.graph_root)
    async with store.stage() as staging:
        with pytest.raises(StoreCorruptError, match=image.id):
            await store.commit(staging, replace(image, layers=stage_layers(staging, made(TOP))))
    after = everything_in(config.graph_root)
    assert {name: before[name] for name in before if not name.endswith(("tempdirs", "tmp"))}.items() <= after.items()
    assert len(await store.layers()) == 1  # the layer that was added first has been taken back
    assert leftovers(config.graph_root) == []


# ------------------------------------------------------------------------------------------- refused at once


async def test_more_layers_than_overlay_mounts(store: Store, config: StoreConfig) -> None:
    contents = [{"n": b"%d" % number} for number in range(501)]
    layers = []
    parent = None
    for layer in made(*contents):
        own = layer_id(parent, layer.diff_id)
        layers.append(NewLayer(own, parent, None, layer.diff_id))
        parent = own
    async with store.stage() as staging:
        with pytest.raises(TooManyLayersError, match="501"):
            await store.commit(staging, new_image("localhost/tall:1", tuple(layers)))
    assert records(config, "layer") == []


@pytest.mark.parametrize("defect", ["id", "parent", "manifest", "image"])
async def test_what_must_never_be_recorded(store: Store, config: StoreConfig, defect: str) -> None:
    async with store.stage() as staging:
        layers = stage_layers(staging, made(BASE, TOP))
        image = new_image("localhost/app:1", layers)
        wrong = {
            "id": replace(image, layers=(layers[0], replace(layers[1], id="0" * 64))),
            "parent": replace(image, layers=(layers[1],)),
            "manifest": replace(image, big_data=image.big_data[:2]),
            "image": replace(image, id="short"),
        }[defect]
        with pytest.raises(ValueError, match=r"\S"):
            await store.commit(staging, wrong)
    assert records(config, "layer") == []
    assert leftovers(config.graph_root) == []


# --------------------------------------------------------------------------------------- locks and others


async def test_waits_for_another_program_and_cancelling_the_wait_changes_nothing(
    store: Store, config: StoreConfig
) -> None:
    layers_lock = config.graph_root / "overlay-layers/layers.lock"
    async with store.stage() as staging:
        image = new_image("localhost/app:1", stage_layers(staging, made(BASE)))
        async with locked(layers_lock, LockMode.EXCLUSIVE):
            commit = asyncio.create_task(store.commit(staging, image))
            while waiters(layers_lock) == 0:
                await asyncio.sleep(0.001)
            commit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await commit
        assert await store.images() == []
        await store.commit(staging, image)  # the staging is as good as before
    assert len(await store.images()) == 1


async def test_cancelled_at_any_moment_it_is_done_or_not(place: Path) -> None:
    config = config_at(place)
    done = set()
    for delay in range(60):
        async with Store.open(config) as store, store.stage() as staging:
            image = new_image(f"localhost/app:{delay}", stage_layers(staging, made(BASE, {"n": b"%d" % delay})))
            commit = asyncio.create_task(store.commit(staging, image))
            for _ in range(delay):
                await asyncio.sleep(0.0002)
            commit.cancel()
            await asyncio.wait([commit])
            is_there = image.id in {record.id for record in await store.images()}
            done.add(is_there)
            assert is_there or commit.cancelled()
            assert {layer.id for layer in await store.layers()} >= {layer.id for layer in image.layers if is_there}
        assert leftovers(config.graph_root) == []
        assert not any("flags" in record for record in records(config, "layer"))
    assert done == {True, False}
