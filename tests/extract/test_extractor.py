"""What each kind of member becomes, row by row of the format's tables 5.1 to 5.3."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import UnsupportedMemberError
from tests.extract.conftest import ACL
from tests.support.tars import (
    DAY_ONE,
    block_device,
    character_device,
    directory,
    fifo,
    file,
    hard_link,
    opaque,
    symlink,
    tar,
    whiteout,
)

if TYPE_CHECKING:
    from tests.extract.conftest import Layers
    from tests.support.tars import Entry

pytestmark = pytest.mark.root

OPAQUE = {"trusted.overlay.opaque": b"y"}
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service=ep"""


def is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0 and stat.S_IMODE(info.st_mode) == 0


# Regular files


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o755, 0o4755, 0o2755, 0o1644, 0o7777, 0o100644])
@pytest.mark.parametrize("owner", [(0, 0), (5, 6)])
def test_a_file_has_all_twelve_bits_of_its_mode_and_its_owner(
    layers: Layers, mode: int, owner: tuple[int, int]
) -> None:
    info = layers.apply([file("f", b"x", mode).with_(uid=owner[0], gid=owner[1])]).info("f")
    assert stat.S_IMODE(info.st_mode) == mode & 0o7777
    assert (info.st_uid, info.st_gid) == owner


def test_contents_of_any_size_arrive_in_pieces_of_any_size(layers: Layers) -> None:
    contents = [b"", b"x", bytes(range(256)) * 2, b"y" * 100_000]
    entries = [file(str(number), data) for number, data in enumerate(contents)]
    for piece in (1, 511, 512, 513, 70_000, 1 << 20):
        layer = layers.apply(entries, piece=piece)
        assert [(layer.diff / str(number)).read_bytes() for number in range(len(contents))] == contents


def test_times_are_kept_to_the_nanosecond(layers: Layers) -> None:
    layer = layers.apply(
        [
            file("now", b"x").with_(mtime_ns=DAY_ONE + 123_456_789),
            file("read", b"x").with_(pax={"atime": "1800000000.000000007"}),
            file("old", b"x").with_(pax={"mtime": "-5.5"}),
            symlink("link", "nowhere").with_(mtime_ns=DAY_ONE + 1),
            fifo("fifo").with_(mtime_ns=DAY_ONE + 2),
        ]
    )
    assert layer.info("now").st_mtime_ns == layer.info("now").st_atime_ns == DAY_ONE + 123_456_789
    assert layer.info("read").st_atime_ns == 1_800_000_000_000_000_007
    assert layer.info("old").st_mtime_ns == 0
    assert layer.info("link").st_mtime_ns == DAY_ONE + 1
    assert layer.info("fifo").st_mtime_ns == DAY_ONE + 2


def test_names_that_are_not_utf8_and_long_ones(layers: Layers) -> None:
    long = "d" * 200 + "/" + "e" * 255
    for layout in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        layer = layers.apply(tar([file(b"caf\xe9\n", b"1"), file(long, b"2"), symlink("s", long)], layout=layout))
        assert stat.S_ISREG(layer.info(b"caf\xe9\n").st_mode)
        assert (layer.diff / long).read_bytes() == b"2"
        assert os.readlink(layer.diff / "s") == long


def test_capabilities_survive_the_owner(layers: Layers) -> None:
    layer = layers.apply([file("ping", b"x", 0o755).with_(uid=7, xattrs={"security.capability": CAPABILITY})])
    assert layer.xattrs("ping") == {"security.capability": CAPABILITY}


def test_attributes_of_every_kind(layers: Layers) -> None:
    mine = {"trusted.note": b"\xff\x00"}
    layer = layers.apply(
        [
            directory("d").with_(xattrs=mine),
            file("f", b"x").with_(xattrs={"user.note": b"v", "security.selinux": b"label", "nonsense": b"n"}),
            symlink("s", "f").with_(xattrs=mine),
            fifo("p").with_(xattrs=mine),
            character_device("c", 1, 3).with_(xattrs=mine),
        ]
    )
    assert layer.xattrs("f") == {"user.note": b"v"}
    for name in "dspc":
        assert layer.xattrs(name) == mine


