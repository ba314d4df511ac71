"""Copies of unpacked layers: equal in everything, by whatever means the file systems have."""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import NoSpaceError
from asyncpull.extract.implied import implied_directories
from asyncpull.tree.copy import copy_tree
from tests.extract.conftest import ACL
from tests.support.tars import (
    DAY_ONE,
    character_device,
    directory,
    fifo,
    file,
    hard_link,
    opaque,
    symlink,
    whiteout,
)
from tests.support.trees import differences, list_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.extract.conftest import Layer, Layers
    from tests.support.trees import TreeEntry

pytestmark = pytest.mark.root

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
EVERYTHING = [
    directory("d", 0o2775).with_(gid=5, mtime_ns=DAY_ONE + 1, xattrs={"system.posix_acl_default": ACL}),
    file("d/big", random.Random(1).randbytes(3_000_000), 0o4755).with_(uid=3, mtime_ns=DAY_ONE + 2),
    file("d/empty", b"", 0o000),
    file("d/sub/ping", b"x", 0o755).with_(uid=4, xattrs={"security.capability": CAPABILITY, "user.note": b"n"}),
    hard_link("h", "d/big", 0o4755).with_(uid=3),
    symlink("l", "/d").with_(uid=6, mtime_ns=DAY_ONE + 3, xattrs={"trusted.x": b"x"}),
    hard_link("d/l2", "l"),
    symlink("to-nowhere", "../../outside"),
    file(b"caf\xe9", b"1"),
    fifo("p", 0o622),
    hard_link("d/p2", "p", 0o622),
    character_device("c", 1, 3, 0o4666).with_(gid=9),
    whiteout("gone").with_(uid=8),
    opaque("d"),
    directory("locked", 0o000),
    file(".wh..wh..opq"),
]


def copied(layer: Layer, destination: Path) -> Path:
    destination.mkdir()
    before = os.listdir("/proc/self/fd")
    copy_tree(layer.diff, destination)
    assert os.listdir("/proc/self/fd") == before
    return destination


def assert_equal(layer: Layer, copy: Path) -> None:
    ours, theirs = listed(copy), listed(layer.diff)
    assert ours.pop(".").xattrs == theirs.pop(".").xattrs
    assert differences(ours, theirs) == []


def listed(top: Path) -> dict[str, TreeEntry]:
    """List a tree, but for what file systems have their own ways with: links of directories, ACLs shown twice."""
    return {
        path: replace(
            entry,
            links=0 if stat.S_ISDIR(entry.mode) else entry.links,
            xattrs=tuple(each for each in entry.xattrs if not each[0].startswith("trusted.SGI_ACL")),
        )
        for path, entry in list_tree(top).items()
    }


@pytest.fixture(params=["ext4", "btrfs", "xfs", "tmpfs"])
def file_system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of that kind: with and without reflinks."""
    kind: str = request.param
    mount = tmp_path / "mount"
    mount.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "tmpfs", str(mount)]
    else:
        if not shutil.which(f"mkfs.{kind}"):
            pytest.skip(f"no mkfs.{kind}")
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, 400 << 20)
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip(f"cannot mount {kind} here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_copy_is_equal_in_everything(layers: Layers) -> None:
    layer = layers.apply(EVERYTHING)
    assert_equal(layer, copied(layer, layers.home / "copy"))


def test_on_every_file_system(layers: Layers, file_system: Path) -> None:
    diff = file_system / "diff"
    diff.mkdir()
    everything = [each for each in EVERYTHING if "user.note" not in each.xattrs]
    layer = layers.apply(everything, diff=diff)
    assert_equal(layer, copied(layer, file_system / "copy"))


def test_from_one_file_system_to_another(layers: Layers, file_system: Path) -> None:
    layer = layers.apply([each for each in EVERYTHING if "user.note" not in each.xattrs])
    assert_equal(layer, copied(layer, file_system / "copy"))


def test_content_is_shared_where_the_file_system_can(layers: Layers, file_system: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(file_system)], capture_output=True, text=True, check=True)
    if kind.stdout.strip() not in ("btrfs", "xfs"):
        pytest.skip("a file system without reflinks")
    diff = file_system / "diff"
    diff.mkdir()
    layer = layers.apply([file("big", random.Random(2).randbytes(100 << 20))], diff=diff)
    os.sync()
    used = shutil.disk_usage(file_system).used
    copied(layer, file_system / "copy")
    os.sync()
    assert shutil.disk_usage(file_system).used < used + (50 << 20)


def test_no_link_is_followed_out_of_the_tree(layers: Layers) -> None:
    outside = layers.home / "outside"
    outside.mkdir()
    (outside / "f").touch()
    layer = layers.apply([symlink("l", str(outside)), symlink("f", str(outside / "f"))])
    copy = copied(layer, layers.home / "copy")
    assert os.readlink(copy / "l") == str(outside)
    assert os.listdir(outside) == ["f"]


def test_a_hard_link_to_another_tree_is_just_a_file(layers: Layers) -> None:
    layer = layers.apply([file("f", b"x"), file("g", b"x")])
    os.link(layer.diff / "f", layers.home / "elsewhere")
    copy = copied(layer, layers.home / "copy")
    assert os.lstat(copy / "f").st_nlink == 1


def test_a_source_that_became_a_link_is_not_followed(layers: Layers) -> None:
    (layers.home / "secret").mkdir()
    layer = layers.apply([directory("d")])
    (layer.diff / "d").rmdir()
    (layer.diff / "d").symlink_to(layers.home / "secret")
    assert stat.S_ISLNK(os.lstat(copied(layer, layers.home / "copy") / "d").st_mode)


def test_a_full_file_system(layers: Layers) -> None:
    mount = layers.home / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        layer = layers.apply([directory("d"), file("d/f", bytes(2 << 20))])
        with pytest.raises(NoSpaceError, match="d/f: No space left"):
            copied(layer, mount / "copy")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


# Which directories were only implied


def implied(layer: Layer, *names: str) -> tuple[bytes, ...]:
    return implied_directories(layer.diff, [os.fsencode(name) for name in names])


def test_directories_without_a_name_of_their_own_are_implied(layers: Layers) -> None:
    layer = layers.apply([directory("a"), file("a/b/c/f"), directory("a/b/c/d"), file("x/f"), directory("./y/")])
    names = ["a/", "a/b/c/f", "./a//b/c/d/", "x/f", "./y/"]
    assert implied(layer, *names) == layer.applied.implied == (b"a/b", b"a/b/c", b"x")


def test_names_through_links_count_where_they_lead(layers: Layers) -> None:
    entries = [directory("real"), symlink("l", "/real"), file("l/a/f"), directory("l/b"), directory("l/a/c")]
    layer = layers.apply(entries)
    names = [str(entry.name) for entry in entries]
    assert implied(layer, *names) == layer.applied.implied == (b"real/a",)


def test_a_directory_over_a_whiteout_does_not_count(layers: Layers) -> None:
    layer = layers.apply([whiteout("d"), file("d/e/f")])
    assert implied(layer, ".wh.d", "d/e/f") == layer.applied.implied == (b"d/e",)


def test_names_that_mean_nothing_here_do_no_harm(layers: Layers) -> None:
    layer = layers.apply([file("d/f")])
    assert implied(layer, "../d", "", "/", "d/f/x", "nowhere/x", ".wh..wh..opq", "d/.wh..wh..opq") == (b"d",)


def test_a_tree_without_directories(layers: Layers) -> None:
    assert implied(layers.apply([file("f")]), "f") == ()
