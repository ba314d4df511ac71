"""The overlay driver's directories, file by file as podman makes them, and what a mount of them is."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import StoreCorruptError, StoreError
from asyncpull.store.driver import MountOptions, Parent
from asyncpull.store.driver.overlay import OverlayDriver
from tests.store.made import GOLDEN

if TYPE_CHECKING:
    from pathlib import Path

BASE, MIDDLE, TOP = "b" * 64, "c" * 64, "d" * 64


class Bin:
    """Takes trees by removing them from where they are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.taken: list[str] = []

    def take_tree(self, path: Path) -> None:
        if path.exists():
            path.rename(self.directory / f"{len(self.taken)}-{path.name}")
            self.taken.append(path.name)


@pytest.fixture
def driver(tmp_path: Path) -> OverlayDriver:
    made = OverlayDriver(tmp_path)
    made.prepare()
    made.homes.staging_root(for_images=False).mkdir()
    return made


def add(driver: OverlayDriver, layer_id: str, parent: str | None) -> Path:
    """Stage, connect and install a layer."""
    directory = driver.homes.staging_root(for_images=False) / f"{layer_id[:4]}-addition"
    diff = driver.stage(directory, driver.directory(parent) if parent else None)
    assert diff == directory / "diff"
    driver.connect(directory, Parent(parent, driver.directory(parent)) if parent else None)
    driver.install(layer_id, directory)
    driver.sync([layer_id])
    return driver.directory(layer_id)


def stack(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    add(driver, MIDDLE, BASE)
    add(driver, TOP, MIDDLE)


def test_a_new_home(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        OverlayDriver(tmp_path).prepare()
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o7777) for path in (tmp_path / "overlay").iterdir()}
    assert modes == {"l": "0o755", ".has-mount-program": "0o600"}
    assert (tmp_path / "overlay").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "overlay/.has-mount-program").read_bytes() == b"false"


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "overlay").touch()
    with pytest.raises(StoreError):
        OverlayDriver(tmp_path).prepare()


def test_the_same_files_with_the_same_modes_as_podman(driver: OverlayDriver) -> None:
    """Compared with the listing of podman's own store, layer for layer; owners are those of root."""
    golden = _golden_layers()
    stack(driver)
    ours = [_listing(driver.directory(layer)) for layer in (BASE, MIDDLE, TOP)]
    assert ours[0] == golden["base"]
    assert ours[1] == ours[2] == golden["child"]


def _listing(directory: Path) -> dict[str, str]:
    found = {path.name: f"{path.stat().st_mode & 0o7777:o}" for path in directory.iterdir()}
    return {".": f"{directory.stat().st_mode & 0o7777:o}", **found}


def _golden_layers() -> dict[str, dict[str, str]]:
    layers: dict[str, dict[str, str]] = {}
    for line in (GOLDEN / "overlay.txt").read_text().splitlines():
        _, mode, _, path, *_ = line.split(" ")
        parts = path.split("/")
        if len(parts) > 1 and re.fullmatch("[0-9a-f]{64}", parts[1]):
            layers.setdefault(parts[1], {})["/".join(parts[2:]) or "."] = mode
    base = next(layer for layer in layers.values() if "empty" in layer)
    child = next(layer for layer in layers.values() if "lower" in layer)
    return {"base": base, "child": child}


def test_links_and_lowers_are_podmans(driver: OverlayDriver) -> None:
    stack(driver)
    links = {layer: (driver.directory(layer) / "link").read_text() for layer in (BASE, MIDDLE, TOP)}
    for layer, link in links.items():
        assert re.fullmatch("[A-Z2-7]{26}", link)
        assert os.readlink(driver.homes.main / "l" / link) == f"../{layer}/diff"
        assert (driver.homes.main / "l" / link).resolve() == driver.diff_path(layer)
    assert (driver.directory(MIDDLE) / "lower").read_text() == f"l/{links[BASE]}"
    assert (driver.directory(TOP) / "lower").read_text() == f"l/{links[MIDDLE]}:l/{links[BASE]}"
    assert (driver.directory(TOP) / "lower-layers").read_text() == f"{MIDDLE}:{BASE}"


