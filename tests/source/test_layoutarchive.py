"""Archives of image layouts that are read: compressed, from a pipe, made by hand, hostile."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from asyncpull.errors import DigestMismatchError, DocumentError, NotFoundError
from asyncpull.source.opening import open_source
from asyncpull.spec.location import parse_location
from tests.support import images, tars
from tests.support.contents import descriptor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TARGET = images.image([tars.tar([tars.file("large", images.noise(1, 400_000))])])
LAYER = f"blobs/sha256/{TARGET.layers[0].digest[7:]}"


def archive_of(layout: Path, *, prefix: str = "", change: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    """A tar of a layout, as ``tar -C layout -c .`` makes it, with whatever ``change`` adds."""
    if not layout.exists():
        images.write_layout(layout, {"1": TARGET})
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in sorted(layout.rglob("*")):
            archive.add(path, f"{prefix}{path.relative_to(layout)}", recursive=False)
        if change is not None:
            change(archive)
    return file.getvalue()


def added(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", target: str = ""
) -> Callable[[tarfile.TarFile], None]:
    """A member more."""

    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, len(data), target
        archive.addfile(info, io.BytesIO(data))

    return add


async def read(path: Path) -> bytes:
    """The layer of the archive, once manifest and config were read."""
    async with open_source(parse_location(f"oci-archive:{path}:1")) as source:
        assert (await source.manifest()).raw == TARGET.manifest.data
        assert await source.blob_bytes(descriptor(TARGET.config), 10_000) == TARGET.config.data
        async with source.open_blob(descriptor(TARGET.layers[0])) as response:
            return b"".join([chunk async for chunk in response.chunks])


@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
async def test_archives_however_they_are_packed(
    tmp_path: Path, prefix: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "archive").write_bytes(compress(archive_of(tmp_path / "layout", prefix=prefix)))
    assert await read(tmp_path / "archive") == TARGET.layers[0].data


async def test_an_archive_comes_through_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    raw = archive_of(tmp_path / "layout")
    writing = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe").write_bytes, raw))
    assert await read(tmp_path / "pipe") == TARGET.layers[0].data
    await writing


@pytest.mark.parametrize(
    "change",
    [
        added("../index.json", data=b"{}"),
        added("/etc/passwd", data=b"root"),
        added("index.json", data=b"{}"),
        added("./blobs/../index.json", data=b"{}"),
        added("blobs/sha256/x", tarfile.SYMTYPE, target="/etc/shadow"),
        added("blobs/sha256/x", tarfile.LNKTYPE, target="index.json"),
        added("device", tarfile.CHRTYPE),
        added("pipe", tarfile.FIFOTYPE),
        added("blobs", data=b"a file"),
    ],
    ids=["up", "absolute", "twice", "twice by another name", "link", "hard link", "device", "pipe", "both"],
)
async def test_hostile_archives_are_refused(tmp_path: Path, change: Callable[[tarfile.TarFile], None]) -> None:
    (tmp_path / "archive").write_bytes(archive_of(tmp_path / "layout", change=change))
    with pytest.raises(DocumentError, match="archive"):
        await read(tmp_path / "archive")


@pytest.mark.parametrize("raw", [b"", b"not a tar at all", b"\x1f\x8bbroken", b"x" * 10240])
async def test_what_is_no_archive_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "archive").write_bytes(raw)
    with pytest.raises((DocumentError, NotFoundError), match="archive"):
        await read(tmp_path / "archive")
    with pytest.raises(NotFoundError, match="missing"):
        await read(tmp_path / "missing")


async def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    raw = archive_of(tmp_path / "layout")
    (tmp_path / "archive").write_bytes(raw[: raw.index(TARGET.layers[0].data) + 1000])
    with pytest.raises(DocumentError, match="archive"):
        await read(tmp_path / "archive")


async def test_damaged_bytes_are_not_given(tmp_path: Path) -> None:
    raw = archive_of(tmp_path / "layout")
    at = raw.index(TARGET.config.data)
    (tmp_path / "archive").write_bytes(raw[:at] + b"[" + raw[at + 1 :])
    with pytest.raises(DigestMismatchError, match=TARGET.config.digest[7:]):
        await read(tmp_path / "archive")