@pytest.mark.parametrize(
    ("xattrs", "number"),
    [({"security.capability": b"short"}, errno.EINVAL), ({"user." + "x" * 300: b""}, errno.ERANGE)],
)
def test_an_attribute_that_no_file_system_takes_is_refused(
    layers: Layers, xattrs: dict[str, bytes], number: int
) -> None:
    with pytest.raises(UnsupportedMemberError, match=f"extended attribute .*{os.strerror(number)}.*member 'f'"):
        layers.apply([file("f").with_(xattrs=xattrs)])


# Links, devices


def test_links_devices_and_fifos(layers: Layers) -> None:
    layer = layers.apply(
        [
            symlink("s", "/etc/../x").with_(uid=3, gid=4),
            fifo("p", 0o620).with_(uid=3, gid=4),
            character_device("c", 1, 3, 0o4660).with_(uid=3, gid=4),
            block_device("b", 259, 70_000),
        ]
    )
    assert os.readlink(layer.diff / "s") == "/etc/../x"
    assert [(layer.info(name).st_uid, layer.info(name).st_gid) for name in "spc"] == [(3, 4)] * 3
    assert layer.info("p").st_mode == stat.S_IFIFO | 0o620
    assert layer.info("c").st_mode == stat.S_IFCHR | 0o4660
    assert layer.info("c").st_rdev == os.makedev(1, 3)
    assert layer.info("b").st_mode == stat.S_IFBLK | 0o660
    assert layer.info("b").st_rdev == os.makedev(259, 70_000)


def test_devices_are_skipped_when_rootless_and_so_are_links_to_them(layers: Layers) -> None:
    layer = layers.apply(
        [
            character_device("c", 1, 3),
            block_device("b", 1, 3),
            hard_link("d/c2", "c"),
            hard_link("c3", "d/c2"),
            fifo("p"),
        ],
        rootless=True,
    )
    assert layer.names() == {"d", "p"}


def test_a_hard_link_gives_its_metadata_to_both_names(layers: Layers) -> None:
    layer = layers.apply(
        [
            file("f", b"x", 0o4755).with_(xattrs={"user.one": b"1"}),
            directory("d"),
            hard_link("d/g", "./f", 0o2711).with_(uid=8, gid=9, mtime_ns=DAY_ONE + 5, xattrs={"user.two": b"2"}),
        ]
    )
    info = layer.info("f")
    assert (info.st_nlink, info.st_uid, info.st_gid) == (2, 8, 9)
    assert stat.S_IMODE(info.st_mode) == 0o2711
    assert info.st_mtime_ns == DAY_ONE + 5
    assert layer.xattrs("f") == {"user.one": b"1", "user.two": b"2"}
    assert layer.info("d/g").st_ino == info.st_ino


def test_a_hard_link_to_a_symlink_gives_it_its_owner_but_no_times(layers: Layers) -> None:
    link = hard_link("s2", "s", 0o600).with_(uid=2, gid=3, mtime_ns=1, xattrs={"trusted.x": b"x"})
    layer = layers.apply([symlink("s", "f").with_(uid=1), file("f", b"x"), link])
    info = layer.info("s")
    assert layer.info("s2").st_ino == info.st_ino
    assert (info.st_uid, info.st_gid, info.st_mtime_ns) == (2, 3, DAY_ONE)
    assert layer.xattrs("s") == {"trusted.x": b"x"}
    assert (layer.info("f").st_uid, layer.info("f").st_mtime_ns, layer.xattrs("f")) == (0, DAY_ONE, {})


def test_a_setuid_file_stays_one_through_a_hard_link(layers: Layers) -> None:
    layer = layers.apply([file("su", b"x", 0o4755).with_(uid=5), hard_link("su2", "su", 0o4755).with_(uid=5)])
    assert stat.S_IMODE(layer.info("su").st_mode) == 0o4755


@pytest.mark.parametrize("target", ["lower", "d/lower", "gone", "g", "f/x", "d", "/", "deleted"])
def test_a_hard_link_to_what_this_layer_does_not_have_is_refused(layers: Layers, target: str) -> None:
    with pytest.raises(UnsupportedMemberError):
        layers.apply([directory("d"), file("f"), whiteout("deleted"), hard_link("g", target)])


