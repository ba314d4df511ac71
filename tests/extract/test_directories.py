"""The cache of open directories: bounded, never stale, times put back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncpull.extract.directories import Directories
from asyncpull.tree.confine import Root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(20):
        directory = tmp_path / f"d{number}" / "sub"
        directory.mkdir(parents=True)
        os.utime(directory, ns=(1, 10 + number))
        os.utime(directory.parent, ns=(1, 100 + number))
    (tmp_path / "l").symlink_to("d1")
    return tmp_path


@pytest.fixture
def directories(tree: Path) -> Iterator[Directories]:
    with Root(tree) as root, Directories(root, capacity=8) as cache:
        yield cache


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_at_most_so_many_are_open(tree: Path, directories: Directories) -> None:
    before = descriptors()
    for _ in range(3):
        for number in range(20):
            directory = directories.get(b"d%d" % number)
            assert os.fstat(directory.fd).st_ino == (tree / f"d{number}").stat().st_ino
            assert descriptors() <= before + 8
    directories.settle()
    assert descriptors() == before


def test_times_are_put_back_when_a_directory_is_closed(tree: Path, directories: Directories) -> None:
    for number in range(20):
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=directories.get(b"d%d" % number).fd))
    directories.settle()
    assert [(tree / f"d{number}").stat().st_mtime_ns for number in range(20)] == [100 + each for each in range(20)]


def test_a_directory_is_one_whatever_it_is_called(directories: Directories) -> None:
    assert directories.get(b"l") is directories.get(b"d1")
    assert directories.get(b"l/sub") is directories.get(b"d1/sub")
    assert directories.get(b"l/sub").path == b"d1/sub"


def test_a_link_that_was_replaced_leads_elsewhere(tree: Path, directories: Directories) -> None:
    assert directories.get(b"l/sub").path == b"d1/sub"
    directories.forget(b"l")
    (tree / "l").unlink()
    (tree / "l").symlink_to("d2")
    assert directories.get(b"l/sub").path == b"d2/sub"


def test_a_directory_that_was_replaced_is_another(tree: Path, directories: Directories) -> None:
    old = [directories.get(path).fd for path in (b"d3", b"d3/sub")]
    inodes = [os.fstat(fd).st_ino for fd in old]
    directories.get(b"d30" if (tree / "d30").exists() else b"d4")
    before = descriptors()
    directories.forget(b"d3")
    assert descriptors() == before - 2
    (tree / "d3").rename(tree / "moved")
    (tree / "d3/sub").mkdir(parents=True)
    assert [os.fstat(directories.get(path).fd).st_ino for path in (b"d3", b"d3/sub")] != inodes


def test_forgetting_one_directory_leaves_those_with_a_longer_name(directories: Directories) -> None:
    kept = directories.get(b"d10")
    directories.get(b"d1")
    directories.forget(b"d1")
    assert directories.get(b"d10") is kept


def test_who_owns_what_is_new(tree: Path, directories: Directories) -> None:
    """Only where it is certain: the group may come from the process or from the directory."""
    me = (os.geteuid(), os.getegid())
    assert directories.get(b"d1").newcomer == me
    assert not directories.get(b"d1").is_setgid
    (tree / "d2").chmod(0o2755)
    assert directories.get(b"d2").is_setgid


@pytest.mark.root
def test_who_owns_what_is_new_in_the_directory_of_another_group(tree: Path, directories: Directories) -> None:
    for number, mode in ((5, 0o755), (6, 0o2755)):
        os.chown(tree / f"d{number}", 0, 50)
        (tree / f"d{number}").chmod(mode)
    assert directories.get(b"d5").newcomer is None
    assert directories.get(b"d6").newcomer == (0, 50)
    os.close(os.open("f", os.O_CREAT, dir_fd=directories.get(b"d6").fd))
    info = (tree / "d6/f").stat()
    assert (info.st_uid, info.st_gid) == (0, 50)


def test_a_path_too_long_is_not_taken_over(tree: Path, directories: Directories) -> None:
    fd = os.open(tree, os.O_RDONLY)
    with pytest.raises(OSError, match="too long"):
        directories.add(b"x" * 4096, fd, None, 0o755, None)
    os.close(fd)
