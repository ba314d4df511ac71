"""Files are replaced whole or not at all, with the mode that was asked for; the disk's errors get their names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asyncpull.errors import NoSpaceError, StoreError, StoreWriteError
from asyncpull.store.files import (
    disk_errors,
    make_directory,
    read_if_there,
    sync_file,
    translated,
    write_atomic,
    write_new,
)


def test_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    write_atomic(path, b"old")
    before = path.stat().st_ino
    write_atomic(path, b"new", durable=False)
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != before
    assert path.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["layers.json"]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.mkdir()  # a directory cannot be replaced by a file
    with pytest.raises(OSError, match="directory"):
        write_atomic(path, b"new")
    assert os.listdir(tmp_path) == ["layers.json"]


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_directory(tmp_path / "d", 0o755)
        write_new(tmp_path / "f", b"1", 0o644)
        write_new(tmp_path / "f", b"22", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o644
    assert (tmp_path / "f").read_bytes() == b"22"


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    make_directory(tmp_path / "d", 0o700)
    make_directory(tmp_path / "d", 0o755)
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o700
    (tmp_path / "f").touch()
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "f", 0o755)


def test_a_new_file_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        write_new(tmp_path / "link", b"", 0o600)
    assert not (tmp_path / "target").exists()


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_if_there(tmp_path / "none") == b""
    (tmp_path / "some").write_bytes(b"x")
    assert read_if_there(tmp_path / "some") == b"x"


def test_syncs_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    sync_file(tmp_path / "f")
    sync_file(tmp_path)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EACCES, StoreWriteError),
        (errno.EROFS, StoreWriteError),
        (errno.EIO, StoreError),
    ],
)
def test_errors_of_the_disk(number: int, kind: type[StoreError]) -> None:
    error = translated(OSError(number, os.strerror(number)), Path("/store"))
    assert type(error) is kind
    assert error.path == "/store"
    assert os.strerror(number) in str(error)


def test_the_file_that_failed_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught, disk_errors(tmp_path):
        (tmp_path / "missing").read_bytes()
    assert caught.value.path == str(tmp_path / "missing")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
