"""What a layer's tree changes, told by its marks and by comparison; both must tell the same where they can."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.tree.changes import Change, ChangeKind, layer_changes, tree_changes
from asyncpull.tree.marks import Marks, set_opaque

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

EARLIER = 1_600_000_000 * 10**9


def told(changes: list[Change] | None) -> list[str]:
    assert changes is not None
    return [f"{change.kind.value} {os.fsdecode(change.path)}" for change in changes]


def settle(root: Path) -> None:
    """Give everything the same time, so that only what a test does changes one."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(EARLIER, EARLIER), follow_symlinks=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = tmp_path / "base"
    (root / "etc" / "deep").mkdir(parents=True)
    (root / "etc" / "hosts").write_text("hosts")
    (root / "etc" / "deep" / "file").write_text("deep")
    (root / "usr").mkdir()
    (root / "usr" / "a").write_text("a")
    (root / "link").symlink_to("usr")
    settle(root)
    return root


def add_deep(root: Path) -> None:
    (root / "usr" / "new").mkdir()
    (root / "usr" / "new" / "file").write_text("x")


def swap(root: Path) -> None:
    shutil.rmtree(root / "etc")
    (root / "etc").write_text("now a file")


def swap_back(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "link" / "inside").write_text("x")


def replace_directory(root: Path) -> None:
    shutil.rmtree(root / "usr")
    (root / "usr").mkdir()
    (root / "usr" / "b").write_text("b")


def keep_times(root: Path) -> None:
    (root / "etc" / "hosts").write_text("other")
    os.utime(root / "etc" / "hosts", ns=(EARLIER, EARLIER))


# What is done, what comparison tells of it, and what the marks tell where that is something else.
CASES: dict[str, tuple[Callable[[Path], object], list[str], list[str] | None]] = {
    "nothing": (lambda root: None, [], None),
    "content": (
        lambda root: (root / "etc/hosts").write_text("longer"),
        ["C etc", "C etc/hosts"],
        ["C etc/hosts"],
    ),
    "content of the same size and time": (keep_times, [], ["C etc/hosts"]),
    "mode": (lambda root: (root / "etc/hosts").chmod(0o600), ["C etc", "C etc/hosts"], ["C etc/hosts"]),
    "owner of a directory": (lambda root: os.chown(root / "etc/deep", 5, 6), ["C etc", "C etc/deep"], ["C etc/deep"]),
    "attribute": (lambda root: os.setxattr(root / "usr/a", "user.x", b"1"), ["C usr", "C usr/a"], ["C usr/a"]),
    "added": (add_deep, ["C usr", "A usr/new", "A usr/new/file"], None),
    "deleted": (lambda root: (root / "etc/deep/file").unlink(), ["C etc", "C etc/deep", "D etc/deep/file"], None),
    "deleted directory": (lambda root: shutil.rmtree(root / "etc/deep"), ["C etc", "D etc/deep"], None),
    "a file for a directory": (swap, ["C etc"], None),
    "a directory for a link": (swap_back, ["C link", "A link/inside"], ["D link", "A link/inside"]),
    "replaced": (replace_directory, ["C usr", "D usr/a", "A usr/b"], ["D usr", "A usr/b"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_mounted_layer_has_changed(case: str, base: Path, tmp_path: Path) -> None:
    change, compared, marked = CASES[case]
    upper, work, merged = tmp_path / "upper", tmp_path / "work", tmp_path / "merged"
    for path in (upper, work, merged):
        path.mkdir()
    options = f"lowerdir={base},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        change(merged)
        assert told(tree_changes(merged, base)) == compared
    finally:
        subprocess.run(["umount", str(merged)], check=True)
    assert told(layer_changes(upper, [base], Marks.TRUSTED)) == (compared if marked is None else marked)


def test_without_anything_below_all_is_added(base: Path) -> None:
    everything = ["etc", "etc/deep", "etc/deep/file", "etc/hosts", "link", "usr", "usr/a"]
    assert told(layer_changes(base, [], Marks.TRUSTED)) == [f"A {path}" for path in everything]
    assert told(tree_changes(base, None)) == [f"A {path}" for path in everything]


def test_marks_in_between_hide_what_is_below_them(base: Path, tmp_path: Path) -> None:
    upper, middle = tmp_path / "upper", tmp_path / "middle"
    shutil.copytree(base, upper, symlinks=True)
    (upper / "etc" / "new").write_text("x")
    (middle / "etc").mkdir(parents=True)
    set_opaque(os.fsencode(middle / "etc"), Marks.TRUSTED)
    os.mknod(middle / "usr", 0o020000)
    assert told(layer_changes(upper, [middle, base], Marks.TRUSTED)) == [
        "C etc",
        "A etc/deep",
        "A etc/deep/file",
        "A etc/hosts",
        "A etc/new",
        "C link",
        "A usr",
        "A usr/a",
    ]


def test_a_time_without_a_fraction_is_the_same_as_one_with(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other, symlinks=True)
    os.utime(other / "etc" / "hosts", ns=(EARLIER, EARLIER + 5))
    assert told(tree_changes(other, base)) == []
    os.utime(base / "etc" / "hosts", ns=(EARLIER, EARLIER + 6))
    assert told(tree_changes(other, base)) == ["C etc", "C etc/hosts"]


def test_owners_are_translated(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other, symlinks=True)
    for path in [other, *other.rglob("*")]:
        os.chown(path, 100000, 100000, follow_symlinks=False)
    assert len(tree_changes(other, base)) == 7
    assert tree_changes(other, base, lambda uid, gid: (uid - 100000, gid - 100000)) == []


@pytest.mark.parametrize("name", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_a_tree_that_leans_on_those_below_it_does_not_tell(name: str, base: Path) -> None:
    os.setxattr(base / "etc", name, b"/elsewhere")
    assert layer_changes(base, [], Marks.TRUSTED) is None


def test_the_kinds_are_podmans_letters() -> None:
    assert [kind.value for kind in ChangeKind] == ["A", "C", "D"]
