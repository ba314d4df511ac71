"""Archives of image layouts that are written: whole or not at all, always the same bytes, and into a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from asyncpull.destination.opening import open_destination
from asyncpull.errors import NotFoundError, StoreWriteError, UsageError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.source import SourceDocument
from tests.support import images, tars
from tests.support.carrying import carry
from tests.support.contents import HeldContent, descriptor

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.spec.destination import Destination


def image(name: str) -> images.Image:
    content = images.noise(len(name), 300_000)
    return images.image([tars.tar([tars.file(name, content)])], comment=name)


async def copy(target: images.Image, place: Path, destination: str) -> None:
    if not (place / "src").exists():
        images.write_layout(place / "src", {"1": target})
    async with (
        open_source(parse_location(f"oci:{place}/src:1")) as source,
        open_destination(parse_location(destination)) as writer,
    ):
        await carry(source, writer)


async def put(destination: Destination, target: images.Image) -> None:
    for blob in target.blobs:
        await destination.put_blob(descriptor(blob), HeldContent(blob.data))


def document(target: images.Image) -> SourceDocument:
    return SourceDocument(target.manifest.data, target.manifest.media_type, Digest.parse(target.manifest.digest))


async def test_members_are_sorted_and_of_nobody(tmp_path: Path) -> None:
    target = image("a")
    await copy(target, tmp_path, f"oci-archive:{tmp_path}/archive:x")
    blobs = sorted(f"blobs/sha256/{blob.digest[7:]}" for blob in (target.manifest, *target.blobs))
    with tarfile.open(tmp_path / "archive") as archive:
        members = archive.getmembers()
        files = ["index.json", "manifest.json", "oci-layout"]
        assert [member.name for member in members] == ["blobs", "blobs/sha256", *blobs, *files]
        assert {(member.uid, member.gid, member.mtime, member.uname) for member in members} == {(0, 0, 0, "")}
        assert {member.mode for member in members if member.isfile()} == {0o644}
        for blob in target.blobs:
            content = archive.extractfile(f"blobs/sha256/{blob.digest[7:]}")
            assert content is not None
            assert content.read() == blob.data
    assert (tmp_path / "archive").stat().st_size % 10240 == 0
    assert stat.S_IMODE((tmp_path / "archive").stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "src"]


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("", []),
        (":1.0", []),
        (":name", []),
        (":example.com/a/b", []),
        (":example.com/a/b:1", ["example.com/a/b:1"]),
        (":a:1", ["docker.io/library/a:1"]),
    ],
)
async def test_docker_finds_the_image_too(tmp_path: Path, name: str, tags: list[str]) -> None:
    target = image("a")
    await copy(target, tmp_path, f"oci-archive:{tmp_path}/archive{name}")
    with tarfile.open(tmp_path / "archive") as archive:
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        assert json.loads(listed.read()) == [
            {
                "Config": f"blobs/sha256/{target.id}",
                "RepoTags": tags,
                "Layers": [f"blobs/sha256/{layer.digest[7:]}" for layer in target.layers],
            }
        ]
    async with open_source(parse_location(f"docker-archive:{tmp_path}/archive")) as source:
        assert str(await source.digest())


async def test_the_same_image_makes_the_same_bytes(tmp_path: Path) -> None:
    target = image("a")
    for name in "xy":
        await copy(target, tmp_path, f"oci-archive:{tmp_path}/{name}:name")
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


async def test_an_interrupted_copy_goes_on(tmp_path: Path) -> None:
    old, new = image("old"), image("new")
    await copy(old, tmp_path, f"oci-archive:{tmp_path}/archive")
    before = (tmp_path / "archive").read_bytes()
    location = parse_location(f"oci-archive:{tmp_path}/archive")
    async with open_destination(location) as destination:
        await put(destination, new)
    assert (tmp_path / "archive").read_bytes() == before
    async with open_destination(location) as destination:
        assert [await destination.has_blob(descriptor(blob)) for blob in new.blobs] == [True, True]
        assert not await destination.has_blob(descriptor(old.layers[0]))
        assert (tmp_path / "archive").read_bytes() == before
        await destination.commit(document(new))
    async with open_source(location) as source:
        assert (await source.manifest()).raw == new.manifest.data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "src"]


async def test_a_pipe_gets_the_archive(tmp_path: Path) -> None:
    target = image("a")
    await copy(target, tmp_path, f"oci-archive:{tmp_path}/archive:x")
    os.mkfifo(tmp_path / "pipe")
    reading = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe").read_bytes))
    await copy(target, tmp_path, f"oci-archive:{tmp_path}/pipe:x")
    assert await reading == (tmp_path / "archive").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "pipe", "src"]


async def test_what_cannot_be_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="is a directory"):
        await copy(image("a"), tmp_path, f"oci-archive:{tmp_path}")
    with pytest.raises(UsageError, match="@0"):
        await copy(image("a"), tmp_path, f"oci-archive:{tmp_path}/archive:@0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


async def test_a_tar_of_something_else_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(tars.tar([tars.file("x", b"x")]))
    with pytest.raises(NotFoundError, match=r"index\.json"):
        async with open_source(parse_location(f"oci-archive:{tmp_path}/archive")) as source:
            await source.manifest()
