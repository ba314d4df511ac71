"""A whole layer: pieces of any size in, findings and tar-split out, and what is left of the process after it."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import LayerError, MalformedLayerError, NoSpaceError, StoreError, StoreWriteError
from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.layer.split import Contents, read_split, rebuild
from asyncpull.tree.marks import Marks
from tests.support.tars import Entry, directory, file, hard_link, opaque, symlink, tar, whiteout
from tests.support.trees import differences, list_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.extract.conftest import Layers

pytestmark = pytest.mark.root

EVERYTHING = [
    directory("./"),
    directory("d", 0o2755).with_(gid=5),
    file("d/big", random.Random(1).randbytes(300_000), 0o4755).with_(uid=3),
    file("d/small", b"x"),
    file("implied/empty"),
    hard_link("h", "d/big", 0o4755).with_(uid=3),
    symlink("l", "d"),
    file("l/through", b"y" * 513),
    whiteout("gone").with_(uid=99),
    opaque("d"),
    directory("last"),
]


def test_the_size_of_the_pieces_makes_no_difference(layers: Layers) -> None:
    archive = tar(EVERYTHING)
    whole = layers.apply(archive)
    expected = list_tree(whole.diff)
    for piece in (1, 7, 511, 512, 513, 4096, 100_000):
        layer = layers.apply(archive, piece=piece)
        found = list_tree(layer.diff)
        for when_made in (".", "implied", "gone"):
            found.pop(when_made)
            expected.pop(when_made, None)
        assert differences(found, expected) == []
        assert layer.applied == whole.applied


def test_what_is_known_of_a_layer(layers: Layers) -> None:
    archive = tar(EVERYTHING)
    applied = layers.apply(archive).applied
    assert applied.diff_size == len(archive)
    assert applied.uidset == (0, 3)
    assert applied.gidset == (0, 5)
    assert applied.implied == (b"implied",)
    assert applied.entries == len(EVERYTHING)


def test_the_tree_and_the_tar_split_make_the_archive_again(layers: Layers) -> None:
    archive = tar(EVERYTHING)
    layer = layers.apply(archive)
    entries = list(read_split([layer.tar_split]))
    assert [each.name for each in entries if isinstance(each, Contents)][:2] == [b"./", b"d/"]
    again = rebuild(entries, lambda name: (layer.diff / os.fsdecode(name)).open("rb"))
    assert b"".join(again) == archive


@pytest.mark.parametrize("archive", [b"", tar([]), bytes(512), bytes(1024) + b"garbage"])
def test_a_layer_with_nothing_in_it(layers: Layers, archive: bytes) -> None:
    layer = layers.apply(archive)
    assert layer.names() == set()
    assert (layer.applied.diff_size, layer.applied.uidset, layer.applied.entries) == (len(archive), (), 0)


def test_a_global_header_counts_as_root_and_makes_nothing(layers: Layers) -> None:
    name = b"pax_global_header"
    block = bytearray(tar([file(name, b"18 comment=abcdef\n").with_(kind=b"g", uid=77)]))
    layer = layers.apply(bytes(block[:1024]) + tar([file("f").with_(uid=5)]))
    assert layer.names() == {"f"}
    assert layer.applied.uidset == (0, 5)


def test_owners_are_cut_to_32_bits_where_nobody_has_to_hold_them(layers: Layers) -> None:
    layer = layers.apply([directory("./").with_(uid=(1 << 40) + 7)])
    assert layer.applied.uidset == (7,)


def test_the_umask_does_not_matter_and_is_put_back(layers: Layers) -> None:
    before = os.umask(0o077)
    try:
        layer = layers.apply([file("f", b"", 0o666), directory("d", 0o777), file("i/f")])
        with pytest.raises(LayerError):
            layers.apply(b"x" * 512)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert [stat.S_IMODE(layer.info(name).st_mode) for name in ("f", "d", "i")] == [0o666, 0o777, 0o755]


def test_the_whole_of_a_large_tree_keeps_its_times(layers: Layers) -> None:
    """More directories than are kept open, written to in turns."""
    count = 700
    entries = [directory(f"d{number}").with_(mtime_ns=number * 1000) for number in range(count)]
    for turn in range(2):
        entries += [file(f"d{number}/{turn}") for number in range(count)]
    descriptors = os.listdir("/proc/self/fd")
    layer = layers.apply(entries)
    assert [layer.info(f"d{number}").st_mtime_ns for number in range(count)] == [each * 1000 for each in range(count)]
    assert os.listdir("/proc/self/fd") == descriptors


# Odd archives: the rows of table 5.3 that no other module has


def sized(entry: Entry, size: int) -> bytes:
    """An archive whose only member claims ``size`` bytes of contents that are not there."""
    info = tarfile.TarInfo(str(entry.name))
    info.type, info.size, info.linkname = entry.kind, size, str(entry.link)
    return info.tobuf(tarfile.USTAR_FORMAT)


GLOBAL = tar([file("pax_global_header", b"18 comment=abcdef\n").with_(kind=b"g")])[:1024]
ONE = tar([file("f", b"x")])
MEMBER = ONE[:1024]


@pytest.mark.parametrize(
    "archive",
    [
        tar([file("f"), file("./f")]),
        tar([directory("d"), directory("d/")]),
        tar([file("d/../f"), file("f")]),
        GLOBAL + GLOBAL + ONE,
        MEMBER + bytes([MEMBER[0] ^ 1]) + MEMBER[1:] + bytes(1024),
        MEMBER + bytes(512) + ONE,
        tar([file("f", b"x").with_(pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "g"})]),
        tar([file("f").with_(kind=b"S")]),
        tar([file("f").with_(kind=b"7")]),
        MEMBER + sized(hard_link("h", "f"), 1) + bytes(1024),
        sized(whiteout("w"), 1) + b"x".ljust(512, b"\0") + bytes(1024),
        tar([file("x" * 256)]),
        tar([file("../x")]),
    ],
)
def test_an_archive_that_cannot_be_stored_and_rebuilt_is_refused(layers: Layers, archive: bytes) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(LayerError):
        layers.apply(archive)
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize(
    "archive",
    [
        MEMBER,
        MEMBER + bytes(512),
        MEMBER + bytes(1024),
        ONE + bytes(100_000),
        ONE + b"garbage" * 1000,
        GLOBAL + ONE,
        tar([file("f", b"x").with_(kind=b"\0")]),
        tar([file("/f", b"x")]),
        tar([directory("d"), file("d/../f", b"x")]),
    ],
)
def test_an_odd_archive_is_applied_whole(layers: Layers, archive: bytes) -> None:
    layer = layers.apply(archive)
    assert (layer.diff / "f").read_bytes() == b"x"
    assert layer.applied.diff_size == len(archive)
    assert b"".join(rebuild(read_split([layer.tar_split]), lambda _: (layer.diff / "f").open("rb"))) == archive


# Failures


def cut(archive: bytes, at: int) -> Iterator[bytes]:
    yield archive[:at]


@pytest.mark.parametrize("at", [100, 512 * 3, 512 * 4 + 1000])
def test_a_layer_that_ends_too_soon_is_malformed_and_leaves_no_descriptor(layers: Layers, at: int) -> None:
    descriptors = os.listdir("/proc/self/fd")
    options = ApplyOptions(Marks.TRUSTED)
    archive = tar([directory("d"), file("d/f", b"x" * 10_000)])
    with pytest.raises(MalformedLayerError):
        apply_layer(cut(archive, at), layers.new_diff(), len, options)
    assert os.listdir("/proc/self/fd") == descriptors


def test_what_the_source_raises_goes_through(layers: Layers) -> None:
    def broken() -> Iterator[bytes]:
        yield tar([directory("d"), file("d/f", b"x" * 10_000)])[:3000]
        raise TimeoutError("no more")

    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(TimeoutError, match="no more"):
        apply_layer(broken(), layers.new_diff(), len, ApplyOptions(Marks.TRUSTED))
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_root_that_is_not_there_is_the_stores_trouble(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="No such file"):
        apply_layer([], tmp_path / "missing", len, ApplyOptions(Marks.TRUSTED))


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB with room for 64 inodes."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=64", "tmpfs", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize(
    "entries", [[file("big", bytes(2 << 20))], [file(str(number)) for number in range(100)], [directory("a/" * 100)]]
)
def test_a_full_file_system(small_file_system: Path, entries: list[Entry]) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(NoSpaceError) as caught:
        apply_layer([tar(entries)], small_file_system, len, ApplyOptions(Marks.TRUSTED))
    assert caught.value.path is not None
    assert caught.value.path.startswith(str(small_file_system))
    assert caught.value.hint is not None
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_read_only_file_system(small_file_system: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_file_system)], check=True)
    for entry in (file("f"), directory("d"), symlink("l", "x"), whiteout("w"), opaque("o"), file("i/f")):
        with pytest.raises(StoreWriteError, match="Read-only") as caught:
            apply_layer([tar([entry])], small_file_system, len, ApplyOptions(Marks.TRUSTED))
        assert not isinstance(caught.value, NoSpaceError)


def test_an_attribute_too_large_for_the_file_system(layers: Layers) -> None:
    with pytest.raises(StoreError, match=r"extended attribute 'user\.x'"):
        layers.apply([file("f").with_(xattrs={"user.x": b"x" * 70_000})])
