"""What a directory that a layer only implies takes over, and from which of the layers below."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import StoreError
from asyncpull.extract.implied import adopt_implied
from asyncpull.tree.marks import Marks
from tests.extract.conftest import ACL
from tests.support.tars import DAY_ONE, Entry, directory, file, opaque, symlink, whiteout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.extract.conftest import Layer, Layers

pytestmark = pytest.mark.root


def described(name: str, number: int) -> Entry:
    """A directory that shows which layer it is from."""
    return directory(name, 0o1700 + number).with_(
        uid=number, gid=number, mtime_ns=DAY_ONE + number, xattrs={"user.layer": b"%d" % number}
    )


def seen(layer: Layer, name: str) -> int | None:
    """The number of the layer that the directory is like; None if it is 0755 root:root."""
    info = layer.info(name)
    owner_and_mode = (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))
    if owner_and_mode == (0, 0, 0o755):
        assert layer.xattrs(name) == {}
        return None
    number = info.st_uid
    assert owner_and_mode == (number, number, 0o1700 + number)
    assert info.st_mtime_ns == DAY_ONE + number
    assert layer.xattrs(name) == {"user.layer": b"%d" % number}
    return number


def adopt(layers: Layers, top: Sequence[Entry], *below: Sequence[Entry], rootless: bool = False) -> Layer:
    """Apply ``top`` over the layers below, the nearest first, and give it what it implies."""
    under = [layers.apply(entries, rootless=rootless) for entries in below]
    layer = layers.apply(top, rootless=rootless)
    adopt_implied(
        layer.diff,
        layer.applied.implied,
        [each.diff for each in under],
        marks=Marks.USER if rootless else Marks.TRUSTED,
        in_userns=rootless,
    )
    return layer


def test_the_nearest_layer_that_has_it_counts(layers: Layers) -> None:
    layer = adopt(layers, [file("d/f")], [file("other")], [described("d", 2)], [described("d", 3)])
    assert seen(layer, "d") == 2


def test_found_nowhere_it_is_root_s(layers: Layers) -> None:
    assert seen(adopt(layers, [file("d/f")], [file("other")]), "d") is None
    assert seen(adopt(layers, [file("d/f")]), "d") is None


def test_every_one_is_looked_up_by_itself(layers: Layers) -> None:
    layer = adopt(
        layers,
        [file("a/b/c/f"), file("a/z/f"), file("a-b/f")],
        [described("a/b", 1)],
        [described("a", 2), described("a/b", 2), described("a/b/c", 2), described("a-b", 2)],
        [described("a/z", 3)],
    )
    # The layer nearest below only implies "a" itself: its own adoption, not done here, would have made it like 2.
    assert [seen(layer, name) for name in ("a", "a/b", "a/b/c", "a/z", "a-b")] == [None, 1, 2, 3, 2]


@pytest.mark.parametrize(
    "hiding",
    [
        [whiteout("d")],
        [whiteout("d/e")],
        [described("d", 1), opaque("d")],
        [file("d")],
        [symlink("d", "elsewhere"), described("elsewhere", 1), described("elsewhere/e", 1)],
        [described("d", 1), symlink("d/e", "/elsewhere"), described("elsewhere", 1)],
        [described("d", 1), file("d/e")],
        [whiteout("d"), described("d", 1)],
    ],
)
def test_what_hides_it_ends_the_look_up(layers: Layers, hiding: list[Entry]) -> None:
    layer = adopt(layers, [file("d/e/f")], hiding, [described("d", 2), described("d/e", 2)])
    assert seen(layer, "d/e") is None


def test_an_opaque_directory_in_the_same_layer_hides_what_is_below_it(layers: Layers) -> None:
    layer = adopt(layers, [opaque("d"), file("d/e/f")], [described("d", 1), described("d/e", 1)])
    assert layer.xattrs("d").pop("trusted.overlay.opaque") == b"y"
    assert layer.info("d").st_uid == 1
    assert seen(layer, "d/e") is None


def test_an_opaque_root_hides_nothing(layers: Layers) -> None:
    layer = adopt(layers, [file("d/f")], [file(".wh..wh..opq")], [described("d", 2)])
    assert seen(layer, "d") == 2


def test_a_directory_over_a_whiteout_of_its_own_layer_takes_nothing(layers: Layers) -> None:
    layer = adopt(layers, [whiteout("d"), file("d/f")], [described("d", 1)])
    assert (layer.info("d").st_uid, stat.S_IMODE(layer.info("d").st_mode)) == (0, 0o755)


@pytest.mark.parametrize("rootless", [False, True])
def test_marks_of_overlay_are_not_taken_over(layers: Layers, rootless: bool) -> None:
    xattrs = {"trusted.overlay.opaque": b"y", "user.overlay.origin": b"o", "user.mine": b"m", "trusted.mine": b"t"}
    layer = adopt(layers, [file("d/f")], [directory("d").with_(xattrs=xattrs)], rootless=rootless)
    assert layer.xattrs("d") == {"user.mine": b"m", "trusted.mine": b"t"}


def test_what_an_archive_calls_a_mark_is_none(layers: Layers) -> None:
    """An image may contain a rootless store, whose marks are not those of ours."""
    nested = directory("d").with_(xattrs={"user.overlay.opaque": b"y"})
    below = [[nested], [described("d/e", 2)]]
    assert seen(adopt(layers, [file("d/e/f")], *below), "d/e") == 2
    assert seen(adopt(layers, [file("d/e/f")], *below, rootless=True), "d/e") == 2


def test_doing_it_again_over_other_layers_leaves_nothing_of_the_first(layers: Layers) -> None:
    layer = adopt(layers, [file("d/f"), opaque("e")], [described("d", 1), described("e", 1)])
    other = layers.apply([directory("d", 0o711)])
    adopt_implied(layer.diff, layer.applied.implied, [other.diff], marks=Marks.TRUSTED)
    assert stat.S_IMODE(layer.info("d").st_mode) == 0o711
    assert layer.info("d").st_uid == 0
    assert layer.xattrs("d") == {}
    assert layer.xattrs("e") == {"trusted.overlay.opaque": b"y"}
    adopt_implied(layer.diff, layer.applied.implied, [], marks=Marks.TRUSTED)
    assert seen(layer, "d") is None


def test_acls_are_taken_over(layers: Layers) -> None:
    acls = {"system.posix_acl_access": ACL, "system.posix_acl_default": ACL}
    layer = adopt(layers, [file("d/f")], [directory("d", 0o750).with_(xattrs=acls)])
    assert layer.xattrs("d") == acls


def test_deep_below_many_layers(layers: Layers) -> None:
    path = "/".join(["d"] * 50)
    below = [[described(path, number)] for number in range(1, 6)]
    layer = adopt(layers, [file(path + "/f")], *([[file("x")]] * 5), *below)
    assert seen(layer, path) == 1


def test_no_descriptor_is_left(layers: Layers) -> None:
    before = os.listdir("/proc/self/fd")
    layer = adopt(layers, [file("a/b/f")], [described("a", 1), whiteout("a/b")], [file("a")])
    with pytest.raises(StoreError):
        adopt_implied(layer.diff, [b"missing"], [], marks=Marks.TRUSTED)
    assert os.listdir("/proc/self/fd") == before
