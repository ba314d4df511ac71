"""What docker and podman load and save: dockerd's own archives and its API, podman's archives, skopeo's bytes."""

from __future__ import annotations

import asyncio
import json
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.copy import Copier
from asyncpull.destination.dockerarchive import new_docker_archive
from asyncpull.destination.opening import open_destination
from asyncpull.dockerd import DaemonAddress, DaemonClient
from asyncpull.errors import NotFoundError, UnavailableError
from asyncpull.http import Stream
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, Manifest, parse_document
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.source import SourceDocument
from tests.support import docker_archives, images, tars
from tests.support.contents import HeldContent, descriptor
from tests.support.docker_daemon import docker, docker_daemon
from tests.support.stores import workplace

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncpull.spec.destination import Destination
    from tests.support.peers import Peer
    from tests.support.stores import SharedStore

BASE = tars.tar([tars.directory("etc"), tars.file("etc/a", images.noise(1, 300_000))])
TOP = tars.tar([tars.file("b", b"B"), tars.whiteout("etc/a")])


def plain(*layers: bytes, comment: str = "") -> images.Image:
    return images.image(layers, compression="none", flavour="docker", comment=comment)


@pytest.fixture(scope="module")
def daemon(newest: Peer) -> Iterator[str]:
    """A dockerd of the newest peer, for all tests here."""
    if not newest.has("dockerd"):
        pytest.skip("the newest container tools have no dockerd")
    with workplace(newest) as directory, docker_daemon(newest, directory) as host:
        yield host


def document_of(target: images.Image) -> SourceDocument:
    raw = target.manifest.data
    return SourceDocument(raw, target.manifest.media_type, Digest.of(raw))


async def put(destination: Destination, target: images.Image) -> None:
    for blob in (*target.layers, target.config):
        await destination.put_blob(descriptor(blob), HeldContent(blob.data))
    await destination.commit(document_of(target))


async def contents(location: str, access: Access | None = None) -> tuple[bytes, list[bytes]]:
    async with open_source(parse_location(location), access) as source:
        document = await source.manifest()
        manifest = parse_document(document.raw, document.media_type)
        assert isinstance(manifest, Manifest)
        layers = []
        for layer in manifest.layers:
            async with source.open_blob(layer) as response:
                layers.append(b"".join([chunk async for chunk in response.chunks]))
        return await source.blob_bytes(manifest.config, CONFIG_LIMIT), layers


def image_id(newest: Peer, host: str, name: str) -> str:
    return docker(newest, host, "image", "inspect", "--format", "{{.Id}}", name).strip()


async def test_an_image_goes_into_the_daemon_and_comes_back(newest: Peer, daemon: str, tmp_path: Path) -> None:
    target, access = plain(BASE, TOP, BASE, comment="there and back"), Access(daemon_host=daemon)
    names = [parse_reference("quay.io/x/loaded:v2")]
    async with open_destination(parse_location("docker-daemon:loaded:v1"), access, names=names) as destination:
        await put(destination, target)
    assert image_id(newest, daemon, "loaded:v1") == target.config.digest
    assert image_id(newest, daemon, "quay.io/x/loaded:v2") == target.config.digest
    for name in ("loaded:v1", "quay.io/x/loaded:v2", target.config.digest):
        config, layers = await contents(f"docker-daemon:{name}", access)
        assert config == target.config.data
        assert [images.sha256(layer) for layer in layers] == list(target.diff_ids)
    async with Copier(source=access) as copier:
        await copier.copy("docker-daemon:loaded:v1", f"docker-archive:{tmp_path}/x.tar:again:v1")
        await copier.copy(f"docker-archive:{tmp_path}/x.tar", "docker-daemon:again:v2")
    assert image_id(newest, daemon, "again:v2") == target.config.digest


async def test_docker_loads_our_archives_and_we_read_its_own(newest: Peer, daemon: str) -> None:
    one, two = plain(BASE, comment="one"), plain(BASE, TOP, comment="two")
    with workplace(newest) as place:
        async with new_docker_archive(f"{place}/ours.tar") as archive:
            await put(archive.destination(parse_reference("first:v1")), one)
            await put(archive.destination(parse_reference("second:v1"), parse_reference("second:v2")), two)
        docker(newest, daemon, "load", "-q", "-i", place / "ours.tar")
        assert image_id(newest, daemon, "first:v1") == one.config.digest
        assert image_id(newest, daemon, "second:v2") == two.config.digest
        docker(newest, daemon, "save", "-o", place / "theirs.tar", "first:v1", "second:v1")
        for choice, target in (("first:v1", one), ("second:v1", two)):
            config, layers = await contents(f"docker-archive:{place}/theirs.tar:{choice}")
            assert config == target.config.data
            assert [images.sha256(layer) for layer in layers] == list(target.diff_ids)


async def test_a_load_that_is_broken_off_leaves_nothing(newest: Peer, daemon: str) -> None:
    target = plain(tars.tar([tars.file("large", images.noise(3, 2_000_000))]), comment="broken off")
    data = docker_archives.archive({"broken:v1": target})
    before = sorted(docker(newest, daemon, "images", "--all").splitlines())

    async def half() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise UnavailableError("the source is gone")

    async with DaemonClient(DaemonAddress.find(daemon)) as client:
        with pytest.raises(UnavailableError, match="the source is gone"):
            await client.load(Stream(len(data), half))
    assert sorted(docker(newest, daemon, "images", "--all").splitlines()) == before
    with pytest.raises(NotFoundError):
        await contents("docker-daemon:broken:v1", Access(daemon_host=daemon))


