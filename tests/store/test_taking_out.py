"""What is taken out of a store is the same whatever the driver: archives, changes, images of containers."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.config import StoreConfig
from asyncpull.store.containercommit import CommitOptions
from asyncpull.store.containers import ContainerSpec
from asyncpull.store.idmap import IDMap, IDMappings
from asyncpull.store.store import Store
from asyncpull.tree.marks import Marks
from tests.store.archived import put_archives
from tests.store.test_exporter import BASE, TOP, exported, told, work_in
from tests.support.layer_reading import read_layer
from tests.support.loops import loop_mounted
from tests.support.trees import differences, list_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

MAPS = IDMappings((IDMap(0, 100000, 1000), IDMap(3_000_000, 5, 1)), (IDMap(0, 200000, 1000),))
ONE_RANGE = IDMappings((IDMap(0, 100000, 1000),), (IDMap(0, 200000, 1000),))
OPTIONS = CommitOptions(("made",), created="2026-01-02T03:04:05Z")


@pytest.fixture(params=["overlay", "fuse-overlayfs", "vfs", "btrfs"])
def config(request: pytest.FixtureRequest, place: Path) -> Iterator[StoreConfig]:
    driver: str = request.param
    if driver == "fuse-overlayfs":
        if (program := shutil.which(driver)) is None or not os.path.exists("/dev/fuse"):
            pytest.skip("no fuse-overlayfs, or no FUSE")
        yield StoreConfig(place / "g", place / "r", "overlay", mount_program=program)
        return
    if driver != "btrfs":
        yield StoreConfig(place / "g", place / "r", driver)
        return
    with loop_mounted(place / "disk", driver) as disk:
        yield StoreConfig(disk / "g", place / "r", driver)


@pytest.fixture
async def store(config: StoreConfig) -> AsyncIterator[Store]:
    async with Store.open(config) as opened:
        yield opened


async def test_a_layer_comes_out_as_it_went_in(store: Store) -> None:
    image = await put_archives(store, [BASE, TOP], "localhost/a:1")
    assert image.layer is not None
    below = (await store.layer(image.layer)).parent
    assert below is not None
    assert await exported(store, image.layer) == TOP
    assert await exported(store, below) == BASE


async def test_what_a_container_changed_is_the_layer_of_its_image(store: Store) -> None:
    image = await put_archives(store, [BASE, TOP], "localhost/a:1")
    container = await store.create_container(image, "c")
    assert await store.changes("c") == []
    async with store.mounted(container) as rootfs:
        (rootfs / "etc" / "gone").write_text("is in no layer but the base")
        work_in(rootfs)
        shutil.rmtree(rootfs / "etc")
        (rootfs / "etc").mkdir()
        (rootfs / "etc" / "hosts").write_text("yet other hosts")
    async with store.mounted(container) as rootfs:  # FUSE settles times when files are written back
        before = list_tree(rootfs)
    # Of a directory that was replaced, marks say that it is gone; comparison says what is gone of it.
    told_of = told(await store.changes("c"))
    assert {"A /another", "A /old/young"} <= set(told_of)
    assert ("D /old" in told_of) is not ("D /old/inside" in told_of)

    made = await store.commit_container("c", OPTIONS)

    async with store.mounted(made) as rootfs:
        after = list_tree(rootfs)
    del before["socket"], before["."], after["."]
    assert differences(after, before) == []
    assert made.layer is not None
    layer, archive = await store.layer(made.layer), await exported(store, made.layer)
    assert layer.diff_digest == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert layer.diff_size == len(archive)
    assert {3_000_000, 0} == set(layer.uidset)
    names = [member.name for member in read_layer([archive]).members]
    assert (b"old/.wh..wh..opq" in names) is not (b"old/.wh.inside" in names)
    assert (await store.commit_container("c", OPTIONS)).id == made.id
    report = await store.check(full=True)
    assert report.findings == ()
    assert await store.mounts() == []


async def test_one_container_is_compared_with_another(store: Store) -> None:
    image = await put_archives(store, [BASE], "localhost/a:1")
    one, two = [await store.create_container(image, name) for name in ("one", "two")]
    async with store.mounted(one) as rootfs:
        (rootfs / "etc" / "one").write_text("1")
    async with store.mounted(two) as rootfs:
        (rootfs / "etc" / "two").write_text("2")
        os.chmod(rootfs / "etc" / "hosts", 0o600)
    assert told(await store.changes("two", "one")) == ["C /etc", "C /etc/hosts", "D /etc/one", "A /etc/two"]
    assert told(await store.changes("two", image)) == ["C /etc", "C /etc/hosts", "A /etc/two"]


async def test_a_container_on_nothing(store: Store) -> None:
    container = await store.create_container(None, "empty")
    async with store.mounted(container) as rootfs:
        (rootfs / "bin").mkdir()
        (rootfs / "bin" / "tool").write_bytes(b"tool")
    assert told(await store.changes("empty")) == ["A /bin", "A /bin/tool"]
    image = await store.commit_container("empty", OPTIONS)
    assert image.layer is not None
    assert (await store.layer(image.layer)).parent is None
    async with store.mounted(image) as rootfs:
        assert (rootfs / "bin" / "tool").read_bytes() == b"tool"
    report = await store.check(full=True)
    assert report.findings == ()


@pytest.mark.parametrize("maps_owners", [True, False])
async def test_a_container_with_other_ids_gives_an_image_with_those_of_images(
    store: Store, maps_owners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a mount that maps owners, or a copy of the layer with other owners, made from or into each other."""
    if not maps_owners and store.marks is Marks.AUFS:
        pytest.skip("a mount program maps owners, whatever the kernel can")
    if not maps_owners:
        monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    elif store.marks is Marks.NONE:
        pytest.skip("nothing is mounted by this driver")
    # Mount programs map one range.
    mappings, outside, inside = (ONE_RANGE, 100005, 5) if store.marks is Marks.AUFS else (MAPS, 5, 3_000_000)
    image = await put_archives(store, [BASE, TOP], "localhost/a:1")
    container = await store.create_container(image, "c", spec=ContainerSpec(mappings=mappings))
    parent = (await store.layer(container.layer)).parent
    assert parent is not None
    assert await exported(store, parent) == TOP
    assert await store.changes("c") == []
    async with store.mounted(container) as rootfs:
        assert (rootfs / "etc" / "hosts").stat().st_uid == 100000
        (rootfs / "etc" / "hosts").write_text("mine")
        (rootfs / "etc" / "mine").write_text("mine")
        for name in ("etc/mine", "etc/hosts"):
            os.chown(rootfs / name, outside, 200007)
            (rootfs / name).chmod(0o4711)
    assert told(await store.changes("c")) == ["C /etc", "C /etc/hosts", "A /etc/mine"]
    (member,) = [each for each in read_layer([await exported(store, "c")]).members if each.name == b"etc/mine"]
    assert (member.uid, member.gid, member.mode) == (inside, 7, 0o4711)
    made = await store.commit_container("c", OPTIONS)
    async with store.mounted(made) as rootfs:
        assert (rootfs / "etc" / "mine").stat().st_uid == inside
        assert (rootfs / "etc" / "mine").stat().st_mode & 0o7777 == 0o4711
        assert (rootfs / "etc" / "new").stat().st_uid == (rootfs / "etc").stat().st_uid == rootfs.stat().st_uid == 0
    assert told(await store.changes(made)) == ["C /etc", "C /etc/hosts", "A /etc/mine"]
    assert (await store.check(full=True)).findings == ()


