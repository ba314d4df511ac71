"""``docker-daemon:`` as a destination, of a simulated daemon; the real one is in tests/interop/test_dockerd.py."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.destination.opening import open_destination
from asyncpull.errors import NotFoundError, SourceError, UnavailableError, UsageError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.source import SourceDocument
from tests.support import images, tars
from tests.support.contents import HeldContent, descriptor
from tests.support.docker_daemon import DaemonSimulator

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.spec.destination import Destination

LAYER = tars.tar([tars.file("large", images.noise(1, 2_000_000))])


def target() -> images.Image:
    return images.image([LAYER], compression="none", flavour="docker")


async def put(destination: Destination) -> None:
    for blob in target().blobs:
        await destination.put_blob(descriptor(blob), HeldContent(blob.data))
    raw = target().manifest.data
    await destination.commit(SourceDocument(raw, target().manifest.media_type, Digest.of(raw)))


async def test_the_daemon_gets_one_archive_with_all_names(tmp_path: Path) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        access, names = Access(daemon_host=daemon.host), [parse_reference("quay.io/x/one:v2")]
        async with open_destination(parse_location("docker-daemon:one:v1"), access, names=names) as destination:
            assert daemon.asked == ["GET /_ping"]
            await put(destination)
        assert daemon.asked == ["GET /_ping", "POST /v1.44/images/load?quiet=1"]
        with tarfile.open(fileobj=io.BytesIO(daemon.loaded[0])) as archive:
            assert archive.getnames()[-1] == "repositories"
        for name in ("one:v1", "quay.io/x/one:v2"):
            async with open_source(parse_location(f"docker-daemon:{name}"), access) as source:
                assert await source.blob_bytes(descriptor(target().config), 4096) == target().config.data


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b'{"stream":"x"}\n{"errorDetail":{"message":"no space left on device"},"error":"no space"}\n',
            "no space left",
        ),
        (b'{"error":"unexpected EOF"}', "unexpected EOF"),
        (b"<html>", "answer is not JSON"),
    ],
)
async def test_what_the_daemon_says_against_it(tmp_path: Path, answer: bytes, reason: str) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        daemon.answer = answer
        access = Access(daemon_host=daemon.host)
        async with open_destination(parse_location("docker-daemon:one:v1"), access) as destination:
            with pytest.raises(SourceError, match=reason) as caught:
                await put(destination)
        assert daemon.host in str(caught.value)


async def test_a_daemon_that_is_not_there_is_missed_before_the_copy(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no such socket"):
        async with open_destination(parse_location("docker-daemon:one:v1"), Access(daemon_host="unix:///nowhere")):
            pass
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        access = Access(daemon_host=daemon.host)
        async with open_destination(parse_location("docker-daemon:one:v1"), access) as destination:
            (tmp_path / "sock").unlink()
            with pytest.raises(UnavailableError, match="there is no such socket"):
                await put(destination)


@pytest.mark.parametrize("name", ["sha256:" + "a" * 64, "one@sha256:" + "a" * 64])
async def test_a_name_without_a_tag_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="loaded under a name with a tag"):
        async with open_destination(parse_location(f"docker-daemon:{name}")):
            pass


async def test_nothing_is_sent_without_a_commit(tmp_path: Path) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        access = Access(daemon_host=daemon.host)
        async with open_destination(parse_location("docker-daemon:one:v1"), access) as destination:
            for blob in target().blobs:
                await destination.put_blob(descriptor(blob), HeldContent(blob.data))
        assert daemon.asked == ["GET /_ping"]
        with pytest.raises(NotFoundError):
            async with open_source(parse_location("docker-daemon:one:v1"), access):
                pass
