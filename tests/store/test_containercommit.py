"""A container becomes an image, all of it or nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    InvalidReferenceError,
    NoSpaceError,
    NotInStoreError,
    StoreCorruptError,
    UnsupportedMemberError,
    UsageError,
)
from asyncpull.store.config import StoreConfig
from asyncpull.store.containercommit import CommitOptions
from asyncpull.store.store import Store
from tests.store.archived import put_archives
from tests.store.test_exporter import BASE, TOP, container_on, exported, told, work_in
from tests.support.loops import loop_mounted
from tests.support.trees import differences, list_tree

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.store.views import ImageRecord

pytestmark = pytest.mark.root

OPTIONS = CommitOptions(
    names=("made", "quay.io/org/made:2"),
    author="me",
    message="why",
    changes=('CMD ["sh"]',),
    created="2026-01-02T03:04:05.5Z",
)


async def documents(store: Store, image: ImageRecord) -> tuple[dict[str, object], dict[str, object]]:
    config = json.loads(await store.big_data(image, f"sha256:{image.id}"))
    return config, json.loads(await store.big_data(image, "manifest"))


def everything_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if ".lock" not in path.name)


async def test_the_image_is_what_the_container_was(store: Store) -> None:
    container = await container_on(store, BASE, TOP)
    async with store.mounted(container) as rootfs:
        work_in_top(rootfs)
        before = list_tree(rootfs)
    image = await store.commit_container(container, OPTIONS)
    assert image.names == ("localhost/made:latest", "quay.io/org/made:2")
    async with store.mounted(image) as rootfs:
        after = list_tree(rootfs)
    del before["socket"], before["."], after["."]  # the socket was in the root
    assert differences(after, before) == []
    assert image.layer is not None
    layer = await store.layer(image.layer)
    archive = await exported(store, image.layer)
    assert layer.diff_digest == layer.compressed_digest == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert (layer.diff_size, layer.compressed_size, layer.compression) == (len(archive), len(archive), 0)
    assert layer.parent == (await store.image("localhost/a:1")).layer
    config, manifest = await documents(store, image)
    assert config["author"] == "me"
    assert config["config"] == {"Cmd": ["sh"]}
    assert config["created"] == image.created == "2026-01-02T03:04:05.5Z"
    assert config["rootfs"]["diff_ids"][-1] == layer.diff_digest  # type: ignore[index]
    assert manifest["layers"][-1]["size"] == len(archive)  # type: ignore[index]
    assert manifest["annotations"]["org.opencontainers.image.base.name"] == "localhost/a:1"  # type: ignore[index]


def work_in_top(rootfs: Path) -> None:
    (rootfs / "etc" / "gone").write_text("is in no layer but the base")
    work_in(rootfs)


async def test_the_same_container_gives_the_same_image(store: Store) -> None:
    container = await container_on(store, BASE)
    async with store.mounted(container) as rootfs:
        work_in(rootfs)
    first = await store.commit_container(container, OPTIONS)
    count = len(await store.layers())
    second = await store.commit_container("c", OPTIONS)
    assert (first.id, first.layer, first.digest) == (second.id, second.layer, second.digest)
    assert len(await store.layers()) == count
    async with store.mounted(container) as rootfs:
        (rootfs / "etc" / "hosts").write_text("again")
    assert (await store.commit_container("c", OPTIONS)).id != first.id


async def test_an_image_of_an_image_and_what_remains_of_it(store: Store) -> None:
    first = await store.commit_container(await container_on(store, BASE), OPTIONS)
    again = await store.create_container(first, "second")
    async with store.mounted(again) as rootfs:
        (rootfs / "more").write_text("more")
    second = await store.commit_container(again, replace(OPTIONS, names=("second",), flavour="docker"))
    assert told(await store.changes(second)) == ["A /more"]
    config, manifest = await documents(store, second)
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert len(config["history"]) == len(manifest["layers"]) == 3  # type: ignore[arg-type]
    for name in ("second", "c"):
        await store.remove_container(name)
    for image in ("localhost/second", "localhost/a:1", first.id):
        await store.remove_image(image, force=True)
    assert (await store.layers(), await store.images()) == ([], [])


async def test_marks_that_mean_nothing_are_not_in_the_layer(store: Store) -> None:
    """Overlay makes every new directory opaque; only where there is something below it does that say anything."""
    container = await container_on(store, BASE)
    async with store.mounted(container) as rootfs:
        (rootfs / "fresh").mkdir()
    os.setxattr(store.diff_path(container.layer) / "fresh", "trusted.overlay.opaque", b"y")
    image = await store.commit_container(container, OPTIONS)
    assert image.layer is not None
    assert os.listxattr(store.diff_path(image.layer) / "fresh") == []
    assert b".wh." not in await exported(store, image.layer)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (CommitOptions(names=("UPPER CASE",)), InvalidReferenceError),
        (CommitOptions(changes=("RUN x",)), UsageError),
        (CommitOptions(created="yesterday"), UsageError),
    ],
)
async def test_options_that_cannot_be_meant(store: Store, options: CommitOptions, error: type[Exception]) -> None:
    container = await container_on(store, BASE)
    with pytest.raises(error):
        await store.commit_container(container, options)


async def test_after_a_failure_the_store_is_what_it_was(store: Store, config: StoreConfig) -> None:
    container = await container_on(store, BASE)
    diff = store.diff_path(container.layer)
    before = everything_in(config.graph_root)
    with pytest.raises(NotInStoreError):
        await store.commit_container("nothing")
    assert everything_in(config.graph_root) == before
    (diff / ".wh.x").write_bytes(b"")
    before = everything_in(config.graph_root)
    with pytest.raises(UnsupportedMemberError):
        await store.commit_container(container)
    assert everything_in(config.graph_root) == before
    (diff / ".wh.x").unlink()
    image = await store.image("localhost/a:1")
    path = next(path for path in (config.graph_root / "overlay-images" / image.id).iterdir() if path.name[0] == "=")
    whole = {path: path.read_bytes() for path in path.parent.iterdir()}
    for path, data in whole.items():
        path.write_bytes(data.replace(b'"diff_ids": ["sha256:', b'"diff_ids": ["sha256:' + b"0" * 64 + b'", "sha256:'))
    before = everything_in(config.graph_root)
    with pytest.raises(StoreCorruptError):
        await store.commit_container(container)
    assert everything_in(config.graph_root) == before


async def test_a_cancelled_commit_leaves_nothing(store: Store, config: StoreConfig) -> None:
    container = await container_on(store, BASE)
    async with store.mounted(container) as rootfs:
        for number in range(1500):
            (rootfs / f"file{number}").write_bytes(b"x" * 2000)
    before = everything_in(config.graph_root)
    ended = 0
    for steps in range(0, 60, 3):
        task = asyncio.ensure_future(store.commit_container(container, OPTIONS))
        for _ in range(steps):
            await asyncio.sleep(0.002)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            ended += 1
            assert everything_in(config.graph_root) == before
        else:
            await store.remove_image("localhost/made:latest", force=True)
            await store.remove_image("quay.io/org/made:2", force=True)
    assert ended > 2


async def test_a_socket_is_in_no_layer(store: Store) -> None:
    container = await container_on(store, BASE)
    async with store.mounted(container) as rootfs:
        os.mknod(rootfs / "old" / "socket", stat.S_IFSOCK)
    image = await store.commit_container(container, OPTIONS)
    assert image.layer is not None
    assert told(await store.changes(image)) == ["C /old"]
    assert (store.diff_path(image.layer) / "old").stat().st_mtime_ns == (
        store.diff_path(container.layer) / "old"
    ).stat().st_mtime_ns


async def test_a_renamed_directory_is_committed_with_what_is_in_it(store: Store) -> None:
    container = await container_on(store, BASE)
    async with store.mounted(container) as rootfs:
        (rootfs / "new").write_text("new")
    upper = store.diff_path(container.layer)
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"/old")
    os.mknod(upper / "old", 0o020000)
    async with store.mounted(container) as rootfs:
        if not (rootfs / "moved" / "inside").exists():
            pytest.skip("this kernel does not follow renamed directories")
        before = list_tree(rootfs)
    image = await store.commit_container(container, OPTIONS)
    async with store.mounted(image) as rootfs:
        after = list_tree(rootfs)
    for merged in (".", "moved"):  # overlay counts no links of a directory that comes from several layers
        del before[merged], after[merged]
    assert differences(after, before) == []
    assert await store.mounts() == []


async def test_images_of_two_containers_at_once(store: Store) -> None:
    image = await put_archives(store, [BASE], "localhost/a:1")
    containers = [await store.create_container(image, f"c{number}") for number in range(4)]
    for container in containers:
        (store.diff_path(container.layer) / "mine").write_text(container.id)
    made = await asyncio.gather(*(store.commit_container(each, CommitOptions((each.names[0],))) for each in containers))
    assert len({image.id for image in made}) == 4
    assert [image.names[0] for image in made] == [f"localhost/c{number}:latest" for number in range(4)]


async def test_a_full_disk_leaves_the_store_as_it_was(place: Path) -> None:
    with loop_mounted(place / "disk", "ext4") as disk:
        async with Store.open(StoreConfig(disk / "g", place / "r")) as store:
            container = await container_on(store, BASE)
            (store.diff_path(container.layer) / "large").write_bytes(os.urandom(2_000_000))
            filler = disk / "filler"
            room = os.statvfs(disk)
            filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize - 1_000_000))
            before = everything_in(disk)
            with pytest.raises(NoSpaceError):
                await store.commit_container(container, OPTIONS)
            assert everything_in(disk) == before
            filler.unlink()
            await store.commit_container(container, OPTIONS)
            assert (await store.check(full=True)).findings == ()
