"""The tar streams of layers and containers, and what they change."""

from __future__ import annotations

import os
import random
import shutil
import stat
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import DigestMismatchError, NotInStoreError, StoreCorruptError, UnsupportedMemberError
from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.tree.changes import Change, ChangeKind
from tests.store.archived import put_archives
from tests.support.layer_reading import read_layer
from tests.support.tars import directory, file, hard_link, symlink, tar, whiteout
from tests.support.trees import differences, list_tree

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.store.store import Store
    from asyncpull.store.views import ContainerRecord

pytestmark = pytest.mark.root

BASE = tar(
    [
        directory("etc"),
        file("etc/hosts", b"hosts"),
        file("etc/gone", b"gone"),
        directory("old"),
        file("old/inside", b"inside"),
        file("big", random.Random(4).randbytes(2_500_000), 0o4755),
        hard_link("second", "big", 0o4755),
        symlink("link", "/etc/hosts"),
    ]
)
TOP = tar([directory("etc"), whiteout("etc/gone"), file("etc/new", b"new"), file("etc/hosts", b"other hosts")])


async def exported(store: Store, target: str) -> bytes:
    return b"".join([piece async for piece in store.export(target)])


def told(changes: list[Change]) -> list[str]:
    return [f"{change.kind.value} /{os.fsdecode(change.path)}" for change in changes]


async def container_on(store: Store, *archives: bytes) -> ContainerRecord:
    return await store.create_container(await put_archives(store, archives, "localhost/a:1"), "c")


async def test_a_layer_is_what_it_was_made_from(store: Store) -> None:
    image = await put_archives(store, [BASE, TOP], "localhost/a:1")
    assert await exported(store, "localhost/a:1") == TOP
    assert image.layer is not None
    base = (await store.layer(image.layer)).parent
    assert base is not None
    assert await exported(store, base) == BASE


async def test_pieces_are_bounded_and_giving_up_leaves_nothing_open(store: Store) -> None:
    await put_archives(store, [BASE], "localhost/a:1")
    sizes = [len(piece) async for piece in store.export("localhost/a:1")]
    assert max(sizes) < 3 << 20
    before = len(os.listdir("/proc/self/fd"))
    async with aclosing(store.export("localhost/a:1")) as stream:
        assert await anext(stream)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_layer_that_was_changed_is_not_exported(store: Store) -> None:
    image = await put_archives(store, [BASE], "localhost/a:1")
    assert image.layer is not None
    diff = store.diff_path(image.layer)
    (diff / "etc" / "hosts").write_bytes(b"HOSTS")
    with pytest.raises(DigestMismatchError):
        await exported(store, "localhost/a:1")
    (diff / "etc" / "hosts").unlink()
    with pytest.raises(StoreCorruptError, match="etc/hosts"):
        await exported(store, "localhost/a:1")


async def test_a_tar_split_of_another_layer_is_found_out(store: Store) -> None:
    image = await put_archives(store, [BASE, TOP], "localhost/a:1")
    assert image.layer is not None
    other = await put_archives(store, [tar([directory("x")])], "localhost/b:1")
    assert other.layer is not None
    shutil.copy(store.tar_split_path(other.layer), store.tar_split_path(image.layer))
    with pytest.raises(DigestMismatchError, match=image.layer):
        await exported(store, "localhost/a:1")


async def test_what_is_not_there(store: Store) -> None:
    for look in (store.changes("nothing"), exported(store, "nothing")):
        with pytest.raises(NotInStoreError):
            await look


def work_in(rootfs: Path) -> None:
    """Change all that a container can change."""
    (rootfs / "etc" / "hosts").write_text("mine")
    (rootfs / "etc" / "gone").unlink()
    shutil.rmtree(rootfs / "old")
    (rootfs / "old").mkdir()
    (rootfs / "old" / "young").write_bytes(b"young")
    long = rootfs / ("d" * 90) / ("e" * 90)
    long.mkdir(parents=True)
    (long / "\u00e4").write_bytes(b"x" * 1025)
    os.link(long / "\u00e4", rootfs / "another")
    os.chown(rootfs / "another", 3_000_000, 7)
    (rootfs / "another").chmod(0o6711)
    os.setxattr(rootfs / "another", "user.one", b"1\n=2")
    os.symlink("/nowhere", rootfs / "dangling")
    os.mkfifo(rootfs / "fifo")
    os.mknod(rootfs / "device", 0o020640, os.makedev(10, 200))
    os.mknod(rootfs / "socket", stat.S_IFSOCK)