def test_a_child_of_podmans_layers_gets_what_podmans_child_got(tmp_path: Path) -> None:
    """Lay out podman's ``link``, ``lower`` and ``lower-layers``, and put a layer where its container's layer was."""
    driver = OverlayDriver(tmp_path)
    driver.prepare()
    files: dict[str, dict[str, str]] = {}
    for line in (GOLDEN / "links.txt").read_text().splitlines():
        path, content = line.split(" ")
        _, layer, name = path.split("/")
        files.setdefault(layer, {})[name] = content
    for layer, contents in files.items():
        (tmp_path / "overlay" / layer / "diff").mkdir(parents=True)
        for name, content in contents.items():
            (tmp_path / "overlay" / layer / name).write_text(content)
        (tmp_path / "overlay/l" / contents["link"]).symlink_to(f"../{layer}/diff")
    parents = {contents["lower-layers"].split(":")[0] for contents in files.values() if "lower-layers" in contents}
    for layer, contents in files.items():
        if "lower" not in contents or layer in parents:
            continue
        parent = contents["lower-layers"].split(":")[0]
        staged = tmp_path / f"staged-{layer}"
        driver.stage(staged, tmp_path)
        driver.connect(staged, Parent(parent, driver.directory(parent)))
        assert (staged / "lower").read_text() == contents["lower"]
        assert (staged / "lower-layers").read_text() == contents["lower-layers"]