def test_a_hard_link_goes_through_a_link_in_its_directory(layers: Layers) -> None:
    layer = layers.apply([directory("d"), file("d/f", b"x"), symlink("l", "/d"), hard_link("g", "l/f")])
    assert layer.info("g").st_ino == layer.info("d/f").st_ino


# Directories


def test_a_directory_has_all_of_its_mode_and_its_times_at_the_end(layers: Layers) -> None:
    entries = []
    for number, mode in enumerate((0o755, 0o1777, 0o2775, 0o4700, 0o000, 0o7555)):
        entries.append(directory(f"d{number}", mode).with_(uid=number, gid=number, mtime_ns=DAY_ONE + number))
    entries += [file(f"d{number}/sub/f", b"x") for number in range(6)]
    layer = layers.apply(entries)
    for number, mode in enumerate((0o755, 0o1777, 0o2775, 0o4700, 0o000, 0o7555)):
        info = layer.info(f"d{number}")
        assert stat.S_IMODE(info.st_mode) == mode
        assert (info.st_uid, info.st_gid, info.st_mtime_ns) == (number, number, DAY_ONE + number)


def test_nothing_is_inherited_from_a_setgid_directory(layers: Layers) -> None:
    layer = layers.apply(
        [
            directory("d", 0o2775).with_(gid=50),
            file("d/f", b"x", 0o4755),
            directory("d/sub", 0o755),
            file("d/implied/f", b"x"),
            file("d/same", b"x").with_(gid=50),
            symlink("d/s", "x"),
            fifo("d/p"),
            whiteout("d/w"),
        ]
    )
    for name in ("f", "sub", "implied", "implied/f", "s", "p", "w"):
        assert layer.info(f"d/{name}").st_gid == 0, name
    assert layer.info("d/same").st_gid == 50
    assert stat.S_IMODE(layer.info("d/f").st_mode) == 0o4755
    assert stat.S_IMODE(layer.info("d/sub").st_mode) == 0o755
    assert stat.S_IMODE(layer.info("d/implied").st_mode) == 0o755


def test_nothing_is_inherited_from_a_setgid_root(layers: Layers) -> None:
    diff = layers.new_diff()
    os.chown(diff, 0, 50)
    os.chmod(diff, 0o2755)
    layer = layers.apply([file("f", b"x"), directory("d"), file("i/f")], diff=diff)
    for name in ("f", "d", "i", "i/f"):
        assert layer.info(name).st_gid == 0
        assert not layer.info(name).st_mode & stat.S_ISGID


def test_nothing_is_inherited_from_default_acls(layers: Layers) -> None:
    diff = layers.new_diff()
    os.setxattr(diff, "system.posix_acl_default", ACL)
    acl = {"system.posix_acl_default": ACL}
    layer = layers.apply(
        [file("f", b"x", 0o666), directory("d", 0o777).with_(xattrs=acl), file("d/f", b"", 0o666), file("d/sub/f")],
        diff=diff,
    )
    assert layer.xattrs("d") == acl
    for name in ("f", "d/f", "d/sub", "d/sub/f"):
        assert layer.xattrs(name) == {}
    assert stat.S_IMODE(layer.info("d/f").st_mode) == stat.S_IMODE(layer.info("f").st_mode) == 0o666


def test_an_entry_for_the_root_changes_nothing(layers: Layers) -> None:
    diff = layers.new_diff()
    diff.chmod(0o555)
    layer = layers.apply([directory("./", 0o700).with_(uid=9, gid=9, xattrs={"user.x": b"y"}), file("f")], diff=diff)
    assert stat.S_IMODE(os.stat(diff).st_mode) == 0o555
    assert (os.stat(diff).st_uid, os.listxattr(diff)) == (0, [])
    assert layer.applied.uidset == (0, 9)


# Implied directories


def test_implied_directories_are_0755_root_and_told(layers: Layers) -> None:
    layer = layers.apply([file("a/b/c/f").with_(uid=5), whiteout("x/y/z"), opaque("o/p"), directory("a/b/d")])
    assert layer.applied.implied == (b"a", b"a/b", b"a/b/c", b"o", b"o/p", b"x", b"x/y")
    for name in layer.applied.implied:
        info = layer.info(name)
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o755, 0, 0)


