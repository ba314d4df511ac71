"""Inflating: every compression, any slices, many members, damage, bombs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import random
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import MalformedLayerError
from asyncpull.layer.codec import PIECE, Compression, Inflater, detect
from tests.support.layer_reading import cut, slices
from tests.support.odd_layers import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GOLDEN = Path(__file__).parent / "golden"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.compress,
    Compression.BZIP2: bz2.compress,
    Compression.XZ: lzma.compress,
    Compression.ZSTD: zstd,
}
COMPRESSIONS = st.sampled_from(sorted(COMPRESS))


def inflate(pieces: Iterable[bytes]) -> bytes:
    inflater = Inflater()
    out = b"".join(made for piece in pieces for made in inflater.feed(piece))
    inflater.close()
    return out


@pytest.mark.parametrize("compression", COMPRESS)
def test_compression_is_told_by_the_first_bytes(compression: Compression) -> None:
    blob = COMPRESS[compression](b"")
    assert detect(blob[:6]) is compression
    for size in (1, 2, 100):
        inflater = Inflater()
        for piece in slices(blob, size):
            assert list(inflater.feed(piece)) == []
        inflater.close()
        assert inflater.compression is compression


@pytest.mark.parametrize("blob", [b"", b"\0", b"BZ3", b"a tar", b"\x1f\x8b\x09", bytes(3000)])
def test_anything_else_is_not_compressed(blob: bytes) -> None:
    assert detect(blob) is Compression.NONE
    assert inflate([blob]) == blob
    assert inflate(slices(blob, 1)) == blob


@pytest.mark.parametrize("blob", [b"B", b"BZ", b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5"])
def test_a_blob_that_ends_within_its_magic_is_truncated(blob: bytes) -> None:
    with pytest.raises(MalformedLayerError):
        inflate([blob])


@given(COMPRESSIONS, st.lists(st.binary(max_size=3000), min_size=1, max_size=5), st.lists(st.integers(0), max_size=8))
def test_members_and_slices_make_no_difference(compression: Compression, parts: list[bytes], places: list[int]) -> None:
    blob = b"".join(COMPRESS[compression](part) for part in parts)
    assert inflate(cut(blob, places)) == b"".join(parts)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("size", [1, 3, 20_000])
def test_many_small_members(compression: Compression, size: int) -> None:
    parts = [b"%d" % number * 10 for number in range(200)]
    blob = b"".join(COMPRESS[compression](part) for part in parts)
    assert inflate(slices(blob, size)) == b"".join(parts)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_blob_may_end_nowhere_but_between_members(compression: Compression) -> None:
    one = COMPRESS[compression](b"contents" * 20)
    blob = one + COMPRESS[compression](b"more")
    for end in range(1, len(blob)):
        if end != len(one):
            with pytest.raises(MalformedLayerError):
                inflate([blob[:end]])


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("after", [b"more", b"\0\0\0more", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"])
def test_bytes_after_the_last_member_are_refused(compression: Compression, after: bytes) -> None:
    blob = COMPRESS[compression](b"contents") + after
    for size in (1, 1000):
        with pytest.raises(MalformedLayerError):
            inflate(slices(blob, size))


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.BZIP2, Compression.XZ])
@pytest.mark.parametrize("zeros", [1, 4, 10, 5000])
def test_zeros_after_the_last_member_are_padding(compression: Compression, zeros: int) -> None:
    blob = COMPRESS[compression](b"contents") + bytes(zeros)
    for size in (1, 1000):
        assert inflate(slices(blob, size)) == b"contents"


@given(COMPRESSIONS, st.binary(min_size=1, max_size=2000), st.data())
def test_damage_is_found(compression: Compression, contents: bytes, data: st.DataObject) -> None:
    blob = bytearray(COMPRESS[compression](contents))
    magic = 6 if compression is Compression.XZ else 4
    place = data.draw(st.integers(magic, len(blob) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(MalformedLayerError):
        assert inflate(slices(bytes(blob), 100)) == contents


@given(st.sampled_from([b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=300))
def test_random_bytes_are_malformed(magic: bytes, data: bytes) -> None:
    with pytest.raises(MalformedLayerError):
        inflate([magic + data])


def gzip_member(contents: bytes, *, flags: int = 0, middle: bytes = b"", crc_change: int = 0) -> bytes:
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\0\xff" + middle
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF ^ crc_change)
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(contents) + deflate.flush()
    return head + body + struct.pack("<II", zlib.crc32(contents), len(contents))


ESTARGZ_EXTRA = b"\x1a\0SG\x16\0" + b"0123456789abcdefSTARGZ"


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"flags": 4, "middle": ESTARGZ_EXTRA},
        {"flags": 4, "middle": b"\xff\xff" + b"e" * 65535},
        {"flags": 4, "middle": b"\0\0"},
        {"flags": 8, "middle": b"name\0"},
        {"flags": 16, "middle": b"c" * 500 + b"\0"},
        {"flags": 24, "middle": b"\0\0"},
        {"flags": 2},
        {"flags": 31, "middle": ESTARGZ_EXTRA + b"name\0comment\0"},
        {"flags": 0xE0},
    ],
)
def test_heads_of_gzip(head: dict[str, int | bytes]) -> None:
    blob = gzip_member(b"contents", **head)  # type: ignore[arg-type]
    for size in (7, 1000, 1 << 20):
        assert inflate(slices(blob * 2, size)) == b"contents" * 2
    if len(blob) < 1000:
        assert inflate(slices(blob * 2, 1)) == b"contents" * 2


@pytest.mark.parametrize(
    "head",
    [
        {"flags": 2, "crc_change": 1},
        {"flags": 8, "middle": b"n" * 600 + b"\0"},
        {"flags": 16, "middle": b"c" * 5000},
    ],
)
def test_wrong_heads_of_gzip(head: dict[str, int | bytes]) -> None:
    blob = gzip_member(b"contents", **head)  # type: ignore[arg-type]
    for size in (1, 1000):
        with pytest.raises(MalformedLayerError):
            inflate(slices(blob, size))


@pytest.mark.parametrize("trailer", [-1, -5])
def test_the_trailer_of_gzip_is_verified(trailer: int) -> None:
    blob = bytearray(gzip.compress(b"contents"))
    blob[trailer] ^= 1
    with pytest.raises(MalformedLayerError):
        inflate([bytes(blob)])


def test_skippable_frames_of_zstd_mean_nothing() -> None:
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0skip!"
    empty = b"\x5f\x2a\x4d\x18\0\0\0\0"
    blob = zstd(b"con") + skippable + empty + zstd(b"tents") + skippable
    for size in (1, 5, 1000):
        assert inflate(slices(blob, size)) == b"contents"
    with pytest.raises(MalformedLayerError):
        inflate([blob[:-1]])


def test_a_blob_that_begins_with_a_skippable_frame_is_not_zstd() -> None:
    assert detect(b"\x50\x2a\x4d\x18\0\0\0\0" + zstd(b"contents")) is Compression.NONE


@pytest.mark.parametrize("name", ["gzip", "zstd", "zstd-chunked"])
def test_blobs_that_podman_wrote(name: str) -> None:
    blob = (GOLDEN / f"types.{name}").read_bytes()
    for size in (1, 100, 10_000):
        assert inflate(slices(blob, size)) == ACCEPTED["types"]


def test_pieces_are_bounded_and_made_when_asked_for() -> None:
    zeros = bytes(8 << 20)
    noise = random.Random(1).randbytes(1 << 20) * 3
    for compression, compress in COMPRESS.items():
        inflater = Inflater()
        total = 0
        for piece in inflater.feed(compress(zeros)):
            assert len(piece) <= PIECE, compression
            total += len(piece)
        inflater.close()
        assert total == len(zeros)
        assert inflate([compress(noise)]) == noise
    assert max(map(len, Inflater().feed(noise))) == PIECE
    endless = Inflater().feed(gzip.compress(zeros))
    assert len(next(iter(endless))) == PIECE


def test_repeated_blocks_of_zstd_are_bounded() -> None:
    """Four bytes become 128 KiB: no compressor writes that many of them, but one can."""
    head = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x88"
    block, last = struct.pack("<I", 128 << 10 << 3 | 1 << 1)[:3] + b"x", struct.pack("<I", 1)[:3]
    for size in (1000, 1 << 20):
        inflater = Inflater()
        pieces = [len(made) for piece in slices(head + block * 500 + last, size) for made in inflater.feed(piece)]
        inflater.close()
        assert sum(pieces) == 500 * (128 << 10)
        assert max(pieces) <= PIECE
