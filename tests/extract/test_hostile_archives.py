"""Archives that try to get out: nothing outside of the root is ever touched, whether they are refused or not."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import LayerError
from asyncpull.tree.walk import remove
from tests.support.tars import Entry, directory, fifo, file, hard_link, opaque, symlink, tar, whiteout
from tests.support.trees import list_tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.extract.conftest import Layer, Layers

pytestmark = pytest.mark.root

OUT = "../../outside"
"""From the root of the first layer to the directory that nobody may touch."""


class Jail:
    """One layer's root, with a directory outside that is watched."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self.outside = layers.home / "outside"
        (self.outside / "sub").mkdir(parents=True)
        (self.outside / "victim").write_text("untouched")
        self.diff = layers.new_diff()
        os.utime(self.outside, ns=(5, 5))
        self._before = self._seen()

    def apply(self, entries: Sequence[Entry] | bytes) -> Layer:
        """Apply a layer, and see that it did not get out and left no descriptor, whatever came of it."""
        descriptors = os.listdir("/proc/self/fd")
        try:
            return self._layers.apply(entries, diff=self.diff)
        finally:
            assert self._seen() == self._before
            assert os.listdir("/proc/self/fd") == descriptors

    def _seen(self) -> tuple[object, ...]:
        beside = (sorted(os.listdir(self._layers.home)), os.listdir(self.diff.parent))
        return (list_tree(self.outside), *beside)


def clear(diff: Path) -> None:
    """Remove what is too deep for what pytest clears away with."""
    fd = os.open(diff, os.O_RDONLY)
    for name in os.listdir(diff):
        remove(fd, os.fsencode(name))
    os.close(fd)
    assert os.listdir(diff) == []


@pytest.fixture
def jail(layers_by_either_opener: Layers) -> Jail:
    return Jail(layers_by_either_opener)


@pytest.mark.parametrize(
    "entry",
    [
        file("../../x"),
        file("../../outside/x"),
        file("a/../../x"),
        directory(".."),
        directory("../outside"),
        whiteout("../../outside/victim"),
        file("d/.wh..."),
        file("d/.wh.."),
        file("d/.wh."),
        opaque("../../outside"),
        symlink("../../outside/l", "/"),
        fifo("../x"),
    ],
    ids=lambda entry: entry.name,
)
def test_a_name_that_leads_out_is_refused(jail: Jail, entry: Entry) -> None:
    with pytest.raises(LayerError) as caught:
        jail.apply([directory("d"), entry])
    assert (caught.value.member or b"").rstrip(b"/") == os.fsencode(entry.name)
    assert list_tree(jail.diff).keys() == {".", "d"}


def test_an_absolute_name_counts_from_the_root(jail: Jail) -> None:
    victim = os.fspath(jail.outside / "victim")
    layer = jail.apply([file(victim, b"mine")])
    assert (layer.diff / victim.lstrip("/")).read_bytes() == b"mine"


def targets(outside: Path) -> list[str]:
    """Ways to point at the directory outside."""
    return [OUT, os.fspath(outside), "a/../" + OUT, "/../" + OUT, "./../../outside/."]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    "entry",
    [
        file("l/new", b"x"),
        file("l/victim", b"x"),
        directory("l/sub", 0o777),
        directory("l/new"),
        file("l/new/f"),
        symlink("l/new", "x"),
        hard_link("l/new", "f"),
        fifo("l/new"),
        whiteout("l/victim"),
        opaque("l"),
        hard_link("h", "l/victim"),
    ],
    ids=lambda entry: f"{entry.kind.decode()}{entry.name}",
)
def test_an_entry_through_a_link_to_the_outside_is_refused(jail: Jail, entry: Entry, number: int) -> None:
    with pytest.raises(LayerError):
        jail.apply([directory("a"), file("f"), symlink("l", targets(jail.outside)[number]), entry])


@pytest.mark.parametrize("target", ["/", "..", "../../../..", "/../..", "d/../../.."])
def test_a_link_above_the_root_ends_at_the_root(jail: Jail, target: str) -> None:
    layer = jail.apply(
        [directory("d"), symlink("l", target), file("l/f", b"in"), file("l/etc/passwd"), symlink("l/d/k", target)]
    )
    assert layer.names() == {"d", "d/k", "l", "f", "etc", "etc/passwd"}
    assert os.readlink(layer.diff / "l") == target


