"""One layer on another, with every kind of marks: the kernel, a FUSE program and a complete tree show the same."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.tree.copy import copy_tree
from asyncpull.tree.marks import Marks
from tests.support.tars import directory, file, hard_link, opaque, symlink, whiteout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.extract.conftest import Layers
    from tests.support.tars import Entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which takes root")

BASE = [
    directory("d", 0o751),
    file("d/old", b"old"),
    directory("d/sub"),
    file("d/sub/old", b"old"),
    directory("e"),
    file("e/old", b"old"),
    file("f", b"old"),
    file("g", b"two names"),
    hard_link("h", "g"),
    symlink("l", "d"),
]

LAYERS = {
    "a file goes": [whiteout("f")],
    "one name of two goes": [whiteout("g")],
    "a link goes, not what it leads to": [whiteout("l")],
    "a directory goes": [whiteout("d")],
    "what is not there goes": [whiteout("nothing"), whiteout("d/nothing")],
    "a file in a directory": [directory("d", 0o700), whiteout("d/old")],
    "a file in an implied directory": [whiteout("d/sub/old")],
    "opaque first": [directory("d"), opaque("d"), file("d/new", b"new")],
    "opaque last": [directory("d"), file("d/new", b"new"), opaque("d")],
    "opaque without an entry": [opaque("d")],
    "opaque keeps what is implied": [directory("d"), file("d/sub/new", b"new"), opaque("d")],
    "opaque keeps what is nested": [directory("d"), directory("d/sub"), file("d/sub/new"), opaque("d")],
    "a new file for an old one": [file("f", b"new")],
    "a new file beside its whiteout": [whiteout("f"), file("f", b"new")],
    "a new file before its whiteout": [file("f", b"new"), whiteout("f")],
    "a new directory after its whiteout": [whiteout("d"), directory("d"), file("d/new", b"new")],
    "a new directory before its whiteout": [directory("d"), file("d/new", b"new"), whiteout("d")],
    "an implied directory after its whiteout": [whiteout("d"), file("d/new", b"new")],
    "an implied directory before its whiteout": [file("d/new", b"new"), whiteout("d")],
    "whiteouts below a whiteout": [whiteout("d"), whiteout("d/old"), opaque("d"), whiteout("d/a/b")],
    "whiteouts above a whiteout": [whiteout("d/old"), whiteout("d/a/b"), whiteout("d")],
    "a file for a directory": [file("d", b"new")],
    "a directory for a file": [directory("f"), file("f/new", b"new")],
    "a link for a directory": [symlink("e", "d")],
    "a directory for a link": [directory("l"), file("l/new", b"new")],
    "a file through a link": [directory("d"), symlink("m", "d"), file("m/new", b"new"), whiteout("m/old")],
    "one more name in a layer": [file("a", b"new"), hard_link("b", "a"), hard_link("d/c", "a")],
    "a whiteout in what is no directory": [file("f", b"new"), whiteout("f/x")],
    "more of a directory": [file("d/new", b"new"), directory("e", 0o700).with_(uid=5), file("d/sub/deep/new")],
}


@pytest.fixture(params=list(LAYERS.values()), ids=list(LAYERS))
def changes(request: pytest.FixtureRequest) -> list[Entry]:
    entries: list[Entry] = request.param
    return entries


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "merged"
    path.mkdir()
    yield path
    if kernel.is_mount_point(path):
        kernel.unmount(path, kernel.MNT_DETACH)


def seen(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below ``root``: kind and mode, owner, and what is in it."""
    found = {}
    for above, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(above, name)
            info = os.lstat(path)
            content = b""
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as opened:
                    content = opened.read()
            elif stat.S_ISLNK(info.st_mode):
                content = os.fsencode(os.readlink(path))
            found[os.path.relpath(path, root)] = (info.st_mode, info.st_uid, info.st_gid, content)
    return found


def without_implied(tree: dict[str, tuple[int, int, int, bytes]], changes: list[Entry]) -> dict[str, object]:
    """Leave out the metadata of directories that only one layer describes: they are adopted after all layers."""
    named = {str(entry.name) for entry in changes}
    return {
        path: each if path in named or not stat.S_ISDIR(each[0]) else stat.S_IFMT(each[0])
        for path, each in tree.items()
    }


def mounted_by_kernel(layers: Layers, changes: list[Entry], merged: Path) -> dict[str, object]:
    lower, upper = layers.apply(BASE).diff, layers.apply(changes).diff
    kernel.mount("overlay", merged, "overlay", kernel.MS_RDONLY, f"lowerdir={upper}:{lower}")
    return without_implied(seen(merged), changes)


def test_a_complete_tree_is_what_the_kernel_shows(layers: Layers, changes: list[Entry], merged: Path) -> None:
    below = layers.apply(BASE, marks=Marks.NONE).diff
    whole = layers.new_diff()
    copy_tree(below, whole, is_whole=True)
    layers.apply(changes, diff=whole, marks=Marks.NONE)
    assert without_implied(seen(whole), changes) == mounted_by_kernel(layers, changes, merged)
    assert seen(below) == seen(layers.apply(BASE).diff)


@pytest.mark.skipif(shutil.which("fuse-overlayfs") is None, reason="no fuse-overlayfs")
def test_so_is_what_a_fuse_program_shows(layers: Layers, changes: list[Entry], merged: Path, tmp_path: Path) -> None:
    expected = mounted_by_kernel(layers, changes, merged)
    kernel.unmount(merged)
    lower, upper = (layers.apply(entries, marks=Marks.AUFS).diff for entries in (BASE, changes))
    work = tmp_path / "work"
    work.mkdir()
    writable = layers.new_diff()
    options = f"lowerdir={upper}:{lower},upperdir={writable},workdir={work}"
    subprocess.run(["fuse-overlayfs", "-o", options, merged], check=True, timeout=60)
    assert without_implied(seen(merged), changes) == expected
    assert not any(stat.S_ISCHR(each[0]) for each in seen(upper).values())


def test_the_entry_of_the_root_is_for_complete_trees_only(layers: Layers) -> None:
    entries = [directory("./", 0o750).with_(uid=3, gid=4), file("f")]
    root = layers.apply(entries, marks=Marks.NONE).info("")
    assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid, root.st_mtime_ns) == (
        0o750,
        3,
        4,
        entries[0].mtime_ns,
    )
    assert layers.apply(entries, marks=Marks.AUFS).info("").st_uid == 0


def test_an_opaque_root_empties_a_complete_tree(layers: Layers) -> None:
    """The kernel takes no notice of that mark on a root; whoever carries deletions out cannot but do so."""
    below = layers.apply(BASE, marks=Marks.NONE)
    assert layers.apply([file("new"), file(".wh..wh..opq")], diff=below.diff, marks=Marks.NONE).names() == {"new"}


def test_a_hard_link_to_a_file_of_a_lower_layer(layers: Layers) -> None:
    below = layers.apply(BASE, marks=Marks.NONE)
    layer = layers.apply([hard_link("d/again", "f", 0o600)], diff=below.diff, marks=Marks.NONE)
    assert layer.info("d/again").st_ino == layer.info("f").st_ino
    assert stat.S_IMODE(layer.info("f").st_mode) == 0o600


def test_an_implied_directory_stays_what_it_is(layers: Layers) -> None:
    below = layers.apply(BASE, marks=Marks.NONE)
    before = below.info("d")
    layer = layers.apply([file("d/new"), whiteout("d/old")], diff=below.diff, marks=Marks.NONE)
    after = layer.info("d")
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert layer.applied.implied == ()


def test_names_lead_through_links_of_lower_layers(layers: Layers) -> None:
    below = layers.apply(BASE, marks=Marks.NONE)
    layer = layers.apply([file("l/new"), whiteout("l/old")], diff=below.diff, marks=Marks.NONE)
    assert {"d/new", "l"} <= layer.names()
    assert "d/old" not in layer.names()


def test_whiteouts_stay_files_for_a_fuse_program(layers: Layers) -> None:
    entries = [whiteout("w").with_(uid=5, mode=0o600), directory("d"), opaque("d"), directory("x"), whiteout("x")]
    layer = layers.apply(entries, marks=Marks.AUFS)
    assert layer.names() == {".wh.w", "d", "d/.wh..wh..opq", "x", "x/.wh..wh..opq"}
    assert stat.S_ISREG(layer.info(".wh.w").st_mode)
    assert layer.info(".wh.w").st_uid == 5
    assert layer.applied.uidset == (0,)


def test_a_device_that_is_skipped_takes_the_place_all_the_same(layers: Layers) -> None:
    below = layers.apply(BASE, marks=Marks.NONE)
    device = file("f").with_(kind=b"3", device=(1, 3))
    layer = layers.apply([device], diff=below.diff, marks=Marks.NONE, rootless=True)
    assert "f" not in layer.names()
