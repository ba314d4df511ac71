"""Records in and out: podman's bytes, foreign keys, and everything that would make a store unreadable."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import orjson
import pytest

from asyncpull.errors import StoreCorruptError
from asyncpull.store.records import (
    CONTAINERS,
    IMAGES,
    LAYERS,
    RecordKind,
    big_data_file_name,
    format_json,
    format_records,
    format_time,
    is_time,
    names_added,
    names_removed,
    parse_array,
    parse_records,
    parse_time,
    updated,
)
from tests.store.made import GOLDEN

FILES = [
    ("layers.json", LAYERS),
    ("volatile-layers.json", LAYERS),
    ("images.json", IMAGES),
    ("containers.json", CONTAINERS),
    ("volatile-containers.json", CONTAINERS),
]

ID = "a" * 64
NOW = "2026-11-23T15:47:53.231339969Z"


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_writes_the_bytes_that_podman_wrote(name: str, kind: RecordKind) -> None:
    data = (GOLDEN / name).read_bytes()
    records = parse_records(data, kind, name)
    assert records
    assert format_records(records, kind) == data


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_puts_keys_into_podmans_order(name: str, kind: RecordKind) -> None:
    data = (GOLDEN / name).read_bytes()
    shuffled = [dict(reversed(record.items())) for record in parse_records(data, kind, name)]
    assert format_records(shuffled, kind) == data


def test_foreign_keys_survive_behind_the_known_ones() -> None:
    record = {"future": {"b": 1, "a": [2]}, "created": NOW, "id": ID}
    data = orjson.dumps([record])
    assert format_records(parse_records(data, LAYERS, "x"), LAYERS) == (
        b'[{"id":"' + ID.encode() + b'","created":"' + NOW.encode() + b'","future":{"b":1,"a":[2]}}]'
    )


def test_escapes_as_go_does() -> None:
    assert format_json(["<a&b>\u2028\u2029é\n"]) == b'["\\u003ca\\u0026b\\u003e\\u2028\\u2029\xc3\xa9\\n"]'


@pytest.mark.parametrize("data", [b"", b" \n", b"null", b"[]", b" [ ] "])
def test_nothing_is_an_empty_array(data: bytes) -> None:
    assert parse_records(data, LAYERS, "x") == ()


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    (record,) = parse_records(b'[{"id":"x","created":"' + NOW.encode() + b'","metadata":"\xff"}]', LAYERS, "x")
    assert record["metadata"] == "\ufffd"


@pytest.mark.parametrize("data", [b"[", b'[{"id":"', b"{}", b"[1]", b'"text"', b"[]]", b'[{"id":"\xff'])
def test_refuses_what_is_no_array_of_records(data: bytes) -> None:
    with pytest.raises(StoreCorruptError) as caught:
        parse_array(data, "/store/layers.json")
    assert "/store/layers.json" in str(caught.value)
    assert caught.value.hint


WRONG = [
    (LAYERS, "id", ""),
    (LAYERS, "id", "../../etc"),
    (LAYERS, "id", ".."),
    (LAYERS, "id", 5),
    (LAYERS, "created", "yesterday"),
    (LAYERS, "created", "2026-11-23 15:47:53Z"),
    (LAYERS, "created", "2026-13-23T15:47:53Z"),
    (LAYERS, "diff-size", 1.5),
    (LAYERS, "diff-size", "7"),
    (LAYERS, "diff-size", True),
    (LAYERS, "compression", "gzip"),
    (LAYERS, "names", "one"),
    (LAYERS, "names", [1]),
    (LAYERS, "uidset", [-1]),
    (LAYERS, "uidset", [1 << 32]),
    (LAYERS, "flags", []),
    (LAYERS, "uidmap", [{"size": "1"}]),
    (LAYERS, "gidmap", [{"container_id": 0, "host_id": 1, "size": 1 << 32}]),
    (CONTAINERS, "uidmap", [{"container_id": -1, "host_id": 0, "size": 1}]),
    (IMAGES, "id", "short"),
    (IMAGES, "digest", "sha256"),
    (IMAGES, "big-data-digests", {"manifest": "nonsense"}),
    (IMAGES, "big-data-digests", {"manifest-1": 4}),
    (IMAGES, "big-data-sizes", {"manifest": "4"}),
    (CONTAINERS, "image", "short"),
    (CONTAINERS, "flags", "none"),
]


@pytest.mark.parametrize(("kind", "key", "value"), WRONG)
def test_refuses_values_that_make_a_store_unreadable(kind: RecordKind, key: str, value: object) -> None:
    good: dict[str, object] = {"id": ID, "created": NOW}
    assert parse_records(orjson.dumps([good]), kind, "x")
    bad = {**good, key: value}
    with pytest.raises(StoreCorruptError, match=key):
        parse_records(orjson.dumps([bad]), kind, "x")
    with pytest.raises(ValueError, match=key):
        format_records([bad], kind)


def test_digests_of_other_items_are_not_looked_at() -> None:
    record = {"id": ID, "created": NOW, "big-data-digests": {"signatures": "nonsense"}}
    assert parse_records(orjson.dumps([record]), IMAGES, "x")


def test_null_is_as_good_as_missing() -> None:
    assert parse_records(orjson.dumps([{"id": ID, "created": NOW, "names": None, "flags": None}]), LAYERS, "x")


def test_updated_leaves_out_what_became_empty() -> None:
    record: dict[str, object] = {"id": ID, "names": ["a"], "created": NOW, "future": ""}
    assert updated(record, IMAGES, {"names": [], "metadata": "{}"}) == {
        "id": ID,
        "created": NOW,
        "future": "",
        "metadata": "{}",
    }
    assert record["names"] == ["a"]


def test_a_container_keeps_its_empty_image() -> None:
    assert updated({"id": ID, "image": ID}, CONTAINERS, {"image": ""})["image"] == ""


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_448_873_231_339_969, "2026-11-23T15:47:53.231339969Z"),
        (1_795_448_873_500_000_000, "2026-11-23T15:47:53.5Z"),
        (1_795_448_873_000_000_001, "2026-11-23T15:47:53.000000001Z"),
    ],
)
def test_times(nanoseconds: int, text: str) -> None:
    assert format_time(nanoseconds) == text
    assert is_time(text)
    assert int(parse_time(text).timestamp()) == nanoseconds // 1_000_000_000


@pytest.mark.parametrize(
    "text", ["2026-11-23T15:47:53+02:00", "0001-01-01T00:00:00Z", "2026-11-23T15:47:53.123456789-11:30"]
)
def test_times_of_others_are_understood(text: str) -> None:
    assert is_time(text)
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize("text", ["2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "\u0662026-11-23T15:47:53Z"])
def test_days_that_there_are_not(text: str) -> None:
    assert not is_time(text)


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("0000-01-02T00:00:00Z", 1),
        ("0000-02-29T00:00:00Z", 1),
        ("0001-01-01T00:00:00+01:00", 1),
        ("9999-12-31T23:59:59.999999999-23:59", 9999),
    ],
)
def test_times_that_python_has_not(text: str, year: int) -> None:
    assert is_time(text)
    assert (parse_time(text).year, parse_time(text).tzinfo) == (year, UTC)


def test_an_offset_is_taken_off() -> None:
    assert parse_time("2026-11-23T15:47:53+02:00") == datetime(2026, 11, 23, 13, 47, 53, tzinfo=UTC)


def test_names_and_their_history() -> None:
    names, history = names_added([], [], ["a"])
    assert (names, history) == (["a"], ["a"])
    names, history = names_added(names, history, ["b"])
    assert (names, history) == (["b", "a"], ["a", "b"])  # as podman: the reverse of each other after two
    names, history = names_added(names, history, ["a"])
    assert (names, history) == (["a", "b"], ["b", "a"])
    names, history = names_removed(names, history, ["a"])
    assert (names, history) == (["b"], ["b", "a"])


def test_history_is_what_podman_made_of_two_names() -> None:
    (image,) = parse_records((GOLDEN / "images.json").read_bytes(), IMAGES, "x")
    newer, older = cast("list[str]", image["names"])
    names, history = names_added([], [], [older])
    names, history = names_added(names, history, [newer])
    assert (names, history) == (image["names"], image["names-history"])


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("manifest", "manifest"),
        ("a.1", "a.1"),
        ("sha256:ef", "=c2hhMjU2OmVm"),
        ("manifest-sha256:ef", "=bWFuaWZlc3Qtc2hhMjU2OmVm"),
        ("Upper", "=VXBwZXI="),
        ("..", "=Li4="),
    ],
)
def test_file_names_of_big_data(key: str, name: str) -> None:
    assert big_data_file_name(key) == name


@pytest.mark.parametrize("key", ["", "???", "k" * 250 + "-"])
def test_keys_that_no_file_can_have(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        big_data_file_name(key)
