"""Recompression: what comes out is what went in, what does not fit is refused, and nothing is left running."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import subprocess
from pathlib import Path

import pytest

from asyncpull.copying.recompression import Recompressed, recompress
from asyncpull.errors import DiffIDMismatchError, DigestMismatchError, MalformedLayerError, NoSpaceError, UsageError
from asyncpull.layer.codec import Compression
from asyncpull.spec.digest import Digest
from tests.support.contents import HeldContent

TAR = random.Random(3).randbytes(1 << 20) + bytes(3 << 20) + b"end"
DIFF_ID = Digest.of(TAR)
BLOB = gzip.compress(TAR, 1)


async def made(tmp_path: Path, content: HeldContent, compression: Compression, **options: object) -> Recompressed:
    path = tmp_path / "blob"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return await recompress(content.chunks(), fd, path, compression, **options)  # type: ignore[arg-type]
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("compression", "level", "program"),
    [
        (Compression.GZIP, None, ("gzip", "-dc")),
        (Compression.GZIP, 9, ("gzip", "-dc")),
        (Compression.ZSTD, None, ("zstd", "-dc")),
        (Compression.NONE, None, ("cat",)),
    ],
)
async def test_another_compression(
    tmp_path: Path, compression: Compression, level: int | None, program: tuple[str, ...]
) -> None:
    result = await made(tmp_path, HeldContent(BLOB), compression, level=level, diff_id=DIFF_ID)
    blob = (tmp_path / "blob").read_bytes()
    assert result == Recompressed(Digest.of(blob), len(blob), DIFF_ID, Compression.GZIP, compression)
    assert subprocess.run(program, input=blob, capture_output=True, check=True).stdout == TAR


async def test_sha512_and_an_empty_blob(tmp_path: Path) -> None:
    result = await made(
        tmp_path, HeldContent(b""), Compression.ZSTD, algorithm="sha512", diff_id=Digest.of(b"", "sha512")
    )
    blob = (tmp_path / "blob").read_bytes()
    assert result.digest == Digest.of(blob, "sha512")
    assert result.before is Compression.NONE
    assert subprocess.run(("zstd", "-dc"), input=blob, capture_output=True, check=True).stdout == b""


async def test_wrong_diff_id(tmp_path: Path) -> None:
    with pytest.raises(DiffIDMismatchError):
        await made(tmp_path, HeldContent(BLOB), Compression.ZSTD, diff_id=Digest.of(b"other"))


async def test_damage_on_the_way_is_not_the_publishers(tmp_path: Path) -> None:
    damaged = BLOB[:5000] + bytes(1000) + BLOB[6000:]
    with pytest.raises(DigestMismatchError):
        await made(tmp_path, HeldContent(damaged, digest=Digest.of(BLOB)), Compression.ZSTD)
    with pytest.raises(MalformedLayerError):
        await made(tmp_path, HeldContent(damaged), Compression.ZSTD)
    with pytest.raises(MalformedLayerError):
        await made(tmp_path, HeldContent(BLOB[:-9]), Compression.ZSTD)


async def test_a_level_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        await made(tmp_path, HeldContent(BLOB), Compression.ZSTD, level=40)


async def test_a_full_disk() -> None:
    full = Path("/dev/full")
    fd = os.open(full, os.O_WRONLY)
    try:
        with pytest.raises(NoSpaceError, match="/dev/full"):
            await recompress(HeldContent(BLOB).chunks(), fd, full, Compression.GZIP)
    finally:
        os.close(fd)


async def test_cancelled_while_it_waits_for_bytes(tmp_path: Path) -> None:
    content = HeldContent(BLOB, stops_at=len(BLOB) // 2)
    task = asyncio.create_task(made(tmp_path, content, Compression.GZIP))
    await content.stopped.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    size = (tmp_path / "blob").stat().st_size
    await asyncio.sleep(0.05)
    assert (tmp_path / "blob").stat().st_size == size
