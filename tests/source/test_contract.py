"""What every source does, whatever the transport: one suite for all of them.

A transport takes part with an ``Offer`` in ``OFFERS``: how an image becomes something that it can be asked for.
"""

from __future__ import annotations

import tarfile
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.errors import DocumentTooLargeError, IntegrityError, NotFoundError
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.source.opening import open_source
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, Descriptor, Index, Manifest, parse_document
from asyncpull.spec.reference import parse_reference
from tests.support import docker_archives, images, tars
from tests.support.docker_daemon import DaemonSimulator
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from asyncpull.spec.source import Source

Target = images.Image | images.Index


@dataclass(frozen=True, slots=True)
class Offer:
    """A transport: ``open`` gives a source for an image, for which it may use an empty directory.

    ``keeps_bytes`` tells that manifest and blobs are those that were put in, ``holds_indexes`` that an index can be.
    """

    open: Callable[[Path, Target], AbstractAsyncContextManager[Source]]
    keeps_bytes: bool = True
    holds_indexes: bool = True


@asynccontextmanager
async def offered_by_registry(place: Path, target: Target) -> AsyncIterator[Source]:
    access = RegistryAccess(tls_verify=False)
    hurry = RetryPolicy(attempts=2, first_seconds=0.001)
    async with RegistrySimulator() as registry, RegistryClient(access, retry=hurry) as client:
        yield RegistrySource(client, parse_reference(registry.add_image("a/b", "1", target)))


@asynccontextmanager
async def offered_by_layout(place: Path, target: Target) -> AsyncIterator[Source]:
    images.write_layout(place / "layout", {"other": image("s390x"), "1": target})
    async with open_source(parse_location(f"oci:{place}/layout:1")) as source:
        yield source


@asynccontextmanager
async def offered_by_layout_archive(place: Path, target: Target) -> AsyncIterator[Source]:
    images.write_layout(place / "layout", {"1": target})
    with tarfile.open(place / "archive", "w") as archive:
        archive.add(place / "layout", ".")
    async with open_source(parse_location(f"oci-archive:{place}/archive:1")) as source:
        yield source


@asynccontextmanager
async def offered_by_directory(place: Path, target: Target) -> AsyncIterator[Source]:
    images.write_directory(place / "directory", target)
    async with open_source(parse_location(f"dir:{place}/directory")) as source:
        yield source


@asynccontextmanager
async def offered_by_docker_archive(place: Path, target: Target) -> AsyncIterator[Source]:
    assert isinstance(target, images.Image)
    (place / "archive").write_bytes(docker_archives.archive({"a/b:1": target, "a/b:2": image("s390x")}))
    async with open_source(parse_location(f"docker-archive:{place}/archive:a/b:1")) as source:
        yield source


@asynccontextmanager
async def offered_as_tarballs(place: Path, target: Target) -> AsyncIterator[Source]:
    assert isinstance(target, images.Image)
    for number, blob in enumerate(target.layers):
        (place / f"{number}.tar").write_bytes(blob.data)
    async with open_source(parse_location(f"tarball:{place}/0.tar:{place}/1.tar")) as source:
        yield source


@asynccontextmanager
async def offered_by_docker_daemon(place: Path, target: Target) -> AsyncIterator[Source]:
    assert isinstance(target, images.Image)
    async with DaemonSimulator(place / "sock") as daemon:
        daemon.images["a/b:1"] = docker_archives.archive({"a/b:1": target})
        async with open_source(parse_location("docker-daemon:a/b:1"), Access(daemon_host=daemon.host)) as source:
            yield source


OFFERS = {
    "docker": Offer(offered_by_registry),
    "oci": Offer(offered_by_layout),
    "oci-archive": Offer(offered_by_layout_archive),
    "dir": Offer(offered_by_directory),
    "docker-archive": Offer(offered_by_docker_archive, keeps_bytes=False, holds_indexes=False),
    "docker-daemon": Offer(offered_by_docker_daemon, keeps_bytes=False, holds_indexes=False),
    "tarball": Offer(offered_as_tarballs, keeps_bytes=False, holds_indexes=False),
}


def image(architecture: str = "amd64") -> images.Image:
    """Two layers, of which one is longer than what is read at once, and one is not compressed."""
    return images.image(
        [
            tars.tar([tars.file("large", images.noise(1, 1_500_000))]),
            tars.tar([tars.file("small", b"small"), tars.file(architecture, b"")]),
        ],
        compression=("gzip", "none"),
        architecture=architecture,
    )


