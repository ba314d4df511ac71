"""Compressing: other programs read what was made, and the bytes depend on nothing but the contents and the level."""

from __future__ import annotations

import gzip
import random
import subprocess
import zlib

import pytest

from asyncpull.errors import UsageError
from asyncpull.layer.codec import Compression, Inflater, detect
from asyncpull.layer.encoder import Encoder, require_level

MIB = 1 << 20


def contents(size: int) -> bytes:
    """Bytes that compress somewhat, with repetitions over more than a block."""
    noise = random.Random(size).randbytes(1 << 16)
    return (noise + b"0123456789" * 4000 + noise * 2)[:size] if size < MIB else (noise + bytes(1 << 16)) * (size >> 17)


def encoded(data: bytes, compression: Compression, level: int | None, step: int, threads: int = 2) -> bytes:
    with Encoder(compression, level, threads=threads) as encoder:
        parts = [part for at in range(0, len(data), step) for part in encoder.feed(data[at : at + step])]
        return b"".join([*parts, *encoder.close()])


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB])
@pytest.mark.parametrize(
    ("compression", "level", "program"),
    [
        (Compression.GZIP, None, "gzip"),
        (Compression.GZIP, 0, "gzip"),
        (Compression.GZIP, 1, "gzip"),
        (Compression.GZIP, 6, "gzip"),
        (Compression.ZSTD, None, "zstd"),
        (Compression.ZSTD, 1, "zstd"),
    ],
)
def test_others_read_it(compression: Compression, level: int | None, program: str, size: int) -> None:
    data = contents(size)
    blob = encoded(data, compression, level, 700_001)
    assert detect(blob) is compression
    assert subprocess.run([program, "-dc"], input=blob, capture_output=True, check=True).stdout == data
    inflater = Inflater()
    pieces = list(inflater.feed(blob))
    inflater.close()
    assert b"".join(pieces) == data


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_same_bytes_however_fed(compression: Compression) -> None:
    data = contents(3 * MIB) + b"end"
    whole = encoded(data, compression, None, len(data), threads=1)
    assert encoded(data, compression, None, 4097, threads=3) == whole
    assert encoded(data, compression, None, MIB, threads=2) == whole
    assert encoded(data, compression, 1, MIB) != whole


def test_gzip_is_one_member_that_knows_what_was_before_a_block() -> None:
    data = random.Random(7).randbytes(16 << 10) * 256  # 4 MiB that repeat every 16 KiB
    blob = encoded(data, Compression.GZIP, 6, MIB)
    member = zlib.decompressobj(wbits=31)
    assert member.decompress(blob) == data
    assert member.eof
    assert not member.unused_data
    assert len(blob) < 1.2 * len(gzip.compress(data, 6))


def test_plain_is_passed_on() -> None:
    assert encoded(b"abc" * 1000, Compression.NONE, None, 7) == b"abc" * 1000


@pytest.mark.parametrize(
    ("compression", "level"),
    [
        (Compression.GZIP, 10),
        (Compression.GZIP, -1),
        (Compression.ZSTD, 0),
        (Compression.ZSTD, 23),
        (Compression.NONE, 1),
        (Compression.XZ, None),
        (Compression.BZIP2, 9),
    ],
)
def test_levels_that_are_none(compression: Compression, level: int | None) -> None:
    with pytest.raises(UsageError):
        require_level(compression, level)
    with pytest.raises(UsageError):
        Encoder(compression, level)
