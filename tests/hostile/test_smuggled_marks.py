"""Attributes by which a layer would have overlay show something else than what its archive has.

The kernel's own documentation warns of ``metacopy`` and ``redirect`` in layers that are not trusted. A layer is looked
at here as the kernel shows it, and as ``check`` finds it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.layer.split import SplitWriter
from asyncpull.layer.stream import Member, TarStream
from asyncpull.store.check.contents import Compared, compare_tree
from asyncpull.store.check.expected import expected_tree
from asyncpull.store.check.mend import mend_tree
from asyncpull.tree.marks import Marks, harmless_name
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

BELOW = tar([file("etc/secret", b"secret"), directory("d"), file("d/below", b"below"), file("f", b"the lower one")])
SMUGGLED = {
    "opaque": [directory("d").with_(xattrs={"{}.opaque": b"y"})],
    "redirect": [directory("d").with_(xattrs={"{}.redirect": b"/etc"})],
    "metacopy": [file("f", b"mine").with_(xattrs={"{}.metacopy": b"", "{}.redirect": b"/etc/secret"})],
    "whiteout": [directory("d").with_(xattrs={"{}.opaque": b"x"}), file("d/below").with_(xattrs={"{}.whiteout": b""})],
}


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Path]:
    merged = tmp_path / "merged"
    merged.mkdir()
    yield merged
    if os.path.ismount(merged):
        kernel.unmount(merged)


def applied(place: Path, archive: bytes, marks: Marks) -> Path:
    place.mkdir()
    apply_layer([archive], place, len, ApplyOptions(marks))
    return place


def members(archive: bytes) -> list[Member]:
    stream = TarStream(SplitWriter(len))
    return [member for member, _ in stream.feed(archive) if member is not None]


@pytest.mark.parametrize("marks", [Marks.TRUSTED, Marks.USER], ids=lambda marks: marks.value)
@pytest.mark.parametrize("mark", SMUGGLED)
def test_the_kernel_shows_what_the_archive_has(mark: str, marks: Marks, tmp_path: Path, shown: Path) -> None:
    prefix = f"{marks.value}.overlay"
    layer = tar(
        [
            each.with_(xattrs={key.format(prefix): value for key, value in each.xattrs.items()})
            for each in SMUGGLED[mark]
        ]
    )
    below, above = applied(tmp_path / "below", BELOW, marks), applied(tmp_path / "above", layer, marks)
    options = "userxattr," if marks is Marks.USER else "metacopy=on,"
    kernel.mount("overlay", shown, "overlay", kernel.MS_RDONLY, f"{options}lowerdir={above}:{below}")
    assert (shown / "d/below").read_bytes() == (b"" if mark == "whiteout" else b"below")
    assert sorted(os.listdir(shown / "d")) == ["below"]
    assert (shown / "f").read_bytes() == (b"mine" if mark == "metacopy" else b"the lower one")
    kernel.unmount(shown)


@pytest.mark.parametrize("marks", Marks, ids=lambda marks: marks.value)
@pytest.mark.parametrize("prefix", ["trusted.overlay", "user.overlay", "user.fuseoverlayfs"])
def test_check_knows_them_by_either_name(prefix: str, marks: Marks, tmp_path: Path) -> None:
    """What podman leaves under its own name is fine, unless it means something."""
    layer = tar(
        [directory("d").with_(xattrs={f"{prefix}.redirect": b"/etc", f"{prefix}.origin": b"x", "user.a": b"1"})]
    )
    root = applied(tmp_path / "diff", layer, marks)
    expected = expected_tree([members(layer)], marks)
    assert compare_tree(root, expected, marks, Compared(), lambda: None) == []

    for name in list(os.listxattr(root / "d")):
        os.removexattr(root / "d", name)
    for name, value in ((f"{prefix}.redirect", b"/etc"), (f"{prefix}.origin", b"x"), ("user.a", b"1")):
        os.setxattr(root / "d", name, value)
    is_taken_for_a_mark = prefix == f"{marks.value}.overlay"
    flaws = compare_tree(root, expected, marks, Compared(), lambda: None)
    assert bool(flaws) is is_taken_for_a_mark
    if flaws:
        mend_tree(root, expected, flaws, marks, Compared())
        assert compare_tree(root, expected, marks, Compared(), lambda: None) == []


@pytest.mark.parametrize("marks", [Marks.TRUSTED, Marks.USER], ids=lambda marks: marks.value)
def test_a_name_that_is_escaped_already_is_escaped_again(marks: Marks) -> None:
    prefix = f"{marks.value}.overlay.".encode()
    once = harmless_name(prefix + b"opaque", marks)
    assert once == prefix + b"overlay.opaque"
    assert harmless_name(once, marks) == prefix + b"overlay.overlay.opaque"
