"""Layers at the moments that matter: incomplete ones found, trees in the way, saves that fail in the middle."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull.errors import NotInStoreError, StoreError
from asyncpull.lockfile import LockMode, locked
from asyncpull.store.driver.overlay import OverlayDriver
from asyncpull.store.layers import Layers, LayerWriter, new_record
from asyncpull.store.store import Store
from tests.store.made import commit_image, leftovers

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.store.config import StoreConfig

BASE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}


def mark_incomplete(config: StoreConfig, value: object, *ids: str) -> None:
    """Flag layers as a program that died in the middle leaves them."""
    path = config.graph_root / "overlay-layers/layers.json"
    records = orjson.loads(path.read_bytes())
    for record in records:
        if record["id"] in ids:
            record["flags"] = {"incomplete": value}
    path.write_bytes(orjson.dumps(records))


async def test_an_incomplete_layer_is_removed_with_all_it_has(
    store: Store, config: StoreConfig, caplog: pytest.LogCaptureFixture
) -> None:
    await commit_image(store, None, BASE, TOP)
    base, top = await store.layers()
    (config.graph_root / "overlay-layers" / top.id).mkdir()
    (config.graph_root / "overlay-layers" / top.id / "=Zm9v").write_bytes(b"big data")
    mark_incomplete(config, True, top.id)
    assert await store.layers() == [base]
    assert [vars(record)["layer"] for record in caplog.records if record.levelname == "WARNING"] == [top.id]
    assert not (config.graph_root / "overlay" / top.id).exists()
    assert len(os.listdir(config.graph_root / "overlay/l")) == 1
    assert sorted(os.listdir(config.graph_root / "overlay-layers")) == sorted(
        ["layers.json", "layers.lock", "tmp", f"{base.id}.tar-split.gz"]
    )
    assert leftovers(config.graph_root) == []


@pytest.mark.parametrize("value", [False, "true", 1])
async def test_only_true_means_incomplete(store: Store, config: StoreConfig, value: object) -> None:
    await commit_image(store, None, BASE)
    (base,) = await store.layers()
    mark_incomplete(config, value, base.id)
    assert len(await store.layers()) == 1
    assert (config.graph_root / "overlay" / base.id).is_dir()


async def test_an_incomplete_layer_is_no_layer_to_build_on(store: Store, config: StoreConfig) -> None:
    await commit_image(store, None, BASE)
    (base,) = await store.layers()
    mark_incomplete(config, True, base.id)
    with pytest.raises(NotInStoreError):
        await commit_image(store, None, BASE, TOP, reuse=[base.id])
    assert await store.layers() == []


async def test_an_incomplete_layer_without_anything_on_disk(store: Store, config: StoreConfig) -> None:
    await commit_image(store, None, BASE)
    path = config.graph_root / "overlay-layers/layers.json"
    records = [*orjson.loads(path.read_bytes()), {**new_record("f" * 64, None), "flags": {"incomplete": True}}]
    path.write_bytes(orjson.dumps(records))
    assert len(await store.layers()) == 1
    assert len(orjson.loads(path.read_bytes())) == 1


async def test_volatile_layers_of_others_survive_our_changes(store: Store, config: StoreConfig) -> None:
    path = config.graph_root / "overlay-layers/volatile-layers.json"
    data = orjson.dumps([new_record("f" * 64, None)])
    path.write_bytes(data)
    await commit_image(store, None, BASE)
    assert path.read_bytes() == data
    assert [layer.volatile for layer in await store.layers()] == [False, True]


async def test_a_tree_that_cannot_be_moved_away_is_an_error_that_says_so(store: Store, config: StoreConfig) -> None:
    await commit_image(store, None, BASE)
    (base,) = await store.layers()
    mark_incomplete(config, True, base.id)
    staging = config.graph_root / "overlay/tempdirs"
    staging.rmdir()
    staging.touch()  # where trees are moved to there is no directory any more
    before = (config.graph_root / "overlay-layers/layers.json").read_bytes()
    with pytest.raises(StoreError) as caught:
        await store.layers()
    assert str(staging) in str(caught.value)
    assert (config.graph_root / "overlay-layers/layers.json").read_bytes() == before
    staging.unlink()
    assert await store.layers() == []


async def test_a_chain_that_ends_nowhere_or_never(tmp_path: Path) -> None:
    layers = Layers(tmp_path, OverlayDriver(tmp_path))
    layers.directory.mkdir()
    records = [new_record("a", "b"), new_record("b", "a"), new_record("c", "missing"), new_record("d", None)]
    (layers.directory / "layers.json").write_bytes(orjson.dumps(records))
    async with locked(layers.table.lock_path, LockMode.EXCLUSIVE) as lock:
        writer = LayerWriter(layers, lock, layers.trash())
        assert writer.depth("d") == 1
        assert writer.depth(None) == 0
        for layer_id in ("a", "c"):
            with pytest.raises(NotInStoreError):
                writer.depth(layer_id)


def test_a_new_record_has_no_empty_keys() -> None:
    record = new_record("a" * 64, None, diff_size=0, compressed_diff_digest="", uidset=[], compression=2)
    assert list(record) == ["id", "created", "compression"]


async def test_half_written_files_are_swept_away_by_the_next_writer(store: Store, config: StoreConfig) -> None:
    for directory, name in (("layers", "layers"), ("images", "images"), ("containers", "containers")):
        (config.graph_root / f"overlay-{directory}/.tmp-{name}.json77").touch()
    await commit_image(store, "localhost/app:1", BASE)
    await store.create_container("app:1")
    assert leftovers(config.graph_root) == []


async def test_opening_clears_away_what_the_dead_left(config: StoreConfig) -> None:
    async with Store.open(config):
        pass
    for place in ("overlay/tempdirs", "overlay-layers/tmp"):
        (config.graph_root / place / "temp-dir-1/0-addition/diff").mkdir(parents=True)
        (config.graph_root / place / "lock-1").touch()
    async with Store.open(config) as store, store.stage() as staging:
        staged = staging.new_layer(None)
        async with Store.open(config):
            assert staged.diff.is_dir()  # what is held is left alone
    assert leftovers(config.graph_root) == []
    assert await asyncio.to_thread(lambda: sorted(os.listdir(config.graph_root / "overlay"))) == [
        ".has-mount-program",
        "l",
        "tempdirs",
    ]
