"""Layers in a user namespace: marks of its own, IDs that are shifted or missing, and what is not permitted there."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import StoreWriteError
from asyncpull.extract.apply import Applied, ApplyOptions, apply_layer
from asyncpull.extract.implied import adopt_implied
from asyncpull.tree.copy import copy_tree
from asyncpull.tree.marks import Marks
from tests.support.tars import (
    DAY_ONE,
    Entry,
    block_device,
    character_device,
    directory,
    fifo,
    file,
    hard_link,
    opaque,
    symlink,
    tar,
    whiteout,
)
from tests.support.trees import TreeEntry, differences, list_tree
from tests.support.user_namespace import FIRST, call_in_user_namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
ENTRIES = [
    directory("d", 0o2775).with_(mtime_ns=DAY_ONE + 1),
    opaque("d"),
    file("d/su", b"x", 0o4755),
    file("ping", b"x").with_(xattrs={"security.capability": CAPABILITY, "trusted.x": b"x", "user.y": b"y"}),
    hard_link("d/ping", "ping"),
    symlink("l", "/nowhere").with_(xattrs={"user.y": b"not on links"}),
    fifo("p"),
    character_device("null", 1, 3),
    block_device("disk", 8, 0),
    hard_link("null2", "null"),
    whiteout("gone"),
    whiteout("was"),
    directory("was"),
    file("implied/f"),
]


def apply(entries: Sequence[Entry], *, ignore_chown_errors: bool = False) -> Applied:
    """Apply to the current directory, as a worker in the namespace of a rootless store does."""
    options = ApplyOptions(Marks.USER, in_userns=True, ignore_chown_errors=ignore_chown_errors)
    return apply_layer([tar(entries)], Path(), len, options)


def apply_and_list(entries: Sequence[Entry]) -> dict[str, TreeEntry]:
    apply(entries)
    return list_tree(Path())


def test_a_layer_of_root_s_files_needs_one_id_only(tmp_path: Path) -> None:
    tree = call_in_user_namespace(lambda: apply_and_list(ENTRIES), tmp_path)
    assert tree.keys() == {".", "d", "d/su", "d/ping", "ping", "l", "p", "gone", "was", "implied", "implied/f"}
    assert {(entry.uid, entry.gid) for entry in tree.values()} == {(0, 0)}
    assert tree["d"].xattrs == tree["was"].xattrs == (("user.overlay.opaque", b"y"),)
    assert stat.S_IMODE(tree["d"].mode) == 0o2775
    assert stat.S_IMODE(tree["d/su"].mode) == 0o4755
    assert tree["d"].mtime_ns == DAY_ONE + 1
    assert tree["ping"].xattrs == (("security.capability", CAPABILITY), ("user.y", b"y"))
    assert tree["ping"].links == 2
    assert (tree["gone"].mode, tree["gone"].device) == (stat.S_IFCHR, 0)


@pytest.mark.root
def test_owners_are_shifted_like_the_namespace(tmp_path: Path) -> None:
    entries = [
        *ENTRIES,
        file("mail", b"x", 0o2755).with_(uid=5, gid=6),
        directory("home", 0o700).with_(uid=1000, gid=65535),
        whiteout("home/w").with_(uid=7, gid=7),
    ]
    call_in_user_namespace(lambda: apply(entries), tmp_path, ids=65536)
    tree = list_tree(tmp_path)
    assert (tree["mail"].uid, tree["mail"].gid) == (FIRST + 5, FIRST + 6)
    assert stat.S_IMODE(tree["mail"].mode) == 0o2755
    assert (tree["home"].uid, tree["home"].gid) == (FIRST + 1000, FIRST + 65535)
    assert (tree["home/w"].uid, tree["home/w"].mode) == (FIRST + 7, stat.S_IFCHR)
    assert (tree["implied"].uid, tree["ping"].gid) == (FIRST, FIRST)
    # The kernel writes down whose root the capability is for.
    ((name, value), _) = tree["ping"].xattrs
    assert name == "security.capability"
    assert struct.unpack("<I", value[-4:]) == (FIRST,)


@pytest.mark.parametrize(
    "entry", [file("f", b"x", 0o4755), directory("f"), symlink("f", "x"), fifo("f"), whiteout("f")]
)
def test_an_owner_beyond_the_namespace_is_an_error_with_a_hint(tmp_path: Path, entry: Entry) -> None:
    with pytest.raises(StoreWriteError, match="5:6") as caught:
        call_in_user_namespace(lambda: apply([entry.with_(uid=5, gid=6)]), tmp_path)
    assert "/etc/subuid" in (caught.value.hint or "")
    assert "ignore_chown_errors" in (caught.value.hint or "")


def test_or_it_stays_ours_if_that_is_wanted(tmp_path: Path) -> None:
    entries = [
        file("f", b"x", 0o4755),
        directory("d", 0o2755),
        file("d/f", b"x").with_(uid=0, gid=0),
        symlink("l", "x"),
        whiteout("w"),
        hard_link("h", "f", 0o4711),
    ]
    mine = [entry if entry.name == "d/f" else entry.with_(uid=5, gid=6) for entry in entries]

    def apply_all() -> dict[str, TreeEntry]:
        apply(mine, ignore_chown_errors=True)
        return list_tree(Path())

    tree = call_in_user_namespace(apply_all, tmp_path)
    assert {(entry.uid, entry.gid) for entry in tree.values()} == {(0, 0)}
    assert stat.S_IMODE(tree["f"].mode) == 0o4711
    assert stat.S_IMODE(tree["d"].mode) == 0o2755


def test_copies_and_implied_directories(tmp_path: Path) -> None:
    def copy_and_list() -> tuple[dict[str, TreeEntry], dict[str, TreeEntry]]:
        for name in ("below", "source", "copy"):
            os.mkdir(name)
        described = directory("implied", 0o1711).with_(mtime_ns=DAY_ONE + 9, xattrs={"user.z": b"z"})
        apply_layer([tar([described])], Path("below"), len, ApplyOptions(Marks.USER, in_userns=True))
        applied = apply_layer([tar(ENTRIES)], Path("source"), len, ApplyOptions(Marks.USER, in_userns=True))
        adopt_implied(Path("source"), applied.implied, [Path("below")], marks=Marks.USER, in_userns=True)
        copy_tree(Path("source"), Path("copy"), in_userns=True)
        return list_tree(Path("copy")), list_tree(Path("source"))

    copy, source = call_in_user_namespace(copy_and_list, tmp_path)
    assert copy.pop(".").xattrs == source.pop(".").xattrs
    assert differences(copy, source) == []
    assert stat.S_IMODE(source["implied"].mode) == 0o1711
    assert source["implied"].mtime_ns == DAY_ONE + 9
    assert source["implied"].xattrs == (("user.z", b"z"),)
