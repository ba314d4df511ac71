"""Additional image stores: what is there serves here, and is never changed from here."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import MountError, NotInStoreError, StoreError, StoreWriteError
from asyncpull.lockfile import LockMode, locked
from asyncpull.store.check.findings import Damage, Subject
from asyncpull.store.store import Store
from tests.store.made import MadeLayer, commit_image, config_at, everything_in, leftovers
from tests.support.images import image
from tests.support.pulls import bench_at, layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.store.config import StoreConfig

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")

BASE, TOP, OTHER = {"base": b"b"}, {"dir/top": b"t"}, {"other": b"o"}


@pytest.fixture
async def lender(tmp_path: Path) -> StoreConfig:
    """A store with one image of two layers, which others read."""
    config = config_at(tmp_path / "lender")
    async with Store.open(config) as store:
        await commit_image(store, "localhost/lent:1", BASE, TOP)
    return config


@pytest.fixture
def borrower(tmp_path: Path, lender: StoreConfig) -> StoreConfig:
    return replace(config_at(tmp_path / "own"), additional_roots=(lender.graph_root,))


async def test_what_is_lent_is_listed_read_only(borrower: StoreConfig) -> None:
    async with Store.open(borrower) as store:
        (image,) = await store.images()
        assert image.read_only
        assert [layer.read_only for layer in await store.layers()] == [True, True]
        assert (await store.image("lent:1")).id == image.id
        assert b"schemaVersion" in await store.big_data(image, "manifest")
        assert (store.diff_path(image.layer or "") / "dir/top").read_bytes() == b"t"
        assert store.tar_split_path(image.layer or "").is_file()
    assert not list((borrower.graph_root / "overlay").glob("?" * 64))


async def test_layers_that_are_lent_are_not_stored_again(borrower: StoreConfig, lender: StoreConfig) -> None:
    before = everything_in(lender.graph_root)
    async with Store.open(borrower) as store:
        lent = [layer.id for layer in await store.layers()]
        image = await commit_image(store, "localhost/mine:1", BASE, TOP, OTHER, reuse=lent)
        own = await store.layer(image.layer or "")
        assert not own.read_only
        assert own.parent in lent
        same = await commit_image(store, "localhost/same:1", BASE, TOP, reuse=lent)
        assert not (await store.image(same.id)).read_only
        assert {layer.id: layer.read_only for layer in await store.layers()} == {
            **dict.fromkeys(lent, True),
            own.id: False,
        }
        directory = borrower.graph_root / "overlay" / own.id
        assert (directory / "lower-layers").read_text() == ":".join(reversed(lent))
        links = [(lender.graph_root / "overlay" / layer / "link").read_text() for layer in reversed(lent)]
        assert (directory / "lower").read_text() == ":".join(f"l/{link}" for link in links)
        await store.remove_image(image.id)
        await store.remove_image(same.id, force=True)
        assert (await store.image("lent:1")).read_only
    assert everything_in(lender.graph_root) == before


async def test_what_is_lent_cannot_be_changed(borrower: StoreConfig, lender: StoreConfig) -> None:
    before = everything_in(lender.graph_root)
    async with Store.open(borrower) as store:
        for change in (
            store.remove_image("lent:1"),
            store.remove_image("lent:1", force=True),
        ):
            with pytest.raises(StoreWriteError, match="additional image store") as caught:
                await change
            assert caught.value.hint
    assert everything_in(lender.graph_root) == before


async def test_a_lent_image_that_gets_or_loses_a_name_has_a_record_here(
    borrower: StoreConfig, lender: StoreConfig
) -> None:
    before = everything_in(lender.graph_root)
    (raw,) = json.loads((lender.graph_root / "overlay-images/images.json").read_bytes())
    async with Store.open(borrower) as store:
        (lent,) = await store.images()
        tagged = await store.tag("lent:1", "localhost/another:1")
        assert tagged.names == ("localhost/another:1", "localhost/lent:1")
        assert await store.images() == [tagged]
        assert (tagged.read_only, tagged.id, tagged.created) == (False, lent.id, lent.created)
        (own,) = json.loads((borrower.graph_root / "overlay-images/images.json").read_bytes())
        for key in ("names", "names-history"):
            del own[key], raw[key]
        assert own == raw
        for key in lent.big_data_names:
            assert await store.big_data(tagged, key) == await store.big_data(lent, key)
        assert (await store.check(full=False)).findings == ()

        assert await store.remove_image(tagged.id, force=True) == (*tagged.names, tagged.id)
        assert await store.images() == [lent]
        assert (await store.untag("lent:1", "lent:1")).names == ()
        assert [image.names for image in await store.images()] == [()]
        with pytest.raises(NotInStoreError):
            await store.image("lent:1")
        with pytest.raises(NotInStoreError, match="has no name"):
            await store.untag(lent.id, "localhost/never:1")
    assert leftovers(borrower.graph_root) == []
    assert everything_in(lender.graph_root) == before


async def test_a_name_that_an_own_image_has_stays_there_when_a_lent_one_is_named(borrower: StoreConfig) -> None:
    async with Store.open(borrower) as store:
        own = await commit_image(store, "localhost/lent:1", OTHER)
        lent = next(image for image in await store.images() if image.read_only)
        tagged = await store.tag(lent, "localhost/more:1")
        assert tagged.names == ("localhost/more:1",)
        assert (await store.image("lent:1")).id == own.id
        assert (await store.tag(tagged, "localhost/lent:1")).names == ("localhost/lent:1", "localhost/more:1")
        assert (await store.image(own.id)).names == ()


async def test_a_pull_of_a_lent_image_keeps_the_names_it_has(borrower: StoreConfig) -> None:
    async with Store.open(borrower) as store:
        lent = [layer.id for layer in await store.layers()]
        image = await commit_image(store, "localhost/same:1", BASE, TOP, reuse=lent)
        assert image.names == ("localhost/same:1", "localhost/lent:1")


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("fails", ["the data", "the record", "the name"])
async def test_a_name_that_cannot_be_written_leaves_a_lent_image_what_it_was(
    borrower: StoreConfig, lender: StoreConfig, fails: str
) -> None:
    record = len((lender.graph_root / "overlay-images/images.json").read_bytes())
    size = {"the data": 0, "the record": record + 50, "the name": 2 * record + 100}[fails]
    async with Store.open(borrower) as store:
        own = await commit_image(store, "localhost/own:1", OTHER)
        lent = await store.image("lent:1")
        before = everything_in(borrower.graph_root)
        with _largest_file(size), pytest.raises(StoreError):
            await store.tag(lent, f"localhost/{'another' * 20}:1")
        assert everything_in(borrower.graph_root) == before
        assert await store.images() == [own, lent]


async def test_the_stores_own_records_come_first_then_stores_in_their_order(
    tmp_path: Path, borrower: StoreConfig
) -> None:
    second = config_at(tmp_path / "second")
    async with Store.open(second) as store:
        await commit_image(store, "localhost/lent:1", OTHER)
        await commit_image(store, "localhost/second:1", OTHER, remark="second")
    config = replace(borrower, additional_roots=(*borrower.additional_roots, second.graph_root))
    async with Store.open(config) as store:
        assert [image.names[0] for image in await store.images()] == [
            "localhost/lent:1",
            "localhost/lent:1",
            "localhost/second:1",
        ]
        found = await store.image("lent:1")
        assert (store.diff_path(found.layer or "") / "dir/top").is_file()


async def test_a_lender_that_is_changed_meanwhile_is_read_again(borrower: StoreConfig, lender: StoreConfig) -> None:
    async with Store.open(borrower) as store, Store.open(lender) as owner:
        assert len(await store.images()) == 1
        await commit_image(owner, "localhost/more:1", OTHER)
        assert len(await store.images()) == 2
        await owner.remove_image("localhost/lent:1")
        assert [image.names for image in await store.images()] == [("localhost/more:1",)]


async def test_only_shared_locks_are_taken_there(borrower: StoreConfig, lender: StoreConfig) -> None:
    parts = [lender.graph_root / f"overlay-{part}" / f"{part}.lock" for part in ("layers", "images")]
    async with (
        Store.open(borrower) as store,
        locked(parts[0], LockMode.SHARED),
        locked(parts[1], LockMode.SHARED),
    ):
        lent = [layer.id for layer in await store.layers()]
        await commit_image(store, "localhost/mine:1", BASE, TOP, OTHER, reuse=lent)


async def test_a_check_finds_nothing_wrong_with_layers_on_lent_ones(borrower: StoreConfig) -> None:
    async with Store.open(borrower) as store:
        lent = [layer.id for layer in await store.layers()]
        await commit_image(store, "localhost/mine:1", BASE, TOP, OTHER, reuse=lent)
        assert (await store.check(full=False)).findings == ()


@needs_mounts
async def test_a_full_check_reads_what_is_lent_and_a_repair_leaves_it_to_its_owner(tmp_path: Path) -> None:
    async with bench_at(tmp_path / "lender") as lender:
        await lender.puller.pull(lender.offer(image([layer("a"), layer("b")])))
        graph_root = lender.store.config.graph_root
    async with Store.open(replace(config_at(tmp_path / "own"), additional_roots=(graph_root,))) as store:
        assert (await store.check()).findings == ()
        damaged = (await store.layers())[1]
        (store.diff_path(damaged.id) / "b/file").write_bytes(b"other")
        before = everything_in(graph_root)
        for repair in (False, True):
            report = await store.check(repair=repair, force=True)
            assert {(each.subject, each.id) for each in report.findings} == {(Subject.LAYER, damaged.id)}
            assert Damage.CONTENT_MODIFIED in {each.damage for each in report.findings}
            assert not any(each.is_repairable or each.is_repaired for each in report.findings)
        assert everything_in(graph_root) == before


@needs_mounts
async def test_mounts_of_lent_layers_are_in_the_run_root(borrower: StoreConfig, lender: StoreConfig) -> None:
    before = everything_in(lender.graph_root)
    async with Store.open(borrower) as store:
        async with store.mounted("lent:1") as path:
            assert path.is_relative_to(borrower.run_root)
            assert {name.name for name in path.iterdir()} == {"base", "dir"}
        assert not path.parent.exists()
        container = await store.create_container("lent:1", "c")
        async with store.mounted(container) as path:
            assert path.is_relative_to(borrower.graph_root)
            (path / "dir/new").write_text("n")
            assert (path / "base").read_bytes() == b"b"
        await store.remove_container("c")
    assert everything_in(lender.graph_root) == before


@pytest.fixture
def frozen(tmp_path: Path, lender: StoreConfig) -> Iterator[StoreConfig]:
    """The lender's store on read-only media, with a run root that can be written."""
    point = tmp_path / "media"
    point.mkdir()
    subprocess.run(["mount", "--bind", lender.graph_root, point], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", point], check=True)
    try:
        yield replace(lender, graph_root=point)
    finally:
        subprocess.run(["umount", "-l", point], check=True)


@needs_mounts
async def test_a_store_on_read_only_media_can_be_looked_at_and_mounted(frozen: StoreConfig) -> None:
    before = everything_in(frozen.graph_root)
    async with Store.open(frozen) as store:
        (image,) = await store.images()
        assert len(await store.layers()) == 2
        assert (await store.containers(), await store.mounts()) == ([], [])
        assert await store.big_data(image, "manifest")
        assert (await store.status()).images == 1
        async with store.mounted(image) as path:
            assert path.is_relative_to(frozen.run_root)
            assert (path / "dir/top").read_bytes() == b"t"
            assert [mount.path for mount in await store.mounts()] == [path]
        assert await store.mounts() == []
    assert everything_in(frozen.graph_root) == before


@needs_mounts
async def test_a_store_on_read_only_media_refuses_every_change(frozen: StoreConfig) -> None:
    async with Store.open(frozen) as store:
        (image,) = await store.images()

        async def stage() -> None:
            async with store.stage():
                pass

        async def lock() -> None:
            async with store.image_lock(MadeLayer(OTHER).diff_id):
                pass

        for change in (
            store.tag(image, "localhost/x:1"),
            store.untag(image, "localhost/lent:1"),
            store.remove_image(image),
            store.create_container(image, "c"),
            stage(),
            lock(),
        ):
            with pytest.raises(StoreWriteError, match="read-only media") as caught:
                await change
            assert caught.value.hint


@needs_mounts
async def test_a_container_on_read_only_media_is_not_mounted_writable(
    tmp_path: Path, lender: StoreConfig, frozen: StoreConfig
) -> None:
    async with Store.open(lender) as store:
        await store.create_container("lent:1", "c")
    async with Store.open(frozen) as store:
        with pytest.raises(MountError, match="cannot be written"):
            await store.mount("c")
        assert await store.mounts() == []


@needs_mounts
async def test_read_only_media_without_lock_files_lend_too(
    borrower: StoreConfig, frozen: StoreConfig, lender: StoreConfig
) -> None:
    for path in lender.graph_root.glob("overlay-*/*.lock"):
        path.unlink()
    config = replace(borrower, additional_roots=(frozen.graph_root,))
    async with Store.open(config) as store:
        assert [image.read_only for image in await store.images()] == [True]
        container = await store.create_container("lent:1")
        async with store.mounted(container) as path:
            assert (path / "base").is_file()
    async with Store.open(frozen) as store:
        assert len(await store.layers()) == 2


@needs_mounts
async def test_read_only_media_without_a_store_are_refused(tmp_path: Path, frozen: StoreConfig) -> None:
    config = replace(frozen, graph_root=frozen.graph_root / "overlay")
    with pytest.raises(StoreWriteError, match="read-only media"):
        async with Store.open(config):
            pass


async def test_images_kept_apart_leave_the_graph_root_to_containers(tmp_path: Path) -> None:
    config = replace(config_at(tmp_path), image_root=tmp_path / "images")
    async with Store.open(config) as store:
        image = await commit_image(store, "localhost/apart:1", BASE, TOP)
        layers = [layer.id for layer in await store.layers()]
        container = await store.create_container(image, "c")
        assert sorted(path.name for path in (tmp_path / "images/overlay").glob("?" * 64)) == sorted(layers)
        assert [path.name for path in (config.graph_root / "overlay").glob("?" * 64)] == [container.layer]
        assert not list((tmp_path / "images/overlay-layers").glob("*.gz"))
        assert all((config.graph_root / "overlay-layers" / f"{layer}.tar-split.gz").is_file() for layer in layers)
        locks = [root / "overlay-layers/layers.lock" for root in (config.graph_root, tmp_path / "images")]
        before = [path.read_bytes() for path in locks]
        await store.remove_container("c")
        assert all(path.read_bytes() != old for path, old in zip(locks, before, strict=True))
        assert (await store.check(full=False)).findings == ()
        await store.remove_image(image)
        assert await store.layers() == []
    assert not list((tmp_path / "images/overlay").glob("?" * 64))
    assert not list((config.graph_root / "overlay-layers").glob("*.gz"))
    assert not list((tmp_path / "images/overlay/tempdirs").iterdir())


async def test_what_the_dead_left_where_images_are_kept_apart_is_found_and_cleared_away(tmp_path: Path) -> None:
    config, images = replace(config_at(tmp_path), image_root=tmp_path / "images"), tmp_path / "images"
    async with Store.open(config) as store:
        image = await commit_image(store, "localhost/apart:1", BASE)
        (images / "overlay/tempdirs/temp-dir-1/0-addition").mkdir(parents=True)
        (images / "overlay/tempdirs/lock-1").touch()
        (images / "overlay-layers/.tmp-layers.json1").touch()
        (finding,) = (await store.check(full=False)).findings
        assert (finding.damage, finding.path) == (Damage.ABANDONED, str(images / "overlay/tempdirs/temp-dir-1"))
        found = {finding.path for finding in await store.gc(dry_run=True)}
        assert found == {finding.path, str(images / "overlay-layers/.tmp-layers.json1")}
        assert all(finding.is_repaired for finding in await store.gc())
        assert not list(images.rglob("*-1")) + list(images.rglob(".tmp-*"))
        (images / "overlay/tempdirs/temp-dir-2").mkdir()
        (images / "overlay/tempdirs/lock-2").touch()
        (images / "overlay-layers/.tmp-layers.json2").touch()
        (finding,) = (await store.check(full=False, repair=True)).findings
        assert finding.is_repaired
        assert (await store.images()) == [image]
    async with Store.open(config) as store:
        await store.remove_image(image)
        assert not list(images.rglob(".tmp-*"))
        assert (await store.check(full=False)).findings == ()


async def test_complete_trees_of_images_kept_apart_are_not_missed(tmp_path: Path) -> None:
    config = replace(config_at(tmp_path), driver="vfs", image_root=tmp_path / "images")
    async with Store.open(config) as store:
        image = await commit_image(store, "localhost/apart:1", BASE)
        await store.create_container(image)
        assert (tmp_path / "images/vfs/dir" / str(image.layer)).is_dir()
        assert (await store.check(full=False)).findings == ()
        (tmp_path / "images/vfs/dir" / ("9" * 64)).mkdir()
        (finding,) = (await store.check(full=False, repair=True)).findings
        assert (finding.damage, finding.is_repaired) == (Damage.STRAY_TREE, True)


async def test_images_from_before_they_were_kept_apart_still_serve(tmp_path: Path) -> None:
    former = config_at(tmp_path)
    async with Store.open(former) as store:
        await commit_image(store, "localhost/former:1", BASE)
    async with Store.open(replace(former, image_root=tmp_path / "images")) as store:
        lent = [layer.id for layer in await store.layers()]
        await commit_image(store, "localhost/newer:1", BASE, TOP, reuse=lent)
        assert {image.names[0]: image.read_only for image in await store.images()} == {
            "localhost/newer:1": False,
            "localhost/former:1": True,
        }
        assert (await store.check(full=False)).findings == ()


async def test_a_damaged_layer_of_images_kept_apart_is_mended_in_its_place(tmp_path: Path) -> None:
    config = replace(config_at(tmp_path), image_root=tmp_path / "images")
    async with Store.open(config) as store:
        image = await commit_image(store, "localhost/apart:1", BASE, TOP)
        directory = tmp_path / "images/overlay" / (image.layer or "")
        (directory / "lower").unlink()
        (tmp_path / "images/overlay/l" / (directory / "link").read_text()).unlink()
        report = await store.check(full=False, repair=True)
        assert report.findings
        assert all(finding.is_repaired for finding in report.findings)
        assert (await store.check(full=False)).findings == ()
        assert (tmp_path / "images/overlay/l" / (directory / "link").read_text()).is_symlink()


async def test_records_of_containers_of_a_transient_store_are_in_the_run_root(tmp_path: Path) -> None:
    config = replace(config_at(tmp_path), is_transient=True)
    async with Store.open(config) as store:
        image = await commit_image(store, "localhost/t:1", BASE)
        container = await store.create_container(image, "c")
        assert container.volatile
        assert (await store.layer(container.layer)).volatile
    for part, record_id in (("containers", container.id), ("layers", container.layer)):
        assert record_id in (config.run_root / f"overlay-{part}/volatile-{part}.json").read_text()
        assert not (config.graph_root / f"overlay-{part}/volatile-{part}.json").exists()
    async with Store.open(config) as store:
        assert [each.id for each in await store.containers()] == [container.id]
        await store.remove_container("c")
        assert [layer.id for layer in await store.layers()] == [image.layer]
    assert (config.run_root / "overlay-containers/containers.lock").is_file()