def test_a_later_entry_for_an_implied_directory_counts(layers: Layers) -> None:
    late = directory("a/b", 0o2750).with_(uid=5, gid=6, mtime_ns=DAY_ONE + 3, xattrs={"user.x": b"y"})
    layer = layers.apply([file("a/b/f"), late, file("a/b/g")])
    info = layer.info("a/b")
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns) == (0o2750, 5, 6, DAY_ONE + 3)
    assert layer.xattrs("a/b") == {"user.x": b"y"}
    assert layer.info("a/b/g").st_gid == 0
    assert layer.applied.implied == (b"a",)


def test_a_directory_implied_through_a_link_is_told_where_it_is(layers: Layers) -> None:
    layer = layers.apply([directory("real"), symlink("l", "real"), file("l/a/f"), file("l/b/f"), directory("real/b")])
    assert layer.applied.implied == (b"real/a",)


def test_an_implied_directory_that_was_replaced_is_not_told(layers: Layers) -> None:
    layer = layers.apply([directory("real"), symlink("l", "real"), file("real/a/b/f"), symlink("l/a", "x")])
    assert layer.applied.implied == ()


# Whiteouts


def test_a_whiteout_has_the_owner_of_its_entry(layers: Layers) -> None:
    layer = layers.apply([directory("d"), whiteout("d/w").with_(uid=5, gid=6, mode=0o644), whiteout("v")])
    assert is_whiteout(layer.info("d/w"))
    assert is_whiteout(layer.info("v"))
    assert (layer.info("d/w").st_uid, layer.info("d/w").st_gid) == (5, 6)
    assert layer.info("d").st_mtime_ns == DAY_ONE
    assert layer.applied.uidset == layer.applied.gidset == (0,)


@pytest.mark.parametrize("rootless", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0), (1, 2), (2, 1)])
def test_an_opaque_directory_whatever_the_order(layers: Layers, order: tuple[int, ...], rootless: bool) -> None:
    entries = [directory("d"), opaque("d"), file("d/f")]
    layer = layers.apply([entries[number] for number in order], rootless=rootless)
    mark = "user.overlay.opaque" if rootless else "trusted.overlay.opaque"
    assert layer.xattrs("d") == {mark: b"y"}
    assert layer.names() == ({"d", "d/f"} if 2 in order else {"d"})


def test_an_opaque_root(layers: Layers) -> None:
    assert layers.apply([file(".wh..wh..opq"), file("f")]).xattrs(".") == OPAQUE


def test_no_exception_for_other_names_that_begin_with_two_marks(layers: Layers) -> None:
    assert is_whiteout(layers.apply([file(".wh..wh.plnk")]).info(".wh.plnk"))


@pytest.mark.parametrize(
    "entries",
    [
        [whiteout("x"), directory("x").with_(uid=4)],
        [directory("x").with_(uid=4), whiteout("x")],
        [whiteout("x"), directory("x").with_(uid=4), file("x/f")],
        [directory("x").with_(uid=4), file("x/f"), whiteout("x")],
    ],
)
def test_a_directory_in_place_of_a_whiteout_is_opaque(layers: Layers, entries: list[Entry]) -> None:
    layer = layers.apply(entries)
    assert layer.xattrs("x") == OPAQUE
    assert layer.info("x").st_uid == 4
    assert layer.info("x").st_mtime_ns == DAY_ONE


@pytest.mark.parametrize("entries", [[whiteout("x"), file("x/y/f")], [file("x/y/f"), whiteout("x")]])
def test_so_is_an_implied_one_which_takes_nothing_from_what_was_deleted(layers: Layers, entries: list[Entry]) -> None:
    layer = layers.apply(entries)
    assert layer.xattrs("x") == OPAQUE
    assert b"x" not in layer.applied.implied
    assert (layer.diff / "x/y/f").exists()


@pytest.mark.parametrize("new", [file("x", b"new"), symlink("x", "y"), fifo("x"), hard_link("x", "other")])
@pytest.mark.parametrize("whiteout_first", [True, False])
def test_what_is_new_stays_beside_a_whiteout(layers: Layers, new: Entry, whiteout_first: bool) -> None:
    entries = [whiteout("x"), new] if whiteout_first else [new, whiteout("x")]
    layer = layers.apply([file("other"), *entries])
    assert not stat.S_ISCHR(layer.info("x").st_mode)


