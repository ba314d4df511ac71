"""One suite for both ways of opening a directory below a root: openat2, and one openat for each component."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from asyncpull.tree.confine import MAX_LINKS, Root, has_openat2, open_by_kernel, open_by_steps
from asyncpull.tree.walk import remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NEITHER = (errno.ENOTDIR, errno.ELOOP)


@pytest.fixture(params=[open_by_kernel, open_by_steps], ids=["openat2", "steps"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    """A root with a tree, beside a directory ``outside`` that nobody may reach."""
    opener: Callable[[int, bytes], int] = request.param
    if opener is open_by_kernel and not has_openat2():
        pytest.skip("no openat2 here")
    top = tmp_path / "root"
    (top / "a/b/c").mkdir(parents=True)
    (top / "outside/here").mkdir(parents=True)
    (top / "file").touch()
    (tmp_path / "outside").mkdir()
    with Root(top, opener) as opened:
        yield opened


def link(root: Root, name: str, target: str | bytes) -> None:
    os.symlink(target, name, dir_fd=root.fd)


def opened_inode(root: Root, path: bytes) -> int:
    fd = root.open_directory(path)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def errno_of(call: Callable[[bytes], object], path: bytes) -> int | None:
    """The number of the OSError that the call raises, which it must."""
    try:
        call(path)
    except OSError as error:
        return error.errno
    pytest.fail(f"{path!r} is no error")


def inode(root: Root, path: str) -> int:
    return os.stat(path, dir_fd=root.fd).st_ino


def test_opens_what_a_canonical_path_names(root: Root) -> None:
    assert opened_inode(root, b"a/b/c") == inode(root, "a/b/c")
    assert opened_inode(root, b"") == inode(root, ".")


def test_a_directory_is_not_inherited_by_child_processes(root: Root) -> None:
    fd = root.open_directory(b"a")
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", [b"l", b"l/b", b"a/up", b"file", b"file/x"])
def test_opening_follows_no_link_and_no_file(root: Root, path: bytes) -> None:
    link(root, "l", "a")
    link(root, "a/up", "..")
    assert errno_of(root.open_directory, path) in NEITHER


def test_opening_refuses_to_go_up(root: Root) -> None:
    for path in (b"../outside", b"a/../../outside"):
        assert errno_of(root.open_directory, path) == errno.EXDEV


@pytest.mark.parametrize("path", [b"missing", b"a/missing/c"])
def test_what_is_missing_is_enoent(root: Root, path: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        root.open_directory(path)
    with pytest.raises(FileNotFoundError):
        root.resolve(path)


def test_a_null_byte_does_not_cut_the_path(root: Root) -> None:
    assert errno_of(root.open_directory, b"a\0b") == errno.EINVAL


@pytest.mark.parametrize("path", [b"x" * 256, b"x/" * 2047 + b"yy", b"x/" * 5000 + b"y"])
def test_a_path_too_long_is_an_error(root: Root, path: bytes) -> None:
    assert errno_of(root.open_directory, path) in (errno.ENAMETOOLONG, errno.ENOENT)


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("a", b"a"),
        ("./a//b/", b"a/b"),
        ("a/b/..", b"a"),
        ("/a/b", b"a/b"),
        ("/", b""),
        ("..", b""),
        ("../../../..", b""),
        ("../outside/here", b"outside/here"),
        ("/../outside/here", b"outside/here"),
        ("a/../../outside/here", b"outside/here"),
    ],
)
def test_a_link_is_followed_inside_the_root(root: Root, target: str, leads_to: bytes) -> None:
    link(root, "l", target)
    assert root.resolve(b"l") == leads_to


def test_what_is_above_the_root_is_not_there_for_a_link(root: Root, tmp_path: Path) -> None:
    link(root, "up", "../secret")
    link(root, "absolute", os.fspath(tmp_path / "secret"))
    (tmp_path / "secret").mkdir()
    for name in (b"up", b"absolute"):
        with pytest.raises(FileNotFoundError):
            root.resolve(name)


def test_links_through_links(root: Root) -> None:
    link(root, "a/b/back", "../../l2")
    link(root, "l2", "/a/b/c/../c")
    assert root.resolve(b"a/b/back") == b"a/b/c"


def test_a_link_goes_up_from_where_it_lies(root: Root) -> None:
    link(root, "deep", "a/b/c")
    link(root, "a/b/c/up", "../x")
    os.mkdir("a/b/x", dir_fd=root.fd)
    assert root.resolve(b"deep/up") == b"a/b/x"


def test_a_dangling_link_is_enoent(root: Root) -> None:
    link(root, "l", "nowhere/at/all")
    with pytest.raises(FileNotFoundError):
        root.resolve(b"l")


def test_a_link_to_a_file_is_enotdir(root: Root) -> None:
    link(root, "l", "file")
    with pytest.raises(NotADirectoryError):
        root.resolve(b"l")
    with pytest.raises(NotADirectoryError):
        root.resolve(b"file/x")


def test_loops_end(root: Root) -> None:
    link(root, "self", "self")
    link(root, "one", "two/x")
    link(root, "two", "one/y")
    for name in (b"self", b"one"):
        assert errno_of(root.resolve, name) == errno.ELOOP


def test_as_many_links_are_followed_as_by_the_kernel(root: Root) -> None:
    link(root, "l1", "a")
    for number in range(2, MAX_LINKS + 2):
        link(root, f"l{number}", f"l{number - 1}")
    assert root.resolve(b"l%d" % MAX_LINKS) == b"a"
    os.stat(f"l{MAX_LINKS}", dir_fd=root.fd)
    one_too_many = b"l%d" % (MAX_LINKS + 1)
    assert errno_of(root.resolve, one_too_many) == errno.ELOOP
    assert errno_of(lambda path: os.stat(path, dir_fd=root.fd), one_too_many) == errno.ELOOP


def test_names_are_bytes(root: Root) -> None:
    os.mkdir(b"\xff\xfe \n", dir_fd=root.fd)
    link(root, "l", b"\xff\xfe \n")
    assert root.resolve(b"l") == b"\xff\xfe \n"


def test_a_deep_tree(root: Root) -> None:
    fd = os.dup(root.fd)
    for _ in range(1200):
        os.mkdir(b"d", dir_fd=fd)
        below = os.open(b"d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    wanted = os.fstat(fd).st_ino
    os.close(fd)
    path = b"/".join([b"d"] * 1200)
    assert opened_inode(root, path) == wanted
    assert root.resolve(path) == path
    remove(root.fd, b"d")  # too deep for what pytest clears away with


def test_no_descriptor_is_left(root: Root) -> None:
    link(root, "l", "a/b")
    link(root, "self", "self")
    before = os.listdir("/proc/self/fd")
    root.resolve(b"l/c")
    for path in (b"l/missing", b"self", b"file/x", b"l\0"):
        with pytest.raises((OSError, ValueError)):
            root.resolve(path)
    for path in (b"l", b"missing", b"a/missing", b"file"):
        errno_of(root.open_directory, path)
    assert os.listdir("/proc/self/fd") == before