def test_where_a_link_to_the_outside_leads_inside(jail: Jail) -> None:
    absolute = os.fspath(jail.outside)
    layer = jail.apply([directory(absolute), symlink("l", absolute), file("l/victim", b"mine")])
    assert (layer.diff / absolute.lstrip("/") / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "new",
    [
        file("l/x", b"overwritten", 0o666),
        directory("l/x", 0o777),
        fifo("l/x"),
        hard_link("l/x", "f"),
        symlink("l/x", "elsewhere"),
        whiteout("l/x"),
    ],
    ids=lambda entry: entry.kind.decode(),
)
@pytest.mark.parametrize("at", ["/victim", "", "/sub"])
def test_a_link_as_the_last_component_is_never_followed(jail: Jail, new: Entry, at: str) -> None:
    layer = jail.apply(
        [
            file("f"),
            directory("d"),
            symlink("l", "d"),
            symlink("d/x", os.fspath(jail.outside) + at),
            new.with_(uid=7, mtime_ns=1, xattrs={"trusted.x": b"x"}),
        ]
    )
    assert stat.S_ISLNK(layer.info("d/x").st_mode) == (new.kind == b"2" or b".wh." in os.fsencode(new.name))


def test_metadata_of_a_link_is_its_own(jail: Jail) -> None:
    outside = os.fspath(jail.outside)
    hostile = {"uid": 7, "gid": 7, "mode": 0o7777, "mtime_ns": 1, "xattrs": {"trusted.x": b"x"}}
    jail.apply(
        [
            symlink("l", outside).with_(**hostile),
            symlink("v", outside + "/victim").with_(**hostile),
            hard_link("h", "l").with_(**hostile),
            hard_link("g", "v").with_(**hostile),
        ]
    )


def test_a_directory_swapped_for_a_link_gets_no_times_at_the_end(jail: Jail) -> None:
    outside = os.fspath(jail.outside)
    acl = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000500ffffffff")
    jail.apply(
        [
            directory("d"),
            symlink("l", "d"),
            directory("d/x", 0o777).with_(xattrs={"system.posix_acl_default": acl}),
            file("d/x/f"),
            symlink("l/x", outside),
        ]
    )


def test_nor_does_what_was_below_it(jail: Jail) -> None:
    jail.apply(
        [
            directory("d"),
            symlink("l", "d"),
            directory("d/x"),
            directory("d/x/sub"),
            file("d/x/sub/f"),
            symlink("l/x", os.fspath(jail.outside)),
        ]
    )


def test_a_link_swapped_after_it_was_used(jail: Jail) -> None:
    with pytest.raises(LayerError):
        jail.apply(
            [
                directory("d"),
                directory("real"),
                symlink("k", "d"),
                symlink("d/l", "/real"),
                file("d/l/a"),
                symlink("k/l", OUT),
                file("d/l/b"),
            ]
        )
    assert os.listdir(jail.diff / "real") == ["a"]


@pytest.mark.parametrize(
    "entries",
    [
        [symlink("l", "l"), file("l/x")],
        [symlink("a", "b/c"), symlink("b", "a/d"), file("a/x")],
        [symlink("a", "b"), symlink("b", "a"), whiteout("a/x")],
        [directory("d"), symlink("d/l", "../d/l/l"), opaque("d/l")],
        [*(symlink(f"l{number}", f"l{number + 1}") for number in range(50)), directory("l50"), file("l0/x")],
    ],
)
def test_link_loops_end(jail: Jail, entries: list[Entry]) -> None:
    with pytest.raises(LayerError):
        jail.apply(entries)


def test_links_that_double_the_path_end(jail: Jail) -> None:
    links = [symlink(f"l{number}", f"l{number - 1}/../l{number - 1}") for number in range(1, 30)]
    with pytest.raises(LayerError):
        jail.apply([directory("l0"), *links, file("l29/x")])


@pytest.mark.parametrize("depth", [100, 1200])
def test_deep_names(jail: Jail, depth: int) -> None:
    path = "/".join(["d"] * depth)
    layer = jail.apply(
        [file(path + "/f", b"x"), directory(path), file(path + "/g"), hard_link(path + "/h", path + "/f")]
    )
    assert len(layer.applied.implied) == depth - 1
    clear(jail.diff)


def test_a_deep_tree_gives_way(jail: Jail) -> None:
    entries = [directory("d"), symlink("l", "d"), file("/".join(["d"] * 1200) + "/f"), file("l/d", b"new")]
    layer = jail.apply(entries)
    assert layer.names() == {"d", "l", "d/d"}
    assert layer.applied.implied == ()


@pytest.mark.parametrize("name", ["x" * 256, "d/" + "x" * 256 + "/f", "/".join(["x" * 250] * 17), "x/" * 2047 + "y"])
def test_names_that_linux_cannot_hold_are_refused(jail: Jail, name: str) -> None:
    with pytest.raises(LayerError):
        jail.apply([file(name)])
    clear(jail.diff)


def test_a_path_that_links_make_too_long_is_refused(jail: Jail) -> None:
    long = "/".join(["x" * 250] * 10)
    with pytest.raises(LayerError):
        jail.apply(
            [directory(long), symlink("l", long), directory("l/" + long), symlink("k", "l/" + long), file("k/f")]
        )


def test_a_null_byte_in_a_name_is_refused(jail: Jail) -> None:
    records = tar([file("x" * 120).with_(pax={"path": "in#/../../outside/x"})])
    with pytest.raises(LayerError):
        jail.apply(records.replace(b"in#/..", b"in\0/.."))
