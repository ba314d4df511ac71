"""Mappings of IDs: their text, their records, and who is who."""

from __future__ import annotations

import pytest

from asyncpull.errors import UsageError
from asyncpull.store.idmap import IDMap, IDMappings, format_raw, parse_id_map, parse_raw, to_container, to_host

TWO_RANGES = (IDMap(0, 100000, 1000), IDMap(1000, 200000, 10))


@pytest.mark.parametrize(
    ("text", "maps"),
    [
        ("0:100000:65536", (IDMap(0, 100000, 65536),)),
        ("0:1000", (IDMap(0, 1000, 1),)),
        ("0:1000:1, 1:100000:65535", (IDMap(0, 1000, 1), IDMap(1, 100000, 65535))),
        ("0:0:4294967295", (IDMap(0, 0, 4294967295),)),
    ],
)
def test_a_mapping_is_read(text: str, maps: tuple[IDMap, ...]) -> None:
    assert parse_id_map(text) == maps
    assert parse_id_map(",".join(map(str, maps))) == maps


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0:", "a:b:c", "0:1:2:3", "-1:0:1", "0:0:0", "0:0:4294967296", "4294967295:0:1", "0:\u0661:1"),
        *("0:100:10,5:200:10", "0:100:10,10:109:1"),
    ],
)
def test_what_the_kernel_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_id_map(text)


@pytest.mark.parametrize(
    ("inside", "outside"), [(0, 100000), (999, 100999), (1000, 200000), (1009, 200009), (1010, None), (5000, None)]
)
def test_who_is_who(inside: int, outside: int | None) -> None:
    if outside is None:
        with pytest.raises(LookupError, match=str(inside)):
            to_host(inside, TWO_RANGES)
        return
    assert to_host(inside, TWO_RANGES) == outside
    assert to_container(outside, TWO_RANGES) == inside


def test_who_is_outside_of_all_ranges_is_nobody_inside() -> None:
    with pytest.raises(LookupError, match="99999"):
        to_container(99999, TWO_RANGES)


def test_no_mapping_leaves_everybody_who_he_is() -> None:
    assert to_host(7, ()) == to_container(7, ()) == 7
    assert not IDMappings()
    assert IDMappings().root == (0, 0)
    assert IDMappings(TWO_RANGES, (IDMap(0, 5, 1),)).root == (100000, 5)


def test_a_record_is_read_and_written() -> None:
    raw = [{"container_id": 0, "host_id": 100000, "size": 1000}, {"container_id": 1000, "host_id": 200000, "size": 10}]
    assert parse_raw(raw) == TWO_RANGES
    assert format_raw(TWO_RANGES) == raw
    assert parse_raw([{"container_id": 3}]) == parse_raw(None) == ()