def test_whiteouts_below_a_whiteout_mean_nothing(layers: Layers) -> None:
    layer = layers.apply([whiteout("foo"), whiteout("foo/bar"), opaque("foo"), whiteout("foo/a/b")])
    assert layer.names() == {"foo"}
    assert is_whiteout(layer.info("foo"))


def test_nor_do_they_above_it(layers: Layers) -> None:
    layer = layers.apply([whiteout("foo/bar"), whiteout("foo/a/b"), whiteout("foo").with_(uid=5)])
    assert layer.names() == {"foo"}
    assert is_whiteout(layer.info("foo"))
    assert layer.info("foo").st_uid == 5
    assert layer.applied.implied == ()


def test_a_directory_that_the_archive_describes_stays_though_nothing_is_in_it(layers: Layers) -> None:
    layer = layers.apply([directory("a/c").with_(uid=5), whiteout("a/b/d"), whiteout("a")])
    assert layer.names() == {"a", "a/c", "a/b", "a/b/d"}
    assert layer.xattrs("a") == OPAQUE
    assert layer.info("a/c").st_uid == 5


def test_a_whiteout_in_what_is_no_directory_means_nothing(layers: Layers) -> None:
    assert layers.apply([file("f", b"x"), whiteout("f/g")]).names() == {"f"}


def test_a_device_that_is_a_mark_already_and_an_attribute_that_is_to_be_none(layers: Layers) -> None:
    layer = layers.apply([character_device("w", 0, 0, 0), directory("d").with_(xattrs=OPAQUE)])
    assert is_whiteout(layer.info("w"))
    assert layer.xattrs("d") == {"trusted.overlay.overlay.opaque": b"y"}


# What is in the way, which takes a link, as no name may come twice


@pytest.mark.parametrize(
    "new",
    [file("l/x", b"new"), symlink("l/x", "y"), fifo("l/x"), hard_link("l/x", "other"), character_device("l/x", 1, 3)],
)
@pytest.mark.parametrize("old", [file("d/x", b"old"), symlink("d/x", "old"), fifo("d/x"), directory("d/x")])
def test_what_is_there_gives_way(layers: Layers, new: Entry, old: Entry) -> None:
    layer = layers.apply([file("other"), directory("d"), symlink("l", "d"), old, new])
    expected = layers.apply([file("other"), directory("d"), symlink("l", "d"), new])
    assert layer.info("d/x").st_mode == expected.info("d/x").st_mode
    assert layer.info("d").st_mtime_ns == DAY_ONE


def test_a_whole_tree_gives_way(layers: Layers) -> None:
    tree = [directory("d/x"), file("d/x/a/b/c"), symlink("d/x/l", "/"), directory("d/x/e"), fifo("d/x/e/p")]
    layer = layers.apply([directory("d"), symlink("l", "d"), *tree, file("l/x", b"new"), file("d/y")])
    assert layer.names() == {"d", "d/x", "d/y", "l"}


def test_only_directories_are_merged(layers: Layers) -> None:
    layer = layers.apply(
        [
            directory("d"),
            symlink("l", "d"),
            directory("d/x", 0o700),
            file("d/x/f"),
            directory("l/x", 0o711).with_(uid=3),
            file("d/y"),
            directory("l/y"),
        ]
    )
    assert stat.S_IMODE(layer.info("d/x").st_mode) == 0o711
    assert layer.info("d/x").st_uid == 3
    assert (layer.diff / "d/x/f").exists()
    assert stat.S_ISDIR(layer.info("d/y").st_mode)
    assert layer.xattrs("d/y") == {}


def test_entries_after_a_replaced_directory_go_where_their_path_leads_now(layers: Layers) -> None:
    layer = layers.apply(
        [
            directory("d"),
            symlink("l", "d"),
            directory("d/x"),
            file("d/x/a"),
            directory("target"),
            symlink("l/x", "/target"),
            file("d/x/b"),
        ]
    )
    assert layer.names() == {"d", "d/x", "l", "target", "target/b"}


