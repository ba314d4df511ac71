"""Trees go away whole: read-only ones, deep ones, links that point elsewhere, with few descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from asyncpull.tree.removal import remove_tree


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")


def test_everything_but_what_links_point_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_bytes(b"x")
    (tree / "a/link").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    os.link(outside / "kept", tree / "hard")
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").read_bytes() == b"x"


def test_a_link_in_the_place_of_a_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    (tmp_path / "tree").symlink_to("outside")
    with pytest.raises(OSError):  # noqa: PT011 - ELOOP or ENOTDIR
        remove_tree(tmp_path / "tree")
    assert (tmp_path / "outside/kept").exists()


def test_deeper_than_there_are_descriptors(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(1500):  # far more levels than a path can name
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, hard), hard))
    try:
        remove_tree(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_read_only_directories_of_an_ordinary_user(place: Path) -> None:
    program = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from asyncpull.tree.removal import remove_tree
os.setgroups([]); os.setgid(1000); os.setuid(1000)
top = Path(sys.argv[1])
for mode in (0o555, 0o311, 0o000):
    tree = top / f"tree{mode:o}"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/file").touch()
    deep = tree
    for _ in range(70):
        deep = deep / "d"
        deep.mkdir()
    for path in (deep, tree / "a/b", tree / "a", tree):
        path.chmod(mode)
    remove_tree(tree)
print(os.listdir(top))
"""
    place.chmod(0o777)
    project = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, str(place), project], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr
