"""Which driver is chosen, and the reason that is given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.errors import ConfigurationError
from asyncpull.store.config import StoreConfig
from asyncpull.store.driver.choice import choose_driver
from asyncpull.store.driver.opening import open_driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKS_ANYWHERE = ["vfs"]


@pytest.fixture
def on_overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory on an overlay file system, where overlay itself does not work."""
    if os.geteuid() != 0:
        pytest.skip("mounts, which takes root")
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    kernel.mount("overlay", tmp_path / "merged", "overlay", 0, options)
    yield tmp_path / "merged"
    kernel.unmount(tmp_path / "merged", kernel.MNT_DETACH)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([("vfs", "asked for"), ("overlay", "storage.conf")], ("vfs", "asked for")),
        ([(None, "asked for"), ("", "STORAGE_DRIVER"), ("overlay2", "storage.conf")], ("overlay", "storage.conf")),
    ],
)
def test_who_asks_first_wins(tmp_path: Path, wanted: list[tuple[str | None, str]], expected: tuple[str, str]) -> None:
    (tmp_path / "btrfs").mkdir()
    assert choose_driver(tmp_path, wanted, ["vfs"]) == expected


@pytest.mark.parametrize("name", ["overlay", "btrfs"])
def test_a_store_that_is_there_wins_over_what_is_better(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "vfs").mkdir()
    assert choose_driver(tmp_path, [], WORKS_ANYWHERE) == (name, "present in the graph root")


def test_a_store_of_vfs_is_used_only_when_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "vfs").mkdir()
    assert choose_driver(tmp_path / "none", [])[0] == choose_driver(tmp_path, [])[0] == "overlay"


def test_the_order_that_is_given_and_what_stood_in_the_way(tmp_path: Path) -> None:
    driver, reason = choose_driver(tmp_path / "not" / "there", [], ["zfs", "btrfs", "vfs", "overlay"])
    assert driver == "vfs"
    assert reason == (
        "first of driver_priority that works here; not zfs: asyncpull has it not; "
        "not btrfs: the graph root is not on btrfs"
    )


def test_overlay_does_not_go_on_overlay_but_with_a_mount_program(on_overlay: Path) -> None:
    driver, reason = choose_driver(on_overlay / "root", [])
    assert driver == "vfs"
    assert "not overlay: the graph root is on overlay" in reason
    assert choose_driver(on_overlay / "root", [], has_mount_program=True)[0] == "overlay"


@pytest.mark.parametrize(
    ("present", "priority", "said"),
    [(("overlay", "btrfs"), (), "several"), (("zfs",), (), "zfs"), ((), ("zfs",), "zfs")],
)
def test_refuses(tmp_path: Path, present: tuple[str, ...], priority: tuple[str, ...], said: str) -> None:
    for name in present:
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError, match=said) as caught:
        choose_driver(tmp_path, [], priority)
    assert caught.value.hint


@pytest.mark.parametrize("driver", ["vfs", "btrfs"])
def test_what_mounts_nothing_takes_no_mount_options(tmp_path: Path, driver: str) -> None:
    config = StoreConfig(tmp_path / "root", tmp_path / "run", driver, options={"mountopt": "nodev"})
    with pytest.raises(ConfigurationError, match="mounts nothing"):
        open_driver(config)


def test_btrfs_only_on_btrfs(tmp_path: Path) -> None:
    driver = open_driver(StoreConfig(tmp_path / "root", tmp_path / "run", "btrfs"))
    with pytest.raises(ConfigurationError, match="not on a btrfs"):
        driver.prepare()
    assert not (tmp_path / "root").exists()