def test_entries_after_a_replaced_link_go_where_their_path_leads_now(layers: Layers) -> None:
    layer = layers.apply(
        [
            directory("one"),
            directory("two"),
            directory("d"),
            symlink("k", "d"),
            symlink("d/l", "/one"),
            file("d/l/a"),
            symlink("k/l", "/two"),
            file("d/l/b"),
        ]
    )
    assert (layer.diff / "one/a").exists()
    assert (layer.diff / "two/b").exists()


def test_a_hard_link_in_place_of_the_directory_of_its_target_is_refused(layers: Layers) -> None:
    with pytest.raises(UnsupportedMemberError):
        layers.apply(
            [directory("d"), symlink("l", "d"), directory("d/x"), file("d/x/f", b"f"), hard_link("l/x", "d/x/f")]
        )


# What cannot be


@pytest.mark.parametrize("kind", [b"7", b"Z"])
def test_unknown_types_are_refused(layers: Layers, kind: bytes) -> None:
    with pytest.raises(UnsupportedMemberError):
        layers.apply([file("f").with_(kind=kind)])


@pytest.mark.parametrize("uid", [0xFFFF_FFFF, 0x1_0000_0000, 1 << 50])
def test_an_owner_that_cannot_be_is_refused(layers: Layers, uid: int) -> None:
    for entry in (file("f"), directory("f"), symlink("f", "x"), whiteout("f")):
        with pytest.raises(UnsupportedMemberError):
            layers.apply([entry.with_(uid=uid)])


def test_a_large_owner_can(layers: Layers) -> None:
    assert layers.apply([file("f").with_(uid=4_000_000_000)]).info("f").st_uid == 4_000_000_000


@pytest.mark.parametrize(
    "entries",
    [
        [file("f"), file("f/x")],
        [file("f"), directory("f/x/y")],
        [symlink("l", "nowhere"), file("l/x")],
        [symlink("l", "nowhere"), file("l/x/y")],
        [symlink("l", "l"), file("l/x")],
        [fifo("p"), file("p/x")],
        [file("f"), opaque("l"), symlink("l/k", "/f"), file("l/k/x")],
    ],
)
def test_a_path_through_what_is_no_directory_is_refused(layers: Layers, entries: list[Entry]) -> None:
    with pytest.raises(UnsupportedMemberError):
        layers.apply(entries)


# What overlay makes of the marks


def merged(layers: Layers, *stack: list[Entry]) -> set[str]:
    """Names that are seen when the layers, the base first, are mounted over each other."""
    diffs = [str(layers.apply(entries).diff) for entries in stack]
    mount = layers.home / "merged"
    mount.mkdir()
    lower = ":".join(reversed([*diffs, str(layers.new_diff())]))
    command = ["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount an overlay here")
    try:
        return {os.path.relpath(path, mount) for path in mount.rglob("*")}
    finally:
        subprocess.run(["umount", str(mount)], check=True)


BASE = [directory("d"), file("d/old"), directory("d/sub"), file("d/sub/old"), file("f")]


@pytest.mark.parametrize(
    ("entries", "seen"),
    [
        ([whiteout("d")], {"f"}),
        ([whiteout("d/old"), whiteout("f")], {"d", "d/sub", "d/sub/old"}),
        ([opaque("d"), file("d/new")], {"d", "d/new", "f"}),
        ([directory("d/sub"), opaque("d/sub")], {"d", "d/old", "d/sub", "f"}),
        ([whiteout("d"), directory("d"), file("d/new")], {"d", "d/new", "f"}),
        ([file("d/new"), whiteout("d")], {"d", "d/new", "f"}),
        ([whiteout("d"), file("d/sub/new")], {"d", "d/sub", "d/sub/new", "f"}),
        ([whiteout("d/old"), whiteout("d")], {"f"}),
        ([whiteout("d"), whiteout("d/old"), opaque("d/sub")], {"f"}),
        ([whiteout("d"), file("d")], {"d", "f"}),
        ([whiteout("f"), file("f/new")], {"d", "d/old", "d/sub", "d/sub/old", "f", "f/new"}),
        ([file("f"), whiteout("f")], {"d", "d/old", "d/sub", "d/sub/old", "f"}),
    ],
)
def test_what_is_seen_over_a_base(layers: Layers, entries: list[Entry], seen: set[str]) -> None:
    assert merged(layers, BASE, entries) == seen