async def test_from_a_store_that_is_only_read(place: Path) -> None:
    lent = StoreConfig(place / "lent", place / "l", "overlay")
    async with Store.open(lent) as other:
        await put_archives(other, [BASE, TOP], "localhost/a:1")
    before = list_tree(lent.graph_root)
    async with Store.open(
        StoreConfig(place / "g", place / "r", "overlay", additional_roots=(lent.graph_root,))
    ) as store:
        assert await exported(store, "localhost/a:1") == TOP
        assert told(await store.changes("localhost/a:1")) == ["C /etc", "D /etc/gone", "C /etc/hosts", "A /etc/new"]
        container = await store.create_container("localhost/a:1", "c")
        async with store.mounted(container) as rootfs:
            (rootfs / "etc" / "hosts").write_text("mine")
        assert told(await store.changes("c")) == ["C /etc/hosts"]
        image = await store.image("localhost/a:1")
        assert told(await store.changes("c", image)) == ["C /etc/hosts"]
        made = await store.commit_container("c", OPTIONS)
        assert told(await store.changes(made)) == ["C /etc/hosts"]
        async with store.mounted(made) as rootfs:
            assert (rootfs / "etc" / "hosts").read_text() == "mine"
        assert (await store.check(full=True)).findings == ()
    assert differences(list_tree(lent.graph_root), before) == []
