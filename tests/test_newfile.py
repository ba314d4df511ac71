"""Files that are seen when they are whole, on file systems with unnamed files and without."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import StoreWriteError
from asyncpull.newfile import NewFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["unnamed", "hidden"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory where files without a name can be made, and one where they cannot."""
    if request.param == "unnamed":
        yield tmp_path
        return
    if shutil.which("fuse-overlayfs") is None or os.geteuid() != 0:
        pytest.skip("needs fuse-overlayfs, whose files have names, and root")
    directory, lower, upper, work = (tmp_path / name for name in ("merged", "lower", "upper", "work"))
    for each in (directory, lower, upper, work):
        each.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["fuse-overlayfs", "-o", options, directory], check=True)
    try:
        with pytest.raises(OSError, match="not supported"):
            os.open(directory, os.O_RDWR | os.O_TMPFILE)
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def visible(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if not path.name.startswith("."))


def hidden(place: Path) -> list[str]:
    return [path.name for path in place.iterdir() if path.name.startswith(".")]


def test_it_is_seen_when_it_is_published(place: Path) -> None:
    with NewFile(place / "a") as file:
        os.write(file.fd, b"whole")
        assert visible(place) == []
        file.publish(replace=False)
        assert (place / "a").read_bytes() == b"whole"
    assert (visible(place), hidden(place)) == (["a"], [])
    assert (place / "a").stat().st_mode & 0o777 == 0o644


def test_without_publish_there_is_nothing(place: Path) -> None:
    with NewFile(place / "a") as file:
        os.write(file.fd, b"half")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"old"])
def test_another_file_is_replaced_if_that_is_wanted(place: Path, content: bytes) -> None:
    (place / "a").write_bytes(content)
    with NewFile(place / "a") as file:
        os.write(file.fd, b"new")
        file.publish(replace=bool(content))
    assert (place / "a").read_bytes() == b"new"
    assert (visible(place), hidden(place)) == (["a"], [])


def test_another_file_is_kept_if_that_is_wanted(place: Path) -> None:
    with NewFile(place / "a") as file:
        (place / "a").write_bytes(b"old")
        with pytest.raises(StoreWriteError, match="is there already"):
            file.publish(replace=False)
    assert (place / "a").read_bytes() == b"old"
    assert (visible(place), hidden(place)) == (["a"], [])


def test_what_a_crash_left_is_removed_by_the_next(place: Path) -> None:
    left = place / ".a.asyncpull-0123"
    with NewFile(place / "a") as living:
        has_names = bool(hidden(place))
        left.touch()
        with NewFile(place / "a"):
            assert len(hidden(place)) == (2 if has_names else 1)
            assert left.exists() is not has_names
        living.publish(replace=False)
    assert visible(place) == ["a"]


def test_a_link_in_the_place_of_what_a_crash_left_is_not_followed(place: Path) -> None:
    trap = place / ".a.asyncpull-trap"
    trap.symlink_to(place / "elsewhere")
    with NewFile(place / "a") as file:
        file.publish(replace=False)
    assert trap.is_symlink()
    assert visible(place) == ["a"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="No such file or directory"):
        NewFile(tmp_path / "missing" / "a")
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match="Not a directory"):
        NewFile(tmp_path / "file" / "a")
