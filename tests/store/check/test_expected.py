"""The tree that is expected of an archive is the tree that extraction makes of it, whatever the marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.layer.split import SplitWriter
from asyncpull.layer.stream import TarStream
from asyncpull.store.check.contents import Compared, compare_tree
from asyncpull.store.check.expected import expected_tree
from asyncpull.tree.marks import Marks
from tests.support import tars
from tests.support.odd_layers import ACCEPTED
from tests.support.samples import base_layer, odd_layer, removing_layer

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.layer.header import Member
    from asyncpull.store.check.archive import Flaw

pytestmark = pytest.mark.root

LAYERS = {**ACCEPTED, "base": base_layer(), "odd": odd_layer(), "removing": removing_layer()}


def members(tar: bytes) -> list[Member]:
    stream = TarStream(SplitWriter(lambda _: None))
    return [member for member, _ in stream.feed(tar) if member is not None]


def applied(directory: Path, *layers: bytes, marks: Marks) -> list[Flaw]:
    """Extract layers into one tree, and compare it with what is expected of it."""
    directory.mkdir(exist_ok=True)
    for layer in layers:
        apply_layer([layer], directory, lambda _: None, ApplyOptions(marks))
    expected = expected_tree([members(layer) for layer in layers], marks)
    return compare_tree(directory, expected, marks, Compared(), lambda: None)


@pytest.mark.parametrize("marks", [Marks.TRUSTED, Marks.AUFS, Marks.NONE])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_of_one_layer(tmp_path: Path, layer: bytes, marks: Marks) -> None:
    assert applied(tmp_path / "tree", layer, marks=marks) == []


ABOVE = {
    "removing": (removing_layer(),),
    "what was implied is described": (
        tars.tar([tars.file("new/deep/file", b"x")]),
        tars.tar([tars.directory("new/deep", 0o700)]),
    ),
    "a file for a directory": (tars.tar([tars.file("var/lib", b"x")]), tars.tar([tars.directory("var/lib")])),
    "opaque beside new entries": (
        tars.tar([tars.file("var/lib/old/new", b"x"), tars.opaque("var/lib/old"), tars.file("var/lib/old/2", b"y")]),
    ),
    "deleted and made anew": (tars.tar([tars.whiteout("var/lib/old"), tars.file("var/lib/old/1", b"y")]),),
    "into an older directory": (tars.tar([tars.file("var/lib/old/9", b"9"), tars.whiteout("etc/base")]),),
    "deletions where nothing is": (
        tars.tar([tars.opaque("no/where"), tars.whiteout("no/thing/x"), tars.opaque("no")]),
    ),
    "through an older link": (
        tars.tar([tars.symlink("lib", "usr/share")]),
        tars.tar([tars.file("lib/new", b"x")]),
    ),
}


@pytest.mark.parametrize("layers", ABOVE.values(), ids=ABOVE.keys())
def test_of_complete_trees(tmp_path: Path, layers: tuple[bytes, ...]) -> None:
    assert applied(tmp_path / "tree", base_layer(), odd_layer(), *layers, marks=Marks.NONE) == []


def test_of_devices_that_are_left_out(tmp_path: Path) -> None:
    """The directory that one implies is made all the same, as podman makes it."""
    layer = tars.tar([tars.character_device("dev/null", 1, 3)])
    apply_layer([layer], tmp_path, lambda _: None, ApplyOptions(Marks.USER, in_userns=True))
    expected = expected_tree([members(layer)], Marks.USER, has_devices=False)
    assert compare_tree(tmp_path, expected, Marks.USER, Compared(devices=False), lambda: None) == []