async def test_a_container_gives_a_tar_that_makes_the_same_tree(store: Store, tmp_path: Path) -> None:
    container = await container_on(store, BASE)
    async with store.mounted(container) as rootfs:
        work_in(rootfs)
    archive = await exported(store, "c")
    assert await exported(store, "c") == archive
    again = tmp_path / "again"
    again.mkdir()
    with (tmp_path / "split").open("wb") as split:
        applied = apply_layer([archive], again, split.write, ApplyOptions(store.marks))
    assert applied.implied == ()
    ours, theirs = list_tree(again), list_tree(store.diff_path(container.layer))
    for made_by_extraction in (".", "etc/gone", "old", "d" * 90, f"{'d' * 90}/{'e' * 90}", "socket"):
        ours.pop(made_by_extraction, None)
        theirs.pop(made_by_extraction, None)
    copied_up = {"etc", "etc/hosts"}  # overlay notes where these came from
    assert {line.partition(":")[0] for line in differences(ours, theirs)} <= copied_up
    names = [member.name for member in read_layer([archive]).members]
    assert b"etc/.wh.gone" in names
    assert b"old/.wh..wh..opq" in names
    assert b"socket" not in names


async def test_what_a_container_changed(store: Store) -> None:
    container = await container_on(store, BASE)
    assert await store.changes(container) == []
    async with store.mounted(container) as rootfs:
        (rootfs / "etc" / "hosts").write_text("mine")
        (rootfs / "etc" / "gone").unlink()
        (rootfs / "etc" / "new").write_text("new")
    expected = ["C /etc", "D /etc/gone", "C /etc/hosts", "A /etc/new"]
    assert told(await store.changes("c")) == expected
    assert told(await store.changes("c", "localhost/a:1")) == expected
    assert await store.mounts() == []


async def test_two_images_are_compared_as_they_are_seen(store: Store) -> None:
    await put_archives(store, [BASE, TOP], "localhost/a:1")
    await put_archives(store, [BASE], "localhost/b:1")
    assert told(await store.changes("localhost/a:1")) == ["C /etc", "D /etc/gone", "C /etc/hosts", "A /etc/new"]
    assert told(await store.changes("localhost/b:1", "localhost/a:1")) == [
        "C /etc",
        "A /etc/gone",
        "C /etc/hosts",
        "D /etc/new",
    ]
    assert {change.kind for change in await store.changes("localhost/b:1")} == {ChangeKind.ADDED}
    assert await store.mounts() == []


async def test_a_renamed_directory_is_told_with_what_is_in_it(store: Store) -> None:
    container = await container_on(store, BASE)
    path = await store.mount(container)
    try:
        upper = store.diff_path(container.layer)
        (path / "moved").mkdir()
        (path / "moved" / "inside").write_bytes(b"x")
    finally:
        await store.unmount(container)
    # As overlay has it with redirect_dir=on: the directory without its content, and whence that comes.
    shutil.rmtree(upper / "moved")
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"/old")
    os.mknod(upper / "old", 0o020000)
    async with store.mounted(container) as rootfs:
        if not (rootfs / "moved" / "inside").exists():
            pytest.skip("this kernel does not follow renamed directories")
    assert told(await store.changes(container)) == ["A /moved", "A /moved/inside", "D /old"]
    names = [member.name for member in read_layer([await exported(store, "c")]).members]
    assert names == [b"moved/", b"moved/inside", b".wh.old"]


async def test_a_name_that_means_a_whiteout_is_refused(store: Store) -> None:
    container = await container_on(store, BASE)
    (store.diff_path(container.layer) / ".wh.etc").write_bytes(b"")
    with pytest.raises(UnsupportedMemberError, match="wh"):
        await exported(store, "c")
