"""The bytes of blobs, from files, from a registry, from a stream: read twice, from anywhere, and never wrong."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.copying.content import FileContent, Front, HeldContent, fetched, linker, lying, received
from asyncpull.errors import (
    DigestMismatchError,
    IntegrityError,
    SizeMismatchError,
    SourceError,
    StoreError,
    StoreWriteError,
)
from asyncpull.fetch.fetcher import Fetcher
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.scratch import open_scratch
from asyncpull.source.local import FileRange, LocalSource, open_regular
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.source import BlobResponse, SourceDocument
from asyncpull.spool import spool_directory
from tests.support.images import noise
from tests.support.pulls import open_fds
from tests.support.registry_faults import cut, flip, hold, status
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncpull.spec.destination import Content

DATA = noise(7, 2_500_000)
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))
HURRY = RetryPolicy(attempts=2, first_seconds=0.001)


class OneFile(LocalSource):
    """A source with one blob, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return str(self._path)

    def open_file(self, digest: Digest) -> FileRange:
        return open_regular(self._path)

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        raise NotImplementedError


class OneStream(OneFile):
    """The same, as a source that can only send; ``pieces`` are what it sends."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    @property
    def name(self) -> str:
        return "stream"

    @asynccontextmanager
    async def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AsyncIterator[BlobResponse]:
        async def chunks() -> AsyncIterator[bytes]:
            for piece in self._pieces:
                yield piece

        yield BlobResponse(0, None, None, chunks())


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


@asynccontextmanager
async def from_file(root: Path, data: bytes = DATA, blob: Descriptor = BLOB) -> AsyncIterator[FileContent]:
    (root / "file").write_bytes(data)
    async with lying(OneFile(root / "file"), blob) as content:
        yield content


@asynccontextmanager
async def from_stream(root: Path, data: bytes = DATA, blob: Descriptor = BLOB) -> AsyncIterator[FileContent]:
    async with received(OneStream(data[:1000], data[1000:]), blob, root) as content:
        yield content


@asynccontextmanager
async def from_registry(root: Path, data: bytes = DATA, blob: Descriptor = BLOB) -> AsyncIterator[FileContent]:
    async with RegistrySimulator() as registry, fetching(registry, root / "spool", blob, data) as content:
        yield content


@asynccontextmanager
async def fetching(
    registry: RegistrySimulator, spool: Path, blob: Descriptor = BLOB, data: bytes = DATA
) -> AsyncIterator[FileContent]:
    registry.add_blob(DATA)
    if data != DATA:
        registry.on(str(blob.digest), flip(500_000), times=None)
    front = Front(0, blob.size)
    source_of = parse_reference(f"{registry.address}/a/b:1")
    async with (
        RegistryClient(RegistryAccess(tls_verify=False), retry=HURRY) as client,
        Fetcher(spool, retry=HURRY) as fetcher,
        fetcher.open(blob, RegistrySource(client, source_of), on_front=front.advance) as download,
        fetched(download, front, spool) as content,
    ):
        yield content


KINDS = {"file": from_file, "stream": from_stream, "registry": from_registry}
WRONG = DATA[:500_000] + bytes([DATA[500_000] ^ 0xFF]) + DATA[500_001:]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def read(content: Content, offset: int = 0) -> bytes:
    return b"".join([chunk async for chunk in content.chunks(offset)])


async def read_into(taken: list[bytes], content: Content) -> None:
    async for chunk in content.chunks():
        taken.append(chunk)  # noqa: PERF401 - what came before an error counts


async def test_it_is_read_several_times_from_anywhere(kind: str, tmp_path: Path) -> None:
    async with KINDS[kind](tmp_path) as content:
        assert content.size == len(DATA)
        whole, rest, nothing = await asyncio.gather(read(content), read(content, 1_234_567), read(content, len(DATA)))
        assert (whole, rest, nothing) == (DATA, DATA[1_234_567:], b"")
        assert await read(content) == DATA


async def test_it_becomes_a_file_that_all_can_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new"
    async with KINDS[kind](tmp_path) as content:
        await content.write_to(path)
        assert path.read_bytes() == DATA
        assert path.stat().st_mode & 0o444 == 0o444
        assert await read(content) == DATA  # also after that
    assert path.read_bytes() == DATA


async def test_nothing_wrong_is_read_to_its_end(kind: str, tmp_path: Path) -> None:
    taken: list[bytes] = []
    async with KINDS[kind](tmp_path, data=WRONG) as content:
        with pytest.raises(DigestMismatchError):
            await read_into(taken, content)
    assert sum(map(len, taken)) < len(DATA), "a body that is complete is a body that is right"


async def test_nothing_wrong_becomes_a_file(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatchError):
        async with KINDS[kind](tmp_path, data=WRONG) as content:
            await content.write_to(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["file", "stream"])
@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b""], ids=["short", "long", "empty"])
async def test_another_size_is_refused_at_once(name: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(SizeMismatchError):
        async with KINDS[name](tmp_path, data=data):
            raise AssertionError


async def test_an_empty_blob_is_one_too(tmp_path: Path) -> None:
    blob = Descriptor("", Digest.of(b"", "sha512"), 0)
    for number, name in enumerate(("file", "stream")):
        async with KINDS[name](tmp_path, data=b"", blob=blob) as content:
            assert await read(content) == b""
            await content.write_to(tmp_path / f"new{number}")
            assert (tmp_path / f"new{number}").read_bytes() == b""


async def test_what_is_there_is_never_replaced_or_removed(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for content_of in (from_file(tmp_path), held()):
        async with content_of as content:
            with pytest.raises(StoreWriteError):
                await content.write_to(tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"old"


@asynccontextmanager
async def held() -> AsyncIterator[HeldContent]:
    yield HeldContent(DATA)


async def test_held_bytes(tmp_path: Path) -> None:
    content = HeldContent(DATA)
    assert (content.size, await read(content), await read(content, 5)) == (len(DATA), DATA, DATA[5:])
    assert await read(content, len(DATA)) == b""
    await content.write_to(tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == DATA


async def test_a_nameless_file_is_given_a_name_and_not_copied(tmp_path: Path) -> None:
    fd = open_scratch(tmp_path)
    try:
        os.write(fd, DATA)
        assert await linker(fd)(tmp_path / "named")
        assert os.path.samestat(os.fstat(fd), (tmp_path / "named").stat())
        with pytest.raises(StoreError, match="File exists"):
            await linker(fd)(tmp_path / "named")
    finally:
        os.close(fd)


async def test_a_file_of_a_spool_is_moved(tmp_path: Path) -> None:
    async with RegistrySimulator() as registry, fetching(registry, tmp_path / "spool") as content:
        await content.verified()
        number = (spool_directory(tmp_path / "spool", BLOB.digest) / "blob").stat().st_ino
        await content.write_to(tmp_path / "new")
        assert (tmp_path / "new").stat().st_ino == number
    assert os.listdir(tmp_path / "spool") == []


async def test_a_file_of_a_spool_that_somebody_removed_is_copied(tmp_path: Path) -> None:
    async with RegistrySimulator() as registry, fetching(registry, tmp_path / "spool") as content:
        await content.verified()
        (spool_directory(tmp_path / "spool", BLOB.digest) / "blob").unlink()
        await content.write_to(tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == DATA


async def test_it_is_read_while_it_arrives(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with RegistrySimulator() as registry:
        registry.on("/blobs/", hold(gate, at=2_000_000), times=None)
        async with fetching(registry, tmp_path / "spool") as content:
            chunks = content.chunks()
            first = await anext(chunks)
            assert DATA.startswith(first)
            gate.set()
            assert first + b"".join([chunk async for chunk in chunks]) == DATA


async def test_an_end_of_the_download_ends_its_readers(tmp_path: Path) -> None:
    async with RegistrySimulator() as registry:
        registry.on("/blobs/", cut(1_200_000))
        registry.on("/blobs/", status(503), times=None)
        with pytest.raises(SourceError):
            async with fetching(registry, tmp_path / "spool") as content:
                await asyncio.gather(read(content), content.write_to(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_cancelled_write_leaves_no_file(kind: str, steps: int, tmp_path: Path) -> None:
    async with KINDS[kind](tmp_path) as content:
        writing = asyncio.create_task(content.write_to(tmp_path / "new"))
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,))
        if writing.cancelled():
            assert not (tmp_path / "new").exists() or (tmp_path / "new").read_bytes() == DATA
        await content.write_to(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == DATA


async def test_a_change_of_the_file_below_is_an_integrity_error(tmp_path: Path) -> None:
    async with from_file(tmp_path) as content:
        os.truncate(tmp_path / "file", 100_000)
        with pytest.raises(IntegrityError):
            await read(content)
