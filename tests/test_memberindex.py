"""Members of archives: found by name where they lie, and what is refused."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
import zstandard

from asyncpull.errors import DocumentError, DocumentTooLargeError, NotFoundError, SourceError
from asyncpull.memberindex import Extent, MemberIndex, open_members
from tests.support.tars import Entry, character_device, directory, fifo, file, hard_link, symlink, tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMBERS = [directory("blobs"), file("blobs/a", b"first"), file("./b//c", b"second" * 400), file("empty")]


async def contents(path: Path, *, follow_links: bool = False) -> dict[str, bytes]:
    async with open_members(str(path), follow_links=follow_links) as index:
        return {name: index.extent(name).read() for name in [*index.files, *index.links]}


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
async def test_files_are_found_by_cleaned_names(
    tmp_path: Path, compress: Callable[[bytes], bytes], layout: int
) -> None:
    path = written(tmp_path, compress(tar(MEMBERS, layout=layout)))
    assert await contents(path) == {"blobs/a": b"first", "b/c": b"second" * 400, "empty": b""}


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
async def test_long_names(tmp_path: Path, layout: int) -> None:
    names = ["d" * 120 + "/" + "f" * 130, "später/" + "ü" * 90]
    path = written(tmp_path, tar([file(name, name.encode()) for name in names], layout=layout))
    assert await contents(path) == {name: name.encode() for name in names}


async def test_a_plain_file_is_read_where_it_lies(tmp_path: Path) -> None:
    path = written(tmp_path, tar(MEMBERS))
    async with open_members(str(path)) as index:
        fd = index.extent("blobs/a").fd
        assert os.path.samestat(os.fstat(fd), path.stat())
        assert index.extent("blobs/a").read(1, 2) == b"ir"
        assert index.extent("blobs/a").read(9) == b""
        assert index.document("./blobs/a", 5) == b"first"
        with pytest.raises(DocumentTooLargeError, match=r"archive\.tar: blobs/a has 5 bytes, the limit is 4"):
            index.document("blobs/a", 4)
        with pytest.raises(DocumentError, match=r"archive\.tar: the archive has no file 'c'"):
            index.extent("c")
        assert not index.has("c")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_a_pipe_is_received(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = compress(tar([*MEMBERS, file("large", bytes(3 << 20))]))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    found = await contents(pipe)
    writer.join()
    assert found["blobs/a"] == b"first"
    assert len(found["large"]) == 3 << 20


async def test_waiting_for_a_pipe_can_be_cancelled(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waiting = asyncio.create_task(contents(pipe))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_links_are_followed_where_they_are_known(tmp_path: Path) -> None:
    entries = [file("a/layer.tar", b"x"), symlink("b/layer.tar", "../a/layer.tar"), hard_link("c", "a/layer.tar")]
    path = written(tmp_path, tar(entries))
    assert await contents(path, follow_links=True) == dict.fromkeys(["a/layer.tar", "b/layer.tar", "c"], b"x")
    with pytest.raises(DocumentError, match=r"'b/layer\.tar' is neither a file nor a directory"):
        await contents(path)


async def test_a_circle_of_links_leads_nowhere(tmp_path: Path) -> None:
    path = written(tmp_path, tar([symlink("a", "b"), symlink("b", "a"), symlink("c", "c")]))
    async with open_members(str(path), follow_links=True) as index:
        assert not any(map(index.has, "abc"))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file("/etc/passwd")], "'/etc/passwd', which leads out"),
        ([file("../x")], "leads out"),
        ([file("a/../../x")], "leads out"),
        ([file("a/..")], "leads out"),
        ([symlink("a", "../x")], "the link 'a' leads out of the archive, to '../x'"),
        ([symlink("a/b", "../../x")], "leads out"),
        ([symlink("a", "/etc/passwd")], "leads out"),
        ([hard_link("a", "../x")], "leads out"),
        ([hard_link("a", "/x")], "leads out"),
        ([file("a"), file("a")], "two members 'a'"),
        ([file("a"), file("./a")], "two members 'a'"),
        ([file("a"), symlink("a", "b")], "two members 'a'"),
        ([file("a"), directory("a")], "'a' is a directory and something else"),
        ([directory("a"), symlink("a", "b")], "'a' is a directory and something else"),
        ([fifo("a")], "neither a file nor a directory"),
        ([character_device("a", 1, 3)], "neither a file nor a directory"),
        ([file("a", b"x").with_(pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})], "sparse"),
        ([file("a", b"x").with_(kind=tarfile.GNUTYPE_SPARSE)], "neither a file"),
    ],
)
async def test_hostile_members_are_refused(tmp_path: Path, entries: list[Entry], reason: str) -> None:
    path = written(tmp_path, tar([file("manifest.json", b"[]"), *entries]))
    with pytest.raises(DocumentError, match=reason) as caught:
        await contents(path, follow_links=True)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tar(MEMBERS)[:1000], "ends in a header"),
        (tar([file("a", bytes(5000))])[:2048], "ends in contents"),
        (b"no tar" * 200, "no number"),
        (bytes(511) + b"x" + bytes(512), "not a tar header"),
        (gzip.compress(tar(MEMBERS))[:-9], "ends too early"),
        (gzip.compress(tar(MEMBERS)) + b"more", "no further member"),
        (b"\x1f\x8b\x08" + bytes(500), "damaged"),
    ],
)
async def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        await contents(written(tmp_path, data))


async def test_too_many_headers(tmp_path: Path) -> None:
    block = io.BytesIO()
    with tarfile.open(fileobj=block, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    header = block.getvalue()[:512]
    with pytest.raises(DocumentError, match="more than 100000 members"):
        await contents(written(tmp_path, b"".join(_numbered(header, number) for number in range(100_001))))


def _numbered(header: bytes, number: int) -> bytes:
    name = b"%d" % number
    changed = name.ljust(100, b"\0") + header[100:148] + b" " * 8 + header[156:]
    return changed[:148] + b"%06o\0 " % sum(changed) + changed[156:]


async def test_a_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(bytes(8 << 20)))
    with pytest.raises(DocumentTooLargeError, match="more than 4194304 bytes"):
        async with open_members(str(path), limit=4 << 20):
            pass


async def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.tar: there is no such file"):
        await contents(tmp_path / "nothing.tar")
    with pytest.raises(SourceError, match="is a directory, not an archive"):
        await contents(tmp_path)


async def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setenv("TMPDIR", str(spool))
    path = written(tmp_path, gzip.compress(tar(MEMBERS)))
    before = set(os.listdir("/proc/self/fd"))
    async with open_members(str(path)) as index:
        assert isinstance(index, MemberIndex)
        assert isinstance(index.extent("empty"), Extent)
        assert list(spool.iterdir()) == []
    assert set(os.listdir("/proc/self/fd")) <= before
