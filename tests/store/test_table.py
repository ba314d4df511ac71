"""The token protocol: nothing stale is used, nothing is read again for nothing, and a crash costs a reload at most."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull.errors import NoSpaceError, StoreCorruptError, StoreError
from asyncpull.lockfile import LockMode, locked
from asyncpull.store.records import LAYERS
from asyncpull.store.table import Rows, Table, find
from asyncpull.store.views import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asyncpull.store.records import Raw

NOW = "2026-11-23T15:47:53Z"


def record(record_id: str, **values: object) -> Raw:
    return {"id": record_id, "created": NOW, **values}


def table(directory: Path) -> Table[LayerRecord]:
    return Table(directory, LAYERS, LayerRecord.from_raw)


async def load(known: Table[LayerRecord]) -> Rows[LayerRecord]:
    async with locked(known.lock_path, LockMode.SHARED) as lock:
        return known.load(lock)


async def change(
    known: Table[LayerRecord],
    changes: Mapping[str, Mapping[str, object] | None],
    append: tuple[Raw, ...] = (),
    append_volatile: tuple[Raw, ...] = (),
) -> Rows[LayerRecord]:
    async with locked(known.lock_path, LockMode.EXCLUSIVE) as lock:
        return known.change(lock, known.load(lock), changes, append=append, append_volatile=append_volatile)


async def test_an_empty_store(tmp_path: Path) -> None:
    rows = await load(table(tmp_path))
    assert rows.by_id == {}
    assert os.listdir(tmp_path) == ["layers.lock"]


async def test_what_one_writes_the_other_reads(tmp_path: Path) -> None:
    ours, theirs = table(tmp_path), table(tmp_path)
    assert (await load(theirs)).by_id == {}
    await change(ours, {}, append=(record("a"), record("b", parent="a")))
    rows = await load(theirs)
    assert [layer.id for layer in rows.by_id.values()] == ["a", "b"]
    assert rows.by_id["b"].parent == "a"
    assert (tmp_path / "layers.json").stat().st_mode & 0o7777 == 0o600


async def test_records_are_read_again_only_after_a_change(tmp_path: Path) -> None:
    ours, theirs = table(tmp_path), table(tmp_path)
    await change(ours, {}, append=(record("a"),))
    first = await load(theirs)
    assert await load(theirs) is first
    await change(ours, {"a": {"names": ["n"]}})
    assert (await load(theirs)).by_id["a"].names == ("n",)


async def test_a_new_token_alone_makes_everybody_read_again(tmp_path: Path) -> None:
    known = table(tmp_path)
    await change(known, {}, append=(record("a"),))
    first = await load(known)
    async with locked(known.lock_path, LockMode.EXCLUSIVE) as lock:
        lock.write_token()  # as of a writer that died before it renamed anything
    assert await load(known) is not first


async def test_a_changed_file_is_noticed_without_a_token(tmp_path: Path) -> None:
    known = table(tmp_path)
    await change(known, {}, append=(record("a"),))
    await load(known)
    (tmp_path / "layers.json").write_bytes(orjson.dumps([record("b")]))
    assert list((await load(known)).by_id) == ["b"]


async def test_the_token_is_written_before_the_file(tmp_path: Path) -> None:
    known = table(tmp_path)
    await change(known, {}, append=(record("a"),))
    token = (tmp_path / "layers.lock").read_bytes()
    (tmp_path / "layers.json").unlink()
    (tmp_path / "layers.json").mkdir()  # nothing can be renamed over it
    async with locked(known.lock_path, LockMode.EXCLUSIVE) as lock:
        with pytest.raises(StoreError):
            known.change(lock, Rows((), (), {}), {}, append=(record("b"),))
    assert (tmp_path / "layers.lock").read_bytes() != token
    assert sorted(os.listdir(tmp_path)) == ["layers.json", "layers.lock"]


async def test_a_save_that_fails_fails_as_a_whole(tmp_path: Path) -> None:
    known = Table(tmp_path, LAYERS, LayerRecord.from_raw, volatile_directory=tmp_path / "gone")
    await change(known, {}, append=(record("a"),))
    before = (tmp_path / "layers.json").read_bytes()
    with pytest.raises(StoreError):  # the first file is replaced, the second cannot be written
        await change(known, {}, append=(record("b"),), append_volatile=(record("c"),))
    assert (tmp_path / "layers.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["layers.json", "layers.lock"]
    assert list((await load(known)).by_id) == ["a"]


async def test_volatile_records_have_a_file_of_their_own(tmp_path: Path) -> None:
    known = table(tmp_path)
    await change(known, {}, append=(record("a"),), append_volatile=(record("v"),))
    assert orjson.loads((tmp_path / "volatile-layers.json").read_bytes()) == [record("v")]
    rows = await load(table(tmp_path))
    assert {layer.id: layer.volatile for layer in rows.by_id.values()} == {"a": False, "v": True}
    before = (tmp_path / "volatile-layers.json").stat().st_ino
    await change(known, {"a": {"metadata": "x"}})
    assert (tmp_path / "volatile-layers.json").stat().st_ino == before
    await change(known, {"v": None})
    assert (tmp_path / "volatile-layers.json").read_bytes() == b"[]"


async def test_of_two_records_with_one_id_the_stable_one_counts(tmp_path: Path) -> None:
    (tmp_path / "layers.json").write_bytes(orjson.dumps([record("a", metadata="stable")]))
    (tmp_path / "volatile-layers.json").write_bytes(orjson.dumps([record("a", metadata="volatile")]))
    rows = await load(table(tmp_path))
    assert not rows.by_id["a"].volatile
    assert rows.raw("a")["metadata"] == "stable"
    with pytest.raises(KeyError):
        rows.raw("b")


async def test_what_we_do_not_know_survives_our_changes(tmp_path: Path) -> None:
    foreign = record("a", future={"x": [1, {"y": None}]}, flags={"z": 1.5})
    (tmp_path / "layers.json").write_bytes(orjson.dumps([foreign, record("b", other="kept")]))
    await change(table(tmp_path), {"a": {"names": ["n"]}, "b": None}, append=(record("c"),))
    written = orjson.loads((tmp_path / "layers.json").read_bytes())
    assert written == [{**foreign, "names": ["n"]}, record("c")]


async def test_a_broken_file_is_reported_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_bytes(b'[{"id":"a","created":"now"}]')
    known = table(tmp_path)
    with pytest.raises(StoreCorruptError, match="created"):
        await load(known)
    with pytest.raises(StoreCorruptError):
        await change(known, {}, append=(record("b"),))
    assert path.read_bytes() == b'[{"id":"a","created":"now"}]'
    assert (tmp_path / "layers.lock").read_bytes() == b""


async def test_a_record_that_nobody_could_read_is_never_written(tmp_path: Path) -> None:
    known = table(tmp_path)
    await change(known, {}, append=(record("a"),))
    with pytest.raises(ValueError, match="diff-size"):
        await change(known, {"a": {"diff-size": "7"}})
    assert list((await load(known)).by_id) == ["a"]


def test_find_by_id_name_and_beginning() -> None:
    views = [LayerRecord.from_raw(record(i, names=[n]), volatile=False) for i, n in (("abc", "one"), ("abd", "abc2"))]
    rows = Rows((), (), {view.id: view for view in views})

    def look(target: str) -> str | None:
        found = find(rows, lambda layer: layer.names, target)
        return found.id if found else None

    assert look("abc") == "abc"
    assert look("one") == "abc"
    assert look("abc2") == "abd"
    assert look("abd") == look("abd") == "abd"
    assert look("x") is None
    assert look("") is None
    with pytest.raises(StoreError, match="several"):
        look("ab")
    assert not issubclass(StoreError, NoSpaceError)
