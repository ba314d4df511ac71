"""Who mounts a store: found out once, written down, and never changed or mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.store.driver.overlay import OverlayDriver
from asyncpull.store.driver.program import MARKER, choose_program
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "overlay"
    for name in ("l", "tempdirs"):
        (home / name).mkdir(parents=True)
    return home


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "bin/fuse-overlayfs"
    path.parent.mkdir()
    path.touch(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("marker", "is_configured", "is_installed", "uses"),
    [
        (None, False, True, False),
        (b"", False, True, False),
        (b"false", False, True, False),
        (b"false\n", False, True, False),
        (None, True, False, True),
        (b"true", True, False, True),
        (b"true", False, True, True),
    ],
)
def test_who_mounts(
    home: Path,
    program: str,
    monkeypatch: pytest.MonkeyPatch,
    marker: bytes | None,
    is_configured: bool,
    is_installed: bool,
    uses: bool,
) -> None:
    monkeypatch.setenv("PATH", program.rpartition("/")[0] if is_installed else "")
    if marker is not None:
        (home / MARKER).write_bytes(marker)
    assert choose_program([home], program if is_configured else "") == (program if uses else "")
    assert (home / MARKER).read_bytes().strip() == (b"true" if uses else b"false")


@pytest.mark.parametrize(("marker", "is_configured"), [(b"false", True), (b"true", False)])
def test_what_does_not_go_together(
    home: Path, program: str, monkeypatch: pytest.MonkeyPatch, marker: bytes, is_configured: bool
) -> None:
    monkeypatch.setenv("PATH", "")
    (home / MARKER).write_bytes(marker)
    with pytest.raises(ConfigurationError, match=r"mount[ _]program") as caught:
        choose_program([home], program if is_configured else "")
    assert caught.value.hint
    assert (home / MARKER).read_bytes() == marker


def test_a_program_that_is_not_there(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such program"):
        choose_program([home], str(home / "missing"))
    assert not (home / MARKER).exists()


def test_a_store_older_than_the_marker(home: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", program.rpartition("/")[0])
    diff = home / ("a" * 64) / "diff"
    (diff / "etc").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="kernel's overlay"):
        choose_program([home], program)
    assert (home / MARKER).read_bytes() == b"false"
    (home / MARKER).unlink()
    (diff / "etc/.wh.gone").touch()
    assert choose_program([home], "") == program
    assert (home / MARKER).read_bytes() == b"true"


def test_stores_of_both_kinds_together(home: Path, program: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert choose_program([home, other], program) == program
    (other / MARKER).write_bytes(b"false")
    with pytest.raises(ConfigurationError, match="different marks"):
        choose_program([home, other], program)


def test_a_store_that_cannot_be_written_gets_no_marker(home: Path, program: str) -> None:
    assert choose_program([home], program, is_writable=False) == program
    assert not (home / MARKER).exists()


def test_the_driver_writes_the_marks_of_its_program(tmp_path: Path, program: str) -> None:
    driver = OverlayDriver(tmp_path, rootless=True, mount_program=program)
    driver.prepare()
    assert driver.marks is Marks.AUFS
    assert (tmp_path / "overlay" / MARKER).stat().st_mode & 0o7777 == 0o600
