"""``docker-daemon:`` as a source, of a simulated daemon; the real one is in tests/interop/test_dockerd.py."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.errors import AuthenticationError, DocumentError, NotFoundError, SourceError, UnavailableError
from asyncpull.registry.config import RegistryAccess
from asyncpull.source.opening import open_source
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, Descriptor, Manifest, parse_document
from tests.support import docker_archives, tars
from tests.support.certificates import make_authority
from tests.support.contents import descriptor
from tests.support.docker_daemon import DaemonSimulator
from tests.support.images import Image, image, noise

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = [tars.tar([tars.file("large", noise(1, 3_000_000))]), tars.tar([tars.file("small", b"x")])]


def target() -> Image:
    return image(LAYERS, compression="none", flavour="docker")


async def contents(access: Access, name: str) -> tuple[bytes, list[bytes]]:
    async with open_source(parse_location(f"docker-daemon:{name}"), access) as source:
        document = await source.manifest()
        manifest = parse_document(document.raw, document.media_type)
        assert isinstance(manifest, Manifest)

        async def read(layer: Descriptor) -> bytes:
            async with source.open_blob(layer) as response:
                return b"".join([chunk async for chunk in response.chunks])

        config = await source.blob_bytes(manifest.config, CONFIG_LIMIT)
        return config, list(await asyncio.gather(*map(read, manifest.layers)))


async def test_an_image_is_asked_for_by_name_or_id(tmp_path: Path) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        data = docker_archives.archive({"one:v1": target()})
        digest = target().config.digest
        daemon.images = dict.fromkeys(("one:v1", "quay.io/a/b:v2", f"quay.io/a/b@{digest}", digest), data)
        for name in ("docker.io/library/one:v1", "quay.io/a/b:v2", f"quay.io/a/b@{digest}", digest):
            assert await contents(Access(daemon_host=daemon.host), name) == (target().config.data, LAYERS)
        assert daemon.asked[:4] == [
            "GET /_ping",
            "GET /v1.44/images/get?names=one:v1",
            "GET /_ping",
            "GET /v1.44/images/get?names=quay.io/a/b:v2",
        ]


async def test_the_environment_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with DaemonSimulator() as daemon:
        daemon.images["one:v1"] = docker_archives.archive({"one:v1": target()})
        daemon.version = None
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        assert await contents(Access(), "one:v1") == (target().config.data, LAYERS)
        assert daemon.asked[1] == "GET /v1.24/images/get?names=one:v1"


async def test_a_daemon_that_wants_a_certificate(tmp_path: Path) -> None:
    ours, theirs = make_authority(tmp_path / "ours"), make_authority(tmp_path / "theirs")
    server, client = theirs.server(), ours.client()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours.path)
    context.load_cert_chain(server.path, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    shown = tmp_path / "certificates"
    shown.mkdir()
    for name, path in (("ca", theirs.path), ("cert", client.path), ("key", client.key)):
        (shown / f"{name}.pem").write_bytes(path.read_bytes())
    async with DaemonSimulator(tls=context) as daemon:
        daemon.images["one:v1"] = docker_archives.archive({"one:v1": target()})
        access = Access(RegistryAccess(cert_dir=shown), daemon_host=daemon.host)
        assert await contents(access, "one:v1") == (target().config.data, LAYERS)
        asked = list(daemon.asked)
        with pytest.raises(UnavailableError, match="the TLS certificate is refused"):
            await contents(Access(daemon_host=daemon.host), "one:v1")
        with pytest.raises(UnavailableError):
            await contents(Access(RegistryAccess(tls_verify=False), daemon_host=daemon.host), "one:v1")
        assert daemon.asked == asked


async def test_what_is_not_there(tmp_path: Path) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        with pytest.raises(NotFoundError, match="the docker daemon says: No such image: one:v1"):
            await contents(Access(daemon_host=daemon.host), "one:v1")
    with pytest.raises(UnavailableError, match="there is no such socket"):
        await contents(Access(daemon_host=f"unix://{tmp_path}/nothing"), "one:v1")
    with pytest.raises(UnavailableError, match="cannot connect"):
        await contents(Access(daemon_host="http://127.0.0.1:1"), "one:v1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
async def test_a_socket_that_is_not_for_us(tmp_path: Path) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        (tmp_path / "sock").chmod(0)
        with pytest.raises(AuthenticationError, match="permission denied"):
            await contents(Access(daemon_host=daemon.host), "one:v1")


async def test_an_archive_that_is_cut_off_or_none(tmp_path: Path) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        data = docker_archives.archive({"one:v1": target()})
        daemon.images = {"broken:v1": data, "hostile:v1": tars.tar([tars.file("../manifest.json", b"[]")])}
        with pytest.raises(DocumentError, match="leads out of the archive"):
            await contents(Access(daemon_host=daemon.host), "hostile:v1")
        daemon.breaks_at = 1_000_000
        with pytest.raises(SourceError, match="the body ended too early"):
            await contents(Access(daemon_host=daemon.host), "broken:v1")


async def test_an_image_stays_when_the_daemon_goes(tmp_path: Path) -> None:
    async with DaemonSimulator(tmp_path / "sock") as daemon:
        daemon.images["one:v1"] = docker_archives.archive({"one:v1": target()})
        opening = open_source(parse_location("docker-daemon:one:v1"), Access(daemon_host=daemon.host))
        source = await opening.__aenter__()
    assert await source.blob_bytes(descriptor(target().config), CONFIG_LIMIT) == target().config.data
    await opening.__aexit__(None, None, None)