async def test_an_image_that_the_daemon_keeps_compressed(newest: Peer, daemon: str) -> None:
    """A daemon that keeps images in containerd sends layers as they came, and calls images by other IDs."""
    target = images.image([BASE, TOP, BASE], compression=("gzip", "zstd", "gzip"))
    with workplace(newest) as place:
        images.write_layout(place / "layout", {"v1": target})
        with tarfile.open(place / "layout.tar", "w") as archive:
            archive.add(place / "layout", "")
        (place / "daemon").mkdir()
        with docker_daemon(newest, place / "daemon", in_containerd=True) as host:
            docker(newest, host, "load", "-q", "-i", place / "layout.tar")
            config, layers = await contents(f"docker-daemon:{target.manifest.digest}", Access(daemon_host=host))
            async with open_destination(parse_location("docker-daemon:ours:v1"), Access(daemon_host=host)) as ours:
                await put(ours, plain(BASE, TOP))
            assert (
                docker(newest, host, "image", "inspect", "--format", "{{.RepoTags}}", "ours:v1").strip() == "[ours:v1]"
            )
    assert config == target.config.data
    assert layers == [BASE, TOP, BASE]


async def test_podman_loads_our_archives_and_we_read_its_own(peer: Peer, place: Path, store: SharedStore) -> None:
    target = plain(BASE, TOP, comment="podman")
    async with open_destination(parse_location(f"docker-archive:{place}/ours.tar:localhost/x:v1")) as destination:
        await put(destination, target)
    store.podman("load", "-q", "-i", place / "ours.tar")
    assert store.podman("image", "inspect", "--format", "{{.Id}}", "localhost/x:v1").strip() == target.id
    store.podman("save", "-q", "--format", "docker-archive", "-o", place / "theirs.tar", "localhost/x:v1")
    config, layers = await contents(f"docker-archive:{place}/theirs.tar:localhost/x:v1")
    assert config == target.config.data
    assert layers == [BASE, TOP]


async def listening(socket: Path, service: subprocess.Popen[str]) -> None:
    """Return when somebody answers at a socket."""
    end = time.monotonic() + 90
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(socket)
        except OSError:
            assert service.poll() is None, service.communicate()
            assert time.monotonic() < end
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def test_the_service_of_podman_is_such_a_daemon_too(peer: Peer, store: SharedStore) -> None:
    target, socket = plain(BASE, TOP, comment="service"), store.directory / "s"
    access = Access(daemon_host=f"unix://{socket}")
    service = peer.start(*store.podman_command, "system", "service", "-t", "0", f"unix://{socket}")
    try:
        await listening(socket, service)
        async with open_destination(parse_location("docker-daemon:localhost/x:v1"), access) as destination:
            await put(destination, target)
        assert await contents("docker-daemon:localhost/x:v1", access) == (target.config.data, [BASE, TOP])
        with pytest.raises(NotFoundError):
            await contents("docker-daemon:localhost/x:v2", access)
    finally:
        service.terminate()
        service.communicate()
    assert store.podman("image", "inspect", "--format", "{{.Id}}", "localhost/x:v1") == target.id


async def test_archives_are_those_of_skopeo(newest: Peer) -> None:
    with workplace(newest) as place:
        target = images.image([BASE, TOP, BASE], flavour="docker")
        images.write_layout(place / "layout", {"one": target})
        options = ["copy", "-q", "--insecure-policy"]
        newest.run(
            "skopeo", *options, f"oci:{place}/layout:one", f"docker-archive:{place}/theirs.tar:docker.io/library/a:b"
        )
        async with open_destination(parse_location(f"docker-archive:{place}/ours.tar:a:b")) as destination:
            await put(destination, plain(BASE, TOP, BASE))
        assert (place / "ours.tar").read_bytes() == (place / "theirs.tar").read_bytes()
        newest.run("skopeo", *options, f"docker-archive:{place}/ours.tar:a:b", f"dir:{place}/read")
        manifest = json.loads((place / "read" / "manifest.json").read_bytes())
        assert manifest["config"]["digest"] == target.config.digest


async def test_others_read_the_layouts_that_we_read(newest: Peer) -> None:
    """What is taken for an archive here is one for skopeo too, with the same layers. (1.9 fails on compressed ones.)"""
    with workplace(newest) as place:
        target = plain(BASE, TOP)
        archives = {
            "plain": docker_archives.archive({"one:v1": target}),
            "layout": tars.tar(docker_archives.saved_as_layout(images.image([BASE, TOP], flavour="docker"))),
            "compressed": images.compress(docker_archives.archive({"one:v1": target}), "gzip"),
        }
        for name, data in archives.items():
            (place / f"{name}.tar").write_bytes(data)
            location = f"docker-archive:{place}/{name}.tar"
            newest.run("skopeo", "copy", "-q", "--insecure-policy", location, f"dir:{place}/{name}")
            theirs = json.loads((place / name / "manifest.json").read_bytes())
            async with open_source(parse_location(location)) as source:
                ours = json.loads((await source.manifest()).raw)
            assert ours["config"] == theirs["config"]
            assert [(layer["digest"], layer["size"]) for layer in ours["layers"]] == [
                (layer["digest"], layer["size"]) for layer in theirs["layers"]
            ]


async def test_an_archive_of_a_layout_is_loaded(newest: Peer, daemon: str) -> None:
    target = images.image([BASE, TOP], compression=("gzip", "zstd"), comment="in a layout")
    with workplace(newest) as directory:
        images.write_layout(directory / "layout", {"1": target})
        async with Copier() as copier:
            await copier.copy(f"oci:{directory}/layout:1", f"oci-archive:{directory}/archive:example.com/a/layout:1")
        said = await asyncio.to_thread(docker, newest, daemon, "load", "--input", str(directory / "archive"))
    assert "example.com/a/layout:1" in said
    assert image_id(newest, daemon, "example.com/a/layout:1") == f"sha256:{target.id}"