@pytest.fixture(params=OFFERS)
def offer(request: pytest.FixtureRequest) -> Offer:
    return OFFERS[request.param]


async def read(source: Source, descriptor: Descriptor, start: int = 0, end: int | None = None) -> bytes:
    """A blob, or part of it, cut out of what the source sends."""
    async with source.open_blob(descriptor, start, end) as response:
        assert response.start <= start
        raw = b"".join([chunk async for chunk in response.chunks])
        assert response.total in (None, descriptor.size)
        assert response.end in (None, response.start + len(raw))
    return raw[start - response.start :][: None if end is None else end - start]


async def manifest_of(source: Source) -> Manifest:
    document = await source.manifest()
    parsed = parse_document(document.raw, document.media_type)
    assert isinstance(parsed, Manifest)
    return parsed


async def test_an_image_is_given_whole(offer: Offer, tmp_path: Path) -> None:
    target = image()
    async with offer.open(tmp_path, target) as source:
        document = await source.manifest()
        assert document.digest == Digest.of(document.raw) == await source.digest()
        assert (await source.manifest(document.digest)).raw == document.raw
        manifest = await manifest_of(source)
        config = await source.blob_bytes(manifest.config, CONFIG_LIMIT)
        assert images.sha256(config) == str(manifest.config.digest)
        layers = [await read(source, layer) for layer in manifest.layers]
        assert [images.sha256(layer) for layer in layers] == [str(layer.digest) for layer in manifest.layers]
        assert source.name
        assert source.name in repr(source)
        if offer.keeps_bytes:
            assert document.raw == target.manifest.data
            assert document.media_type in (None, target.manifest.media_type)
            assert [config, *layers] == [blob.data for blob in target.blobs]


async def test_an_index_is_given_with_its_manifests(offer: Offer, tmp_path: Path) -> None:
    if not offer.holds_indexes:
        pytest.skip("this transport holds single images")
    target = images.index([image(), image("arm64")])
    async with offer.open(tmp_path, target) as source:
        document = await source.manifest()
        assert document.raw == target.manifest.data
        parsed = parse_document(document.raw, document.media_type)
        assert isinstance(parsed, Index)
        for each, instance in zip(parsed.manifests, target.images, strict=True):
            found = await source.manifest(each.digest)
            assert (found.raw, found.digest) == (instance.manifest.data, each.digest)
            manifest = parse_document(found.raw, found.media_type or each.media_type)
            assert isinstance(manifest, Manifest)
            assert await read(source, manifest.layers[1]) == instance.layers[1].data


async def test_blobs_are_read_from_anywhere(offer: Offer, tmp_path: Path) -> None:
    async with offer.open(tmp_path, image()) as source:
        layer = (await manifest_of(source)).layers[0]
        whole = await read(source, layer)
        for start, end in ((0, 1), (1, 7), (1 << 20, (1 << 20) + 1), (3, None), (layer.size - 1, layer.size)):
            assert await read(source, layer, start, end) == whole[start:end]
        async with source.open_blob(layer) as left_early:
            assert whole.startswith(await anext(left_early.chunks))
        assert await read(source, layer) == whole


async def test_what_is_not_there_is_not_found(offer: Offer, tmp_path: Path) -> None:
    missing = Descriptor("", Digest.of(b"missing"), 7)
    async with offer.open(tmp_path, image()) as source:
        with pytest.raises(NotFoundError):
            await source.manifest(missing.digest)
        with pytest.raises(NotFoundError):
            await source.blob_bytes(missing, 100)
        with pytest.raises(NotFoundError):
            await read(source, missing)


async def test_small_blobs_are_limited_and_verified(offer: Offer, tmp_path: Path) -> None:
    async with offer.open(tmp_path, image()) as source:
        config = (await manifest_of(source)).config
        with pytest.raises(DocumentTooLargeError):
            await source.blob_bytes(config, config.size - 1)
        with pytest.raises(IntegrityError):
            await source.blob_bytes(Descriptor("", config.digest, config.size + 1), CONFIG_LIMIT)
        with pytest.raises((IntegrityError, DocumentTooLargeError)):
            await source.blob_bytes(Descriptor("", config.digest, config.size - 1), CONFIG_LIMIT)
        assert len(await source.blob_bytes(config, config.size)) == config.size
