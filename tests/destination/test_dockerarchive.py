"""``docker-archive:`` as a destination: the bytes that skopeo writes, several images, pipes, what is not changed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import tarfile
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.destination.dockerarchive import new_docker_archive
from asyncpull.destination.opening import open_destination
from asyncpull.errors import DocumentError, SizeMismatchError, StoreError, StoreWriteError, UsageError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.source import SourceDocument
from tests.support import images, tars
from tests.support.contents import HeldContent, descriptor
from tests.support.peers import REPOSITORY
from tests.support.tars import directory, file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from asyncpull.spec.destination import Destination

BASE = tars.tar([directory("etc"), file("etc/a", b"A")])
TOP = tars.tar([file("b<&>", b"B")])


def plain(*layers: bytes, flavour: images.Flavour = "docker", comment: str = "<x & y>") -> images.Image:
    return images.image(layers, compression="none", flavour=flavour, comment=comment)


def document_of(target: images.Image | images.Index) -> SourceDocument:
    raw = target.manifest.data
    return SourceDocument(raw, target.manifest.media_type, Digest.of(raw))


@asynccontextmanager
async def opened(location: str, names: Sequence[str] = ()) -> AsyncIterator[Destination]:
    named = [parse_reference(name) for name in names]
    async with open_destination(parse_location(f"docker-archive:{location}"), names=named) as destination:
        yield destination


async def put(destination: Destination, target: images.Image, *, is_reversed: bool = False) -> None:
    blobs = (*target.layers, target.config)
    for blob in reversed(blobs) if is_reversed else blobs:
        if not await destination.has_blob(descriptor(blob)):
            await destination.put_blob(descriptor(blob), HeldContent(blob.data))
    await destination.commit(document_of(target))


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_the_bytes_are_those_of_skopeo(tmp_path: Path, is_reversed: bool) -> None:
    """Golden: the archives that ``skopeo copy`` 1.22 writes of the same images, with ``--additional-tag``.

    In whatever order blobs come.
    """
    names = ["quay.io/x/one:v2", "docker.io/library/one:v0"]
    async with opened(f"{tmp_path}/one.tar:one:v1", names) as destination:
        await put(destination, plain(BASE, TOP), is_reversed=is_reversed)
    async with opened(f"{tmp_path}/twice.tar") as destination:
        await put(destination, plain(BASE, TOP, BASE, flavour="oci", comment=""), is_reversed=is_reversed)
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()} == {
        "one.tar": "4574ee1750e8355338d22557479f42da92f0bbc916d13f65861c30663cf6a98b",
        "twice.tar": "740abc77c1222b24a5ee89eb47397a8b9a216d1bfac94daa2358c4229051cc9a",
    }
    assert (tmp_path / "one.tar").stat().st_mode & 0o777 == 0o644


async def test_blobs_written_side_by_side(tmp_path: Path) -> None:
    layers = [tars.tar([file(f"f{number}", images.noise(number, 200_000 + number))]) for number in range(8)]
    target = plain(*layers)
    async with opened(f"{tmp_path}/many.tar") as destination:
        blobs = [*target.layers, target.config]
        await asyncio.gather(*(destination.put_blob(descriptor(each), HeldContent(each.data)) for each in blobs))
        await destination.commit(document_of(target))
    with tarfile.open(tmp_path / "many.tar") as archive:
        assert archive.getnames()[: len(layers)] == [
            each.digest.removeprefix("sha256:") + ".tar" for each in target.layers
        ]
    async with open_source(parse_location(f"docker-archive:{tmp_path}/many.tar")) as source:
        for each in target.layers:
            async with source.open_blob(descriptor(each)) as response:
                assert b"".join([chunk async for chunk in response.chunks]) == each.data


def test_a_killed_copy_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from asyncpull.destination.dockerarchive import new_docker_archive\n"
        "from asyncpull.spec.digest import Digest\n"
        "from asyncpull.spec.manifest import Descriptor\n"
        "from tests.support.contents import HeldContent\n"
        "async def main():\n"
        "    async with new_docker_archive(sys.argv[1]) as archive:\n"
        "        data = os.urandom(100_000)\n"
        "        blob = Descriptor('', Digest.of(data), len(data))\n"
        "        await archive.destination().put_blob(blob, HeldContent(data))\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    words = [sys.executable, "-c", program, f"{tmp_path}/x.tar"]
    done = subprocess.run(words, cwd=REPOSITORY, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_several_images_share_layers(tmp_path: Path) -> None:
    one, two = plain(BASE, comment="one"), plain(BASE, TOP, comment="two")
    async with new_docker_archive(f"{tmp_path}/both.tar") as archive:
        await put(archive.destination(parse_reference("one:v1")), one)
        await put(archive.destination(parse_reference("two:v1"), parse_reference("two:v2")), two)
        await put(archive.destination(parse_reference("one:again"), parse_reference("one:v1")), one)
        assert list(tmp_path.iterdir()) == []
    with tarfile.open(tmp_path / "both.tar") as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    for choice, target in (("one:v1", one), ("one:again", one), ("two:v2", two), ("@0", one), ("@1", two)):
        async with open_source(parse_location(f"docker-archive:{tmp_path}/both.tar:{choice}")) as source:
            assert await source.blob_bytes(descriptor(target.config), 4096) == target.config.data


async def test_several_images_are_there_together_or_not_at_all(tmp_path: Path) -> None:
    async def fail() -> None:
        async with new_docker_archive(f"{tmp_path}/both.tar") as archive:
            await put(archive.destination(parse_reference("one:v1")), plain(BASE))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with new_docker_archive(f"{tmp_path}/none.tar"):
        pass
    assert list(tmp_path.iterdir()) == []


async def test_what_is_there_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "here.tar"
    path.write_bytes(b"something")
    with pytest.raises(StoreWriteError, match=r"here\.tar: is there already"):
        async with opened(str(path)):
            pass
    assert path.read_bytes() == b"something"
    with pytest.raises(StoreWriteError, match="is a directory"):
        async with opened(str(tmp_path)):
            pass
    with pytest.raises(StoreWriteError, match="No such file or directory"):
        async with opened(f"{tmp_path}/missing/x.tar"):
            pass
    assert list(tmp_path.iterdir()) == [path]


async def test_who_comes_between_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "here.tar"
    async with opened(str(path)) as destination:
        path.write_bytes(b"faster")
        with pytest.raises(StoreWriteError, match="is there already"):
            await put(destination, plain(BASE))
    assert path.read_bytes() == b"faster"
    assert list(tmp_path.iterdir()) == [path]


async def test_an_empty_file_is_replaced_and_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("empty.tar")
    (tmp_path / "empty.tar").touch()
    async with opened(f"{tmp_path}/link") as destination:
        assert (tmp_path / "empty.tar").stat().st_size == 0
        await put(destination, plain(BASE))
    assert tarfile.is_tarfile(tmp_path / "empty.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.tar", "link"]


async def test_a_pipe_gets_the_whole_archive(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", tmp_path / "received.tar"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.write_bytes(pipe.read_bytes()))
    layer = tars.tar([file("large", images.noise(1, 1_000_000))])
    target = plain(layer)
    async with opened(f"{pipe}:one:v1") as destination:
        reader.start()
        await put(destination, target)
    reader.join()
    async with (
        open_source(parse_location(f"docker-archive:{received}:one:v1")) as source,
        source.open_blob(descriptor(target.layers[0])) as response,
    ):
        assert b"".join([chunk async for chunk in response.chunks]) == layer


async def test_a_pipe_that_nobody_reads_can_be_left(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with opened(str(pipe)) as destination:
        commit = asyncio.create_task(put(destination, plain(BASE)))
        await asyncio.sleep(0.3)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit


def received(reader: int) -> bytes:
    """What is in a pipe by now, if anything."""
    try:
        return os.read(reader, 1)
    except BlockingIOError:
        return b""


async def test_a_pipe_whose_reader_goes_away(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    layer = tars.tar([file("large", images.noise(1, 1_000_000))])
    async with opened(str(pipe)) as destination:
        commit = asyncio.create_task(put(destination, plain(layer)))
        while not received(reader):
            await asyncio.sleep(0.01)
        os.close(reader)
        with pytest.raises(StoreWriteError, match="Broken pipe"):
            await commit


async def test_what_an_archive_cannot_hold(tmp_path: Path) -> None:
    zipped = images.image([BASE], compression="gzip")
    index = images.index([plain(BASE)])
    with pytest.raises(UsageError, match="under a tag, not at a number"):
        async with opened(f"{tmp_path}/x.tar:@0"):
            pass
    async with opened(f"{tmp_path}/x.tar") as destination:
        with pytest.raises(DocumentError, match="not those of its config, uncompressed"):
            await put(destination, zipped)
        with pytest.raises(DocumentError, match="holds single images"):
            await destination.commit(document_of(index))
    assert list(tmp_path.iterdir()) == []


async def test_a_commit_without_all_blobs_is_refused(tmp_path: Path) -> None:
    target = plain(BASE, TOP)
    async with opened(f"{tmp_path}/x.tar") as destination:
        with pytest.raises(StoreError, match=r"config .* is not in the archive"):
            await destination.commit(document_of(target))
        await destination.put_blob(descriptor(target.config), HeldContent(target.config.data))
        await destination.put_blob(descriptor(target.layers[0]), HeldContent(BASE))
        with pytest.raises(StoreError, match=r"layer .* is not in the archive"):
            await destination.commit(document_of(target))
        with pytest.raises(SizeMismatchError):
            await destination.put_blob(Descriptor("", Digest.of(TOP), len(TOP) - 1), HeldContent(TOP))
        with pytest.raises(SizeMismatchError):
            await destination.put_blob(Descriptor("", Digest.of(b"x"), 2), HeldContent(b"x"))
    assert list(tmp_path.iterdir()) == []
