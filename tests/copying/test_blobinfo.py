"""The blob info cache: what is recorded is found, nothing that can be wrong with the file fails anybody."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from asyncpull.copying.blobinfo import FILE, BlobInfoCache, Candidate, cache_path
from asyncpull.layer.codec import Compression
from asyncpull.spec.digest import Digest

GZIP, ZSTD, TAR, OTHER = (Digest.of(name.encode()) for name in ("gzip", "zstd", "tar", "other"))
HOST = "registry.example:5000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "down" / FILE


async def test_contents(path: Path) -> None:
    async with BlobInfoCache(path) as cache:
        assert await cache.diff_id(GZIP) is None
        assert not path.exists()  # a question makes no file
        cache.record_contents(GZIP, TAR, Compression.GZIP)
        assert await cache.diff_id(GZIP) == TAR
    async with BlobInfoCache(path) as cache:
        assert await cache.diff_id(GZIP) == TAR
        assert await cache.diff_id(TAR) == TAR
        assert await cache.diff_id(OTHER) is None
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_locations_the_latest_first(path: Path) -> None:
    async with BlobInfoCache(path) as cache:
        for name in ("a", "b", "c", "a"):
            cache.record_location(GZIP, f"{HOST}/{name}")
            await cache.diff_id(GZIP)
        cache.record_location(GZIP, "elsewhere.example/d")
        assert await cache.locations(GZIP, HOST) == (f"{HOST}/a", f"{HOST}/c", f"{HOST}/b")
        assert await cache.locations(GZIP, "elsewhere.example") == ("elsewhere.example/d",)
        assert await cache.locations(OTHER, HOST) == ()
        for number in range(9):
            cache.record_location(OTHER, f"{HOST}/{number}")
        assert len(await cache.locations(OTHER, HOST)) == 5


async def test_candidates(path: Path) -> None:
    async with BlobInfoCache(path) as cache:
        assert await cache.candidates(GZIP, HOST) == ()
        cache.record_contents(GZIP, TAR, Compression.GZIP)
        cache.record_contents(ZSTD, TAR, Compression.ZSTD)
        assert await cache.candidates(GZIP, HOST) == (
            Candidate(GZIP, Compression.GZIP, None),
            Candidate(ZSTD, Compression.ZSTD, None),
        )
        cache.record_location(ZSTD, f"{HOST}/zstd")
        cache.record_location(GZIP, f"{HOST}/gzip")
        cache.record_location(TAR, f"{HOST}/plain")
        assert await cache.candidates(ZSTD, HOST) == (
            Candidate(ZSTD, Compression.ZSTD, f"{HOST}/zstd"),
            Candidate(GZIP, Compression.GZIP, f"{HOST}/gzip"),
        )
        cache.record_contents(TAR, TAR, Compression.NONE)
        assert (await cache.candidates(ZSTD, HOST))[2] == Candidate(TAR, Compression.NONE, f"{HOST}/plain")


async def test_of_two_records_the_last_counts(path: Path) -> None:
    async with BlobInfoCache(path) as cache:
        cache.record_contents(GZIP, TAR, Compression.GZIP)
        cache.record_contents(GZIP, OTHER, Compression.GZIP)
        assert await cache.diff_id(GZIP) == OTHER
        cache.record_contents(GZIP, TAR, Compression.GZIP)
        assert await cache.diff_id(GZIP) == TAR


async def test_written_also_after_a_failure(path: Path) -> None:
    async def fail() -> None:
        async with BlobInfoCache(path) as cache:
            cache.record_contents(GZIP, TAR, Compression.GZIP)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with BlobInfoCache(path) as cache:
        assert await cache.diff_id(GZIP) == TAR


async def test_without_a_file() -> None:
    async with BlobInfoCache(None) as cache:
        cache.record_contents(GZIP, TAR, Compression.GZIP)
        cache.record_location(GZIP, f"{HOST}/a")
        assert await cache.diff_id(GZIP) is None
        assert await cache.locations(GZIP, HOST) == ()
        assert await cache.candidates(GZIP, HOST) == ()


@pytest.mark.parametrize("damage", ["garbage", "directory", "other tables", "below a file"])
async def test_a_file_that_is_none_fails_nobody(path: Path, damage: str) -> None:
    path.parent.mkdir(parents=True)
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(9000))
        case "directory":
            path.mkdir()
        case "other tables":
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE DigestUncompressedPairs(something TEXT)")
            connection.close()
        case _:
            path.write_bytes(b"")
            path = path / FILE
    before = path.read_bytes() if path.is_file() else None
    async with BlobInfoCache(path) as cache:
        cache.record_contents(GZIP, TAR, Compression.GZIP)
        cache.record_location(GZIP, f"{HOST}/a")
        assert await cache.diff_id(GZIP) is None
        assert await cache.candidates(GZIP, HOST) == ()
    if damage == "garbage":
        assert path.read_bytes() == before


async def test_rows_that_mean_nothing_are_left_out(path: Path) -> None:
    async with BlobInfoCache(path) as cache:
        cache.record_contents(ZSTD, TAR, Compression.ZSTD)
        cache.record_contents(GZIP, TAR, Compression.GZIP)
        cache.record_location(GZIP, f"{HOST}/a")
    connection = sqlite3.connect(path)
    with connection:
        for values in (("sha256:../../x", str(TAR)), (str(OTHER), "md5:0")):
            connection.execute("INSERT INTO DigestUncompressedPairs VALUES (?, ?)", values)
        connection.execute("UPDATE KnownLocations SET time = 'yesterday'")
        connection.execute(
            "INSERT INTO KnownLocations VALUES ('docker', ?, ?, 'elsewhere.example/a', 'never')", (HOST, str(GZIP))
        )
    connection.close()
    async with BlobInfoCache(path) as cache:
        assert await cache.diff_id(OTHER) is None
        assert (
            await cache.candidates(ZSTD, HOST)
            == (
                Candidate(ZSTD, Compression.ZSTD, None),
                Candidate(GZIP, Compression.GZIP, f"{HOST}/a"),
            )[::-1]
        )
        assert await cache.locations(GZIP, HOST) == (f"{HOST}/a",)


async def test_several_at_once(path: Path) -> None:
    async def one(number: int) -> None:
        async with BlobInfoCache(path) as cache:
            for each in range(5):
                cache.record_location(GZIP, f"{HOST}/{number}-{each}")
                await cache.diff_id(GZIP)

    await asyncio.gather(*(one(number) for number in range(6)))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT COUNT(*) FROM KnownLocations").fetchone() == (30,)
    connection.close()


@pytest.mark.parametrize(
    ("environ", "user", "expected"),
    [
        ({"HOME": "/root"}, 0, "/var/lib/containers/cache/blob-info-cache-v1.sqlite"),
        ({"HOME": "/h"}, 1000, "/h/.local/share/containers/cache/blob-info-cache-v1.sqlite"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/d"}, 1000, "/d/containers/cache/blob-info-cache-v1.sqlite"),
        ({}, 1000, None),
    ],
)
def test_where_it_is(environ: dict[str, str], user: int, expected: str | None) -> None:
    assert cache_path(environ, user) == (Path(expected) if expected else None)