def test_parents_of_older_programs_have_no_lower_layers(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    add(driver, MIDDLE, BASE)
    (driver.directory(MIDDLE) / "lower-layers").unlink()
    add(driver, TOP, MIDDLE)
    assert (driver.directory(TOP) / "lower-layers").read_text() == f"{MIDDLE}:{BASE}"
    plan = driver.plan_mount(TOP, MountOptions())
    assert [lower.parent.name for lower in plan.lowers] == [TOP, MIDDLE, BASE]


def test_connecting_again_changes_nothing_unless_the_parent_was_replaced(driver: OverlayDriver, tmp_path: Path) -> None:
    add(driver, BASE, None)
    staged = driver.homes.staging_root(for_images=False) / "x"
    driver.stage(staged, tmp_path)
    parent = Parent(BASE, driver.directory(BASE))
    assert driver.connect(staged, parent) == [staged / "lower", staged / "lower-layers", staged / "diff"]
    assert driver.connect(staged, parent) == []
    driver.detach(BASE, Bin(tmp_path))
    add(driver, BASE, None)
    assert driver.connect(staged, parent) == [staged / "lower"]


def test_the_root_of_a_layer_is_that_of_its_parent(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    assert driver.diff_path(BASE).stat().st_mode & 0o7777 == 0o555
    driver.diff_path(BASE).chmod(0o750)
    add(driver, MIDDLE, BASE)
    assert driver.diff_path(MIDDLE).stat().st_mode & 0o7777 == 0o750


@pytest.mark.root
def test_the_owner_of_the_root_too(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    os.chown(driver.diff_path(BASE), 5, 6)
    add(driver, MIDDLE, BASE)
    status = driver.diff_path(MIDDLE).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (5, 6, 0o555)


def test_a_tree_is_taken_away_with_its_link(driver: OverlayDriver, tmp_path: Path) -> None:
    add(driver, BASE, None)
    bin_ = Bin(tmp_path)
    assert driver.has(BASE)
    driver.detach(BASE, bin_)
    assert not driver.has(BASE)
    assert bin_.taken == [BASE]
    assert os.listdir(driver.homes.main / "l") == []
    driver.detach(BASE, bin_)  # once more does nothing
    assert bin_.taken == [BASE]


def test_half_a_tree_is_taken_away(driver: OverlayDriver, tmp_path: Path) -> None:
    (driver.homes.main / TOP / "diff").mkdir(parents=True)
    (driver.homes.main / MIDDLE).mkdir()
    (driver.homes.main / MIDDLE / "link").write_text("../../../etc/passwd")
    bin_ = Bin(tmp_path)
    driver.detach(TOP, bin_)
    driver.detach(MIDDLE, bin_)
    assert bin_.taken == [TOP, MIDDLE]


def test_a_failed_installation_leaves_no_link(driver: OverlayDriver) -> None:
    staged = driver.homes.staging_root(for_images=False) / "x"
    driver.stage(staged, None)
    (driver.homes.main / BASE / "occupied").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        driver.install(BASE, staged)
    assert os.listdir(driver.homes.main / "l") == []
    assert staged.is_dir()


def test_a_broken_link_file_of_a_parent_is_reported(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    (driver.directory(BASE) / "link").write_text("l/../..")
    with pytest.raises(StoreCorruptError, match="link"):
        add(driver, MIDDLE, BASE)


def test_a_read_only_mount(driver: OverlayDriver) -> None:
    stack(driver)
    plan = driver.plan_mount(TOP, MountOptions())
    assert plan.lowers == tuple(driver.diff_path(layer) for layer in (TOP, MIDDLE, BASE))
    assert (plan.upper, plan.work, plan.is_writable) == (None, None, False)
    assert plan.target == driver.directory(TOP) / "merged"
    assert plan.options == ("ro",)


def test_a_writable_mount(driver: OverlayDriver) -> None:
    stack(driver)
    plan = driver.plan_mount(TOP, MountOptions(writable=True, volatile=True, context="system_u:object_r:x:s0"))
    assert plan.lowers == tuple(driver.diff_path(layer) for layer in (MIDDLE, BASE))
    assert plan.upper == driver.diff_path(TOP)
    assert plan.work == driver.directory(TOP) / "work"
    assert plan.options == ("volatile",)
    assert plan.context == "system_u:object_r:x:s0"


def test_a_base_layer_alone_needs_its_empty_directory(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    home = driver.directory(BASE)
    assert driver.plan_mount(BASE, MountOptions()).lowers == (home / "diff", home / "empty")
    assert driver.plan_mount(BASE, MountOptions(writable=True)).lowers == (home / "empty",)


def test_rotated_contents_of_mapped_layers_are_lower_directories(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    add(driver, TOP, BASE)
    for path in ("diff1", "diff2"):
        (driver.directory(BASE) / path).mkdir()
    (driver.directory(TOP) / "diff1").mkdir()
    lowers = driver.plan_mount(TOP, MountOptions()).lowers
    assert [str(path.relative_to(driver.homes.main)) for path in lowers] == [
        f"{TOP}/diff",
        f"{TOP}/diff1",
        f"{BASE}/diff",
        f"{BASE}/diff1",
        f"{BASE}/diff2",
    ]


def test_a_missing_mount_point_is_made(driver: OverlayDriver) -> None:
    add(driver, BASE, None)
    (driver.directory(BASE) / "merged").rmdir()
    driver.plan_mount(BASE, MountOptions())
    assert (driver.directory(BASE) / "merged").stat().st_mode & 0o7777 == 0o700


def test_a_missing_parent_is_reported(driver: OverlayDriver, tmp_path: Path) -> None:
    stack(driver)
    driver.detach(BASE, Bin(tmp_path))
    with pytest.raises(StoreCorruptError, match=BASE):
        driver.plan_mount(TOP, MountOptions())


def test_configured_options(tmp_path: Path) -> None:
    driver = OverlayDriver(tmp_path, ("nodev", "metacopy=on"))
    driver.prepare()
    driver.homes.staging_root(for_images=False).mkdir()
    add(driver, BASE, None)
    assert driver.plan_mount(BASE, MountOptions()).options == ("nodev", "metacopy=on", "ro")
    assert driver.plan_mount(BASE, MountOptions(words=("noatime",))).options == ("noatime", "ro")
    rootless = OverlayDriver(tmp_path, ("nodev", "metacopy=on"), rootless=True)
    assert rootless.plan_mount(BASE, MountOptions()).options == ("nodev", "userxattr", "ro")
