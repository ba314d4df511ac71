"""Which extended attributes are set, read and taken over."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from asyncpull.tree.marks import Marks, is_opaque, set_opaque
from asyncpull.tree.xattrs import (
    adopted,
    apply_xattrs,
    path_of,
    read_xattrs,
    replace_xattrs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """An open directory, on a file system with ``user.`` attributes."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        os.setxattr(fd, "user.probe", b"")
        os.removexattr(fd, "user.probe")
        yield fd
    except OSError:
        pytest.skip("no user attributes here")
    finally:
        os.close(fd)


def test_what_is_set_can_be_read(directory: int) -> None:
    mine = {b"user.a": b"\x00\xff", b"user.\xc3\xa9": b"", b"user.overlay.opaque": b"y"}
    apply_xattrs(directory, {**mine, b"security.selinux": b"label"}, in_userns=False)
    assert read_xattrs(directory) == mine
    assert adopted(mine) == {b"user.a": b"\x00\xff", b"user.\xc3\xa9": b""}


def test_by_name_nothing_is_followed(directory: int) -> None:
    os.symlink("/", "l", dir_fd=directory)
    assert read_xattrs(path_of(directory, b"l")) == {}
    with pytest.raises(PermissionError):
        apply_xattrs(path_of(directory, b"l"), {b"user.a": b"1"}, in_userns=False)
    apply_xattrs(path_of(directory, b"l"), {b"user.a": b"1"}, in_userns=True)


def test_a_name_space_that_nobody_has_is_left_out(directory: int) -> None:
    apply_xattrs(directory, {b"nonsense": b"1", b"nobody.has": b"2"}, in_userns=False)
    assert read_xattrs(directory) == {}


def test_where_there_are_none_there_are_none() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    assert read_xattrs(fd) == {}
    assert not is_opaque(fd, Marks.USER)
    os.close(fd)


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [(b"user." + b"x" * 300, b"", errno.ERANGE), (b"user.big", bytes(1 << 17), errno.E2BIG)],
)
def test_an_error_tells_which_attribute(directory: int, name: bytes, value: bytes, number: int) -> None:
    with pytest.raises(OSError, match="extended attribute 'user") as caught:
        apply_xattrs(directory, {name: value}, in_userns=False)
    assert caught.value.errno == number


def test_the_opaque_mark_of_a_user(directory: int) -> None:
    assert not is_opaque(directory, Marks.USER)
    set_opaque(directory, Marks.USER)
    assert is_opaque(directory, Marks.USER)
    assert not is_opaque(directory, Marks.TRUSTED)
    os.setxattr(directory, b"user.overlay.opaque", b"n")
    assert not is_opaque(directory, Marks.USER)


def test_replacing_leaves_only_what_is_wanted_and_overlay_s_own(directory: int) -> None:
    before = {b"user.old": b"1", b"user.same": b"2", b"user.changed": b"3", b"user.overlay.opaque": b"y"}
    apply_xattrs(directory, before, in_userns=False)
    replace_xattrs(directory, {b"user.same": b"2", b"user.changed": b"4", b"user.new": b"5"}, in_userns=False)
    assert read_xattrs(directory) == {
        b"user.same": b"2",
        b"user.changed": b"4",
        b"user.new": b"5",
        b"user.overlay.opaque": b"y",
    }
