"""What every destination does, whatever the transport: one suite for all of them.

A transport takes part with a ``Goal`` in ``GOALS``: how a destination in an empty directory is opened, and how another
source reads what is there afterwards.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asyncpull.destination.opening import open_destination
from asyncpull.errors import DigestMismatchError, NotFoundError, UnavailableError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, Manifest, parse_document
from asyncpull.spec.source import SourceDocument
from tests.support import images, tars
from tests.support.contents import HeldContent, descriptor
from tests.support.docker_daemon import loading, saving
from tests.support.pushes import pulling, pushing

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asyncpull.spec.destination import Destination
    from asyncpull.spec.source import Source


@dataclass(frozen=True, slots=True)
class Goal:
    """A transport: ``open`` gives the destination of one name in a directory, ``read`` a source of the same name.

    ``keeps_bytes`` tells that a manifest and its blobs are read as they were written, ``overwrites`` that another image
    can be written where one is.
    """

    open: Callable[[Path], AbstractAsyncContextManager[Destination]]
    read: Callable[[Path], AbstractAsyncContextManager[Source]]
    keeps_bytes: bool = True
    overwrites: bool = True


def at(form: str, *, keeps_bytes: bool = True, overwrites: bool = True) -> Goal:
    """A transport whose locations say it all; ``form`` has the directory as ``{}``."""
    return Goal(
        lambda place: open_destination(parse_location(form.format(place))),
        lambda place: open_source(parse_location(form.format(place))),
        keeps_bytes,
        overwrites,
    )


GOALS = {
    "oci": at("oci:{}/layout:name"),
    "oci without a name": at("oci:{}/layout"),
    "oci-archive": at("oci-archive:{}/archive:name"),
    "dir": at("dir:{}/directory"),
    "docker-archive": at("docker-archive:{}/archive:a/b:1", keeps_bytes=False, overwrites=False),
    "docker-daemon": Goal(loading, saving, keeps_bytes=False),
    "docker": Goal(pushing, pulling),
}


def image(comment: str = "", architecture: str = "amd64") -> images.Image:
    return images.image(
        [tars.tar([tars.file("base", images.noise(1, 100_000))]), tars.tar([tars.file(f"own{comment}", b"x")])],
        compression=("none", "none"),
        flavour="oci",
        architecture=architecture,
        comment=comment,
    )


@pytest.fixture(params=GOALS)
def goal(request: pytest.FixtureRequest) -> Goal:
    return GOALS[request.param]


def document_of(target: images.Image | images.Index, algorithm: str = "sha256") -> SourceDocument:
    raw = target.manifest.data
    return SourceDocument(raw, target.manifest.media_type, Digest.of(raw, algorithm))


async def put_blobs(destination: Destination, target: images.Image) -> None:
    for blob in target.blobs:
        await destination.put_blob(descriptor(blob), HeldContent(blob.data))


async def put(goal: Goal, place: Path, target: images.Image) -> Digest:
    async with goal.open(place) as destination:
        await put_blobs(destination, target)
        return await destination.commit(document_of(target))


async def assert_holds(goal: Goal, place: Path, target: images.Image) -> None:
    """The name stands for ``target``, all of which can be read."""
    async with goal.read(place) as source:
        document = await source.manifest()
        manifest = parse_document(document.raw, document.media_type)
        assert isinstance(manifest, Manifest)
        assert await source.blob_bytes(manifest.config, CONFIG_LIMIT) == target.config.data
        for layer, blob in zip(manifest.layers, target.layers, strict=True):
            async with source.open_blob(layer) as response:
                assert b"".join([chunk async for chunk in response.chunks]) == blob.data
        if goal.keeps_bytes:
            assert document.raw == target.manifest.data


async def assert_holds_nothing(goal: Goal, place: Path) -> None:
    """Whoever looks for the image finds none."""
    with pytest.raises(NotFoundError):
        async with goal.read(place) as source:
            await source.manifest()


async def test_an_image_is_there_after_the_commit_and_not_before(goal: Goal, tmp_path: Path) -> None:
    target = image()
    async with goal.open(tmp_path) as destination:
        for blob in target.blobs:
            for algorithm in ("sha256", "sha512"):
                assert not await destination.has_blob(descriptor(blob, algorithm))
        await put_blobs(destination, target)
        for blob in target.blobs:
            assert await destination.has_blob(descriptor(blob))
        assert not await destination.mount_blob(descriptor(images.Blob("", b"elsewhere")), ["docker.io/a/b"])
        await assert_holds_nothing(goal, tmp_path)
        digest = await destination.commit(document_of(target))
        assert destination.name
        assert destination.name in repr(destination)
    await assert_holds(goal, tmp_path, target)
    if goal.keeps_bytes:
        assert str(digest) == target.manifest.digest


async def test_an_index_comes_with_its_manifests(goal: Goal, tmp_path: Path) -> None:
    target = images.index([image(), image(architecture="arm64")])
    async with goal.open(tmp_path) as destination:
        if not destination.abilities.holds_indexes:
            pytest.skip("this transport holds single images")
        for each in target.images:
            await put_blobs(destination, each)
            await destination.put_manifest(document_of(each))
        await assert_holds_nothing(goal, tmp_path)
        await destination.commit(document_of(target))
    async with goal.read(tmp_path) as source:
        assert (await source.manifest()).raw == target.manifest.data
        for each in target.images:
            assert (await source.manifest(Digest.parse(each.manifest.digest))).raw == each.manifest.data
            assert await source.blob_bytes(descriptor(each.config), CONFIG_LIMIT) == each.config.data


async def test_another_image_takes_the_place_of_the_first(goal: Goal, tmp_path: Path) -> None:
    if not goal.overwrites:
        pytest.skip("this transport does not change what is there")
    old, new = image("old"), image("new")
    await put(goal, tmp_path, old)
    async with goal.open(tmp_path) as destination:
        await put_blobs(destination, new)
        await assert_holds(goal, tmp_path, old)
        await destination.commit(document_of(new))
    await assert_holds(goal, tmp_path, new)


async def test_without_a_commit_nothing_has_changed(goal: Goal, tmp_path: Path) -> None:
    async with goal.open(tmp_path) as destination:
        await put_blobs(destination, image())
    await assert_holds_nothing(goal, tmp_path)
    if goal.overwrites:
        await put(goal, tmp_path, image("old"))
        async with goal.open(tmp_path) as destination:
            await put_blobs(destination, image("new"))
            await destination.put_manifest(document_of(image("new")))
        await assert_holds(goal, tmp_path, image("old"))


@pytest.mark.parametrize("bytes_before", [0, 50_000, 1_000_000_000], ids=["at once", "in the middle", "at the end"])
async def test_a_blob_whose_content_fails_is_not_there(goal: Goal, tmp_path: Path, bytes_before: int) -> None:
    target = image()
    error = UnavailableError("the connection was lost")
    async with goal.open(tmp_path) as destination:
        content = HeldContent(target.layers[0].data, fails_at=bytes_before, error=error)
        with pytest.raises(UnavailableError) as caught:
            await destination.put_blob(descriptor(target.layers[0]), content)
        assert caught.value is error
        assert not await destination.has_blob(descriptor(target.layers[0]))
        await put_blobs(destination, target)
        await destination.commit(document_of(target))
    await assert_holds(goal, tmp_path, target)


async def test_a_blob_with_the_wrong_digest_is_not_there(goal: Goal, tmp_path: Path) -> None:
    blob = images.Blob("", images.noise(5, 70_000))
    async with goal.open(tmp_path) as destination:
        with pytest.raises(DigestMismatchError):
            await destination.put_blob(
                descriptor(blob), HeldContent(images.noise(6, 70_000), digest=descriptor(blob).digest)
            )
        assert not await destination.has_blob(descriptor(blob))
    await assert_holds_nothing(goal, tmp_path)


async def test_a_cancelled_blob_is_not_there(goal: Goal, tmp_path: Path) -> None:
    target = image()
    async with goal.open(tmp_path) as destination:
        content = HeldContent(target.layers[0].data, stops_at=50_000)
        putting = asyncio.create_task(destination.put_blob(descriptor(target.layers[0]), content))
        await content.stopped.wait()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert not await destination.has_blob(descriptor(target.layers[0]))
        await put_blobs(destination, target)
        await destination.commit(document_of(target))
    await assert_holds(goal, tmp_path, target)


async def test_a_cancelled_commit_leaves_the_old_image_or_the_new_one(goal: Goal, tmp_path: Path) -> None:
    if not goal.overwrites:
        pytest.skip("this transport does not change what is there")
    old, new = image("old"), image("new")
    for steps in range(12):
        await put(goal, tmp_path, old)
        async with goal.open(tmp_path) as destination:
            await put_blobs(destination, new)
            commit = asyncio.create_task(destination.commit(document_of(new)))
            for _ in range(steps):
                await asyncio.sleep(0)
            commit.cancel()
            await asyncio.wait((commit,))
        async with goal.read(tmp_path) as source:
            found = (await source.digest()) == document_of(new).digest
        await assert_holds(goal, tmp_path, new if found else old)
        assert commit.cancelled() or found


async def test_a_blob_put_twice_at_once_is_there_once(goal: Goal, tmp_path: Path) -> None:
    target = image()
    async with goal.open(tmp_path) as destination:
        blob = target.layers[0]
        await asyncio.gather(*(destination.put_blob(descriptor(blob), HeldContent(blob.data)) for _ in range(3)))
        await put_blobs(destination, target)
        await destination.commit(document_of(target))
    await assert_holds(goal, tmp_path, target)


async def test_empty_blobs_and_other_digests_are_taken(goal: Goal, tmp_path: Path) -> None:
    async with goal.open(tmp_path) as destination:
        if not goal.keeps_bytes:
            pytest.skip("this transport has names of its own for blobs")
        for blob, algorithm in ((images.Blob("", b""), "sha256"), (images.Blob("", b"long"), "sha512")):
            wanted = descriptor(blob, algorithm)
            assert not await destination.has_blob(wanted)
            await destination.put_blob(wanted, HeldContent(blob.data, digest=wanted.digest))
            assert await destination.has_blob(wanted)


EMPTY = images.Blob("application/vnd.oci.empty.v1+json", b"{}")
ODD = {
    "artifact": {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "artifactType": "application/vnd.example+type",
        "config": EMPTY.descriptor(),
        "layers": [EMPTY.descriptor()],
    },
    "no layers": {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": {**EMPTY.descriptor(), "mediaType": images.OCI_CONFIG},
        "layers": [],
    },
    "unknown fields": {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": {**EMPTY.descriptor(), "mediaType": images.OCI_CONFIG, "data": "e30="},
        "layers": [],
        "unknown": {"x": [1.5, None]},
    },
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_odd_documents_are_kept_to_the_byte(goal: Goal, tmp_path: Path, odd: dict[str, object]) -> None:
    if not goal.keeps_bytes:
        pytest.skip("this transport makes manifests of its own")
    raw = json.dumps(odd, indent=3).encode()
    async with goal.open(tmp_path) as destination:
        await destination.put_blob(descriptor(EMPTY), HeldContent(EMPTY.data))
        await destination.commit(SourceDocument(raw, images.OCI_MANIFEST, Digest.of(raw)))
    async with goal.read(tmp_path) as source:
        assert (await source.manifest()).raw == raw
        assert await source.blob_bytes(descriptor(EMPTY), 10) == EMPTY.data


async def test_a_copy_that_fails_can_be_done_again(goal: Goal, tmp_path: Path) -> None:
    target = image()

    async def fail() -> None:
        async with goal.open(tmp_path) as destination:
            await destination.put_blob(descriptor(target.layers[0]), HeldContent(target.layers[0].data))
            raise UnavailableError("the connection was lost")

    with pytest.raises(UnavailableError):
        await fail()
    await assert_holds_nothing(goal, tmp_path)
    await put(goal, tmp_path, target)
    await assert_holds(goal, tmp_path, target)
