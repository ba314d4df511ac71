"""Header blocks: every flavour, and the short path deciding as the long one does."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncpull.errors import MalformedLayerError
from asyncpull.layer.header import BLOCK, Member, parse_header, settable_time
from tests.support.tar_blocks import GNU, MTIME, USTAR, V7, base_256, checksum_of, header, octal

SECOND = 1_000_000_000


def parse(name: bytes = b"a", kind: bytes = b"0", **fields: object) -> Member:
    return parse_header(header(name, kind, **fields), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("magic", [USTAR, GNU, V7, b"ustar\0xy"])
def test_fields(magic: bytes) -> None:
    found = parse(b"name", b"2", size=5, mode=0o4755, uid=1, gid=2, link=b"target", magic=magic)
    assert (found.name, found.kind, found.size, found.mode, found.uid, found.gid) == (b"name", 0x32, 5, 0o4755, 1, 2)
    assert (found.mtime_ns, found.atime_ns, found.link_name) == (MTIME * SECOND, MTIME * SECOND, b"target")


def test_names_and_links_may_fill_their_fields() -> None:
    found = parse(b"n" * 100, link=b"l" * 100)
    assert (found.name, found.link_name) == (b"n" * 100, b"l" * 100)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"prefix": b"p" * 155}, b"p" * 155 + b"/a"),
        ({"prefix": b"p" * 131 + octal(1, 12) + octal(2, 12), "trailer": b"tar\0"}, b"p" * 131 + b"/a"),
        ({"prefix": b"p" * 155, "magic": V7}, b"a"),
        ({"prefix": octal(1, 12) + octal(2, 12), "magic": GNU}, b"a"),
        ({"prefix": octal(1, 12), "magic": GNU}, b"a"),
        ({"prefix": b"written/by/old/go", "magic": GNU}, b"written/by/old/go/a"),
        ({"prefix": b"written/by/\xc3\xb6", "magic": GNU}, b"a"),
        ({"prefix": bytes(12) + b"not octal", "magic": GNU}, b"a"),
        ({"prefix": b"\0ignored"}, b"a"),
    ],
)
def test_prefixes(fields: dict[str, bytes], name: bytes) -> None:
    assert parse(**fields).name == name


@pytest.mark.parametrize("magic", [USTAR, GNU])
def test_devices(magic: bytes) -> None:
    found = parse(kind=b"3", devices=(7, 255), magic=magic)
    assert (found.dev_major, found.dev_minor) == (7, 255)


def test_v7_has_no_devices() -> None:
    found = parse(kind=b"3", devices=b"whatever", magic=V7)
    assert (found.dev_major, found.dev_minor) == (0, 0)


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (b"", 0),
        (b" \0 ", 0),
        (b"0000010", 8),
        (b"10", 8),
        (b"    10 ", 8),
        (b"\0\0 10 \0", 8),
        (b"10\0 9", 8),
        (b"77777777", 0o77777777),
        (base_256(0, 8), 0),
        (base_256(4_000_000_000, 8), 4_000_000_000),
        (base_256(-1, 8), -1),
        (base_256(-(1 << 54), 8), -(1 << 54)),
        (b"\xbf" + b"\xff" * 7, (1 << 62) - 1),
    ],
)
def test_numbers(field: bytes, number: int) -> None:
    assert parse(uid=field).uid == number


@pytest.mark.parametrize("field", [b"8", b"0o7", b"1_0", b"-1", b"+1", b"1 2", b"x", b"\x7f"])
def test_no_numbers(field: bytes) -> None:
    for name in ("mode", "uid", "size", "mtime"):
        with pytest.raises(MalformedLayerError):
            parse(**{name: field})


def test_numbers_beyond_64_bits() -> None:
    assert parse(size=base_256((1 << 63) - 1, 12)).size == (1 << 63) - 1
    assert parse(size=base_256(-(1 << 63), 12)).size == -(1 << 63)
    for value in (1 << 63, -(1 << 63) - 1):
        with pytest.raises(MalformedLayerError):
            parse(size=base_256(value, 12))


def test_times() -> None:
    assert parse(mtime=base_256(-5, 12)).mtime_ns == 0
    assert parse(mtime=base_256(1 << 40, 12)).mtime_ns == 0
    later = parse(prefix=octal(MTIME + 5, 12), magic=GNU)
    assert (later.mtime_ns, later.atime_ns) == (MTIME * SECOND, (MTIME + 5) * SECOND)
    earlier = parse(prefix=octal(MTIME - 5, 12), magic=GNU)
    assert earlier.atime_ns == MTIME * SECOND
    assert settable_time((1 << 63) - 1) == (1 << 63) - 1
    assert settable_time(1 << 63) == settable_time(-1) == 0


def test_checksums() -> None:
    total = checksum_of(header(b"a"))
    for field in (b"%06o\0 " % total, b"%7o\0" % total, b" %o" % total):
        assert parse(checksum=field.ljust(8, b"\0")).name == b"a"
    assert parse(b"caf\xe9", signed=True).name == b"caf\xe9"
    for field in (b"%06o\0 " % (total + 1), b"%06o\0 " % (total + 65521), b"", b"checksum"):
        with pytest.raises(MalformedLayerError) as refused:
            parse(checksum=field.ljust(8, b"\0"))
        assert refused.value.position == 0


def with_checksum(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % checksum_of(block) + block[156:]


def parse_or_none(block: bytes) -> Member | None:
    try:
        return parse_header(block, 512)
    except MalformedLayerError:
        return None


ALL_ASCII = b"~" * BLOCK
# Means nothing in any flavour: between the prefix and what may be STAR's trailer.
UNREAD = 505


@given(
    st.sampled_from([header(b"a"), header(b"a", magic=GNU), header(b"a", b"3", devices=(1, 3)), ALL_ASCII]),
    st.lists(st.tuples(st.integers(0, BLOCK - 1), st.sampled_from(b"\0 01789-_+/aZ\x7f")), max_size=6),
)
@example(ALL_ASCII, [])
def test_the_short_path_decides_as_the_long_one(base: bytes, edits: list[tuple[int, int]]) -> None:
    """A byte that is not ASCII sends a header the long way, even where nobody reads it."""
    block = bytearray(base)
    for place, byte in edits:
        block[place] = byte
    block[UNREAD] = 0
    short = parse_or_none(with_checksum(bytes(block)))
    block[UNREAD] = 0xE9
    assert parse_or_none(with_checksum(bytes(block))) == short


@given(st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_a_changed_byte_is_found(place: int, change: int) -> None:
    block = bytearray(header(b"a"))
    block[place] ^= change
    if not 148 <= place < 156:
        assert parse_or_none(bytes(block)) is None
