"""Walking and removing trees, however deep, without following a link."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncpull.tree.confine import Root
from asyncpull.tree.marks import is_whiteout
from asyncpull.tree.walk import beside_whiteouts, entries, join, remove, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """A directory with a tree ``t`` in it, and one beside it that links in the tree lead to."""
    (tmp_path / "inside/t/a/b").mkdir(parents=True)
    (tmp_path / "inside/t/c").mkdir()
    (tmp_path / "inside/t/a/f").touch()
    (tmp_path / "inside/t/l").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").touch()
    fd = os.open(tmp_path / "inside", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_walk_comes_by_every_directory_from_the_top_down(directory: int, tmp_path: Path) -> None:
    with Root(tmp_path / "inside") as root:
        seen = [(path, listing) for path, _, listing in walk(root)]
    assert seen == [
        (b"", [(b"t", True)]),
        (b"t", [(b"a", True), (b"c", True), (b"l", False)]),
        (b"t/a", [(b"b", True), (b"f", False)]),
        (b"t/a/b", []),
        (b"t/c", []),
    ]


def test_a_walk_that_is_given_up_leaves_no_descriptor(directory: int, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Root(tmp_path / "inside") as root:
        for path, _, _ in walk(root):
            if path == b"t/a":
                break
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", [b"t", b"t/a", b"t/l", b"t/a/f"])
def test_removing_takes_everything_below_and_nothing_else(directory: int, tmp_path: Path, name: bytes) -> None:
    parent, _, last = name.rpartition(b"/")
    fd = os.open(parent or b".", os.O_RDONLY, dir_fd=directory)
    remove(fd, last)
    os.close(fd)
    assert not os.path.lexists(os.path.join(os.fsencode(tmp_path), b"inside", name))
    assert (tmp_path / "outside/f").exists()
    assert (tmp_path / "inside").exists()


def test_names_that_are_not_utf8(directory: int) -> None:
    os.mkdir(b"t/\xff", dir_fd=directory)
    os.mkdir(b"t/\xff/\xfe", dir_fd=directory)
    remove(directory, b"t")
    assert entries(directory) == []


def test_a_whiteout_is_a_device_without_number() -> None:
    assert not is_whiteout(os.lstat("/dev/null"))
    assert not is_whiteout(os.lstat("/"))


@pytest.mark.root
def test_a_tree_of_nothing_but_whiteouts(directory: int) -> None:
    os.makedirs(f"/proc/self/fd/{directory}/w/a")
    os.mknod("w/a/x", 0o020000, 0, dir_fd=directory)
    assert is_whiteout(os.lstat("w/a/x", dir_fd=directory))
    assert beside_whiteouts(directory, b"w", {b"a"}.__contains__) is None
    assert beside_whiteouts(directory, b"w", {b"w/a", b"w"}.__contains__) == b"a"
    assert beside_whiteouts(directory, b"t", lambda _: True) is not None
    os.mknod("w/null", 0o020000, os.makedev(1, 3), dir_fd=directory)
    assert beside_whiteouts(directory, b"w", lambda _: True) == b""


def test_joined_paths_are_relative_to_the_root() -> None:
    assert join(b"", b"x") == b"x"
    assert join(b"a/b", b"x") == b"a/b/x"
