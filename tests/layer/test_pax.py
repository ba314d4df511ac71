"""PAX records: what is valid, and what they override."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import MalformedLayerError
from asyncpull.layer.header import Member, parse_header
from asyncpull.layer.pax import apply_records, is_sparse, parse_records
from tests.support.tar_blocks import MTIME, header, record

SECOND = 1_000_000_000
# The two sparse keys that do not come back have a test of their own.
KEYS = st.binary(min_size=1, max_size=30).filter(lambda key: not key.startswith(b"GNU.") and not {*b"=\0"} & {*key})
VALUES = st.binary(max_size=200).filter(lambda value: b"\0" not in value)


def applied(**records: bytes) -> Member:
    member = parse_header(header(b"a", uid=5), 0)
    apply_records(member, {key.encode(): value for key, value in records.items()}, 512)
    return member


@given(st.dictionaries(KEYS, VALUES))
def test_records_come_back(records: dict[bytes, bytes]) -> None:
    data = b"".join(record(key, value) for key, value in records.items())
    assert parse_records(data, 0) == records


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", {}),
        (b"5 a=\n", {b"a": b""}),
        (b"+6 a=b\n"[1:], {b"a": b"b"}),
        (b"7 +a=b\n", {b"+a": b"b"}),
        (b"007 a=\n", {b"a": b""}),
        (b"8 a=b=c\n", {b"a": b"b=c"}),
        (b"7 a=\n\n\n", {b"a": b"\n\n"}),
        (b"6 a=b\n6 a=c\n", {b"a": b"c"}),
        (b"10 a=\0\xff\xfe=\n", {b"a": b"\0\xff\xfe="}),
    ],
)
def test_valid_records(data: bytes, records: dict[bytes, bytes]) -> None:
    assert parse_records(data, 0) == records


@pytest.mark.parametrize(
    "data",
    [
        b"a",
        b" a=b\n",
        b"5a=b\n",
        b"x a=b\n",
        b"-6 a=b\n",
        b"4 a=",
        b"5 a=b\n",
        b"7 a=b\n",
        b"6 a=b ",
        b"0000000006 a=b\n",
        b"5 =b\n",
        b"5 ab\n",
        b"7 a\0=b\n",
        b"6 a=b\n\0",
        b"99999999999999999999 a=b\n",
        b"9" * 5000 + b" a=b\n",
        record(b"path", b"a\0b"),
        record(b"linkpath", b"\0"),
        record(b"uname", b"\0"),
        record(b"gname", b"\0"),
    ],
)
def test_invalid_records(data: bytes) -> None:
    with pytest.raises(MalformedLayerError) as refused:
        parse_records(data, 1024)
    assert refused.value.position == 1024


@given(st.binary(max_size=60))
def test_random_bytes_are_an_error_or_records(data: bytes) -> None:
    try:
        records = parse_records(data, 0)
    except MalformedLayerError:
        return
    assert bool(records) == bool(data)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1", SECOND),
        (b"1.", SECOND),
        (b"+1.5", 3 * SECOND // 2),
        (b"1.000000001", SECOND + 1),
        (b"1.0000000019999", SECOND + 1),
        (b"0001.25", SECOND + SECOND // 4),
        (b"0.5", SECOND // 2),
        (b"-0.5", 0),
        (b"-1", 0),
        (b"9223372036.854775807", (1 << 63) - 1),
        (b"9223372036.854775808", 0),
        (b"9223372036854775807", 0),
    ],
)
def test_times(text: bytes, nanoseconds: int) -> None:
    assert applied(mtime=text).mtime_ns == nanoseconds


@pytest.mark.parametrize(
    "text", [b".5", b"1.5.5", b"1,5", b"1.-5", b"1.5s", b"x", b" 1", b"0x1", b"9223372036854775808"]
)
def test_no_times(text: bytes) -> None:
    for key in ("mtime", "atime", "ctime"):
        with pytest.raises(MalformedLayerError):
            applied(**{key: text})


@pytest.mark.parametrize(
    ("text", "number"), [(b"7", 7), (b"+7", 7), (b"-7", -7), (b"007", 7), (b"-9223372036854775808", -(1 << 63))]
)
def test_numbers(text: bytes, number: int) -> None:
    assert applied(uid=text).uid == applied(gid=text).gid == applied(size=text).size == number


@pytest.mark.parametrize("text", [b"1.5", b"0x7", b"1_0", b" 7", b"7 ", b"--7", b"9223372036854775808"])
def test_no_numbers(text: bytes) -> None:
    for key in ("uid", "gid", "size"):
        with pytest.raises(MalformedLayerError):
            applied(**{key: text})


def test_an_empty_value_leaves_what_the_header_says() -> None:
    member = applied(path=b"", linkpath=b"", uid=b"", gid=b"", size=b"", mtime=b"", atime=b"", ctime=b"")
    assert (member.name, member.uid, member.mtime_ns) == (b"a", 5, MTIME * SECOND)


def test_access_is_never_before_modification() -> None:
    member = applied(mtime=b"5", atime=b"4.999")
    assert (member.mtime_ns, member.atime_ns) == (5 * SECOND, 5 * SECOND)
    member = applied(mtime=b"5", atime=b"6")
    assert (member.mtime_ns, member.atime_ns) == (5 * SECOND, 6 * SECOND)


def test_extended_attributes_are_those_of_schily() -> None:
    member = applied(
        **{
            "SCHILY.xattr.user.a": b"b",
            "SCHILY.xattr.user.empty": b"",
            "LIBARCHIVE.xattr.user.c": b"ZA==",
            "SCHILY.acl.access": b"user::rwx",
        }
    )
    assert member.xattrs == {b"user.a": b"b", b"user.empty": b""}


@pytest.mark.parametrize(
    ("records", "sparse"),
    [
        ({}, False),
        ({"major": b"1", "minor": b"0"}, True),
        ({"major": b"0", "minor": b"1"}, True),
        ({"major": b"0", "minor": b"0"}, True),
        ({"major": b"1", "minor": b"1"}, False),
        ({"major": b"1"}, False),
        ({"map": b"0,4"}, True),
        ({"map": b""}, False),
        ({"major": b"2", "map": b"0,4"}, False),
        ({"name": b"n", "size": b"4"}, False),
    ],
)
def test_what_is_sparse(records: dict[str, bytes], sparse: bool) -> None:
    assert is_sparse({b"GNU.sparse." + key.encode(): value for key, value in records.items()}) is sparse


def test_the_oldest_sparse_maps_become_one_record() -> None:
    pair = record(b"GNU.sparse.offset", b"0") + record(b"GNU.sparse.numbytes", b"4")
    assert parse_records(pair * 2, 0) == {b"GNU.sparse.map": b"0,4,0,4"}
    for wrong in (pair + pair[25:], pair[:25] * 2, record(b"GNU.sparse.offset", b"0,4")):
        with pytest.raises(MalformedLayerError):
            parse_records(wrong, 0)
