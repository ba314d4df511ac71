"""The tar stream of a layer from its tar-split and tree: exact, and never more than the layer's own files."""

from __future__ import annotations

import gzip
import os
import random
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    AsyncpullError,
    DigestMismatchError,
    IntegrityError,
    NotInStoreError,
    SizeMismatchError,
    StoreCorruptError,
    StoreError,
)
from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.tarstream import rebuild_layer
from asyncpull.tree.marks import Marks
from tests.support.tars import directory, fifo, file, hard_link, opaque, symlink, tar, whiteout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

BIG = random.Random(2).randbytes(3_000_000)
ARCHIVE = tar(
    [
        directory("./"),
        directory("./d"),
        file("./d/big", BIG, 0o4755).with_(uid=3),
        file("/absolute", b"a"),
        symlink("link", "/d"),
        file("link/through", b"by way of a link"),
        file("d//odd/../name", b"n"),
        file(b"d/not \xff utf-8", b"raw"),
        hard_link("hard", "d/big", 0o4755).with_(uid=3),
        fifo("pipe"),
        whiteout("gone"),
        opaque("d"),
        file("empty"),
    ]
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "diff"
    root.mkdir()
    with (tmp_path / "tar-split.gz").open("wb") as split:
        apply_layer([ARCHIVE], root, split.write, ApplyOptions(Marks.TRUSTED))
    return root


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def rebuilt(*roots: Path) -> bytes:
    return b"".join(rebuild_layer(roots[-1].parent / "tar-split.gz", roots))


def test_it_is_the_archive(tree: Path) -> None:
    before = open_files()
    assert rebuilt(tree) == ARCHIVE
    assert open_files() == before


def test_what_the_first_root_has_counts_and_the_others_have_the_rest(tree: Path, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (tree / "d" / "big").rename(upper / "d" / "big")
    (tree / "d" / "big").write_bytes(b"hidden")
    assert rebuilt(upper, tree) == ARCHIVE
    with pytest.raises(SizeMismatchError):
        rebuilt(tree, upper, tree)


def test_giving_up_closes_everything(tree: Path) -> None:
    before = open_files()
    stream = rebuild_layer(tree.parent / "tar-split.gz", [tree])
    while len(next(stream)) < len(BIG) // 3:
        pass
    assert open_files() > before
    stream.close()
    assert open_files() == before


def change_a_byte(tree: Path) -> None:
    with (tree / "d" / "big").open("r+b") as big:
        big.seek(1_500_000)
        big.write(bytes([BIG[1_500_000] ^ 1]))


def replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(tree: Path) -> None:
        (tree / name).unlink()
        make(tree / name)

    return damage


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        pytest.param(change_a_byte, DigestMismatchError, id="changed"),
        pytest.param(lambda tree: os.truncate(tree / "d" / "big", 5), SizeMismatchError, id="cut"),
        pytest.param(lambda tree: os.truncate(tree / "absolute", 2), SizeMismatchError, id="grown"),
        pytest.param(lambda tree: (tree / "absolute").unlink(), StoreCorruptError, id="missing"),
        pytest.param(lambda tree: (tree / "link").unlink(), StoreCorruptError, id="no way there"),
        pytest.param(replace("link", lambda path: path.symlink_to("link")), StoreError, id="a loop on the way"),
        pytest.param(replace("absolute", os.mkfifo), StoreCorruptError, id="a FIFO"),
        pytest.param(replace("absolute", os.mkdir), StoreCorruptError, id="a directory"),
        pytest.param(replace("absolute", lambda path: path.symlink_to("d/big")), StoreCorruptError, id="a link"),
        pytest.param(lambda tree: (tree.parent / "tar-split.gz").unlink(), NotInStoreError, id="no tar-split"),
        pytest.param(
            lambda tree: (tree.parent / "tar-split.gz").write_bytes(b"{}"), IntegrityError, id="not a tar-split"
        ),
        pytest.param(lambda tree: tree.rename(tree.parent / "away"), StoreCorruptError, id="no tree"),
    ],
)
def test_what_is_not_as_it_was_is_told(
    tree: Path, damage: Callable[[Path], object], error: type[AsyncpullError]
) -> None:
    damage(tree)
    before = open_files()
    with pytest.raises(error):
        rebuilt(tree)
    assert open_files() == before


def test_a_name_that_leads_out_of_the_layer_is_never_opened(tree: Path) -> None:
    (tree.parent / "outside").write_bytes(b"secret")
    entry = b'{"type":1,"name":"../outside","size":6,"payload":"AAAAAAAAAAA=","position":0}\n'
    (tree.parent / "tar-split.gz").write_bytes(gzip.compress(entry))
    with pytest.raises(StoreCorruptError, match="missing"):
        rebuilt(tree)
