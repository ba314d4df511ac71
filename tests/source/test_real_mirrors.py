"""Mirrors and certificates that are real: docker-registry as a pull-through mirror, nginx that wants a certificate."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError, UnavailableError
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import CONFIG_LIMIT, Descriptor
from asyncpull.spec.reference import parse_reference
from tests.support import docker_registry as registries
from tests.support import nginx as servers
from tests.support.certificates import Authority, make_authority
from tests.support.docker_registry import Registry, docker_registry
from tests.support.images import image, noise
from tests.support.mirrors import configuration
from tests.support.nginx import Nginx, nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.images import Blob

pytestmark = pytest.mark.skipif(not registries.is_installed(), reason="docker-registry is not installed")

LAYER = noise(3, 200_000)
IMAGE = image([LAYER], compression="none")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("home")) as registry:
        registry.push("some/image", "v1", IMAGE)
        yield registry


@pytest.fixture
def mirror(tmp_path: Path, home: Registry) -> Iterator[Registry]:
    with docker_registry(tmp_path / "mirror", mirror_of=f"http://{home.address}") as registry:
        yield registry


def make_client(directory: Path, access: RegistryAccess) -> RegistryClient:
    return RegistryClient(
        access,
        retry=RetryPolicy(attempts=1),
        environ={"HOME": str(directory), "XDG_RUNTIME_DIR": str(directory / "run")},
    )


def mirrored(directory: Path, home: Registry, mirror: str) -> RegistryClient:
    path = directory / "registries.conf"
    path.write_text(configuration(home.address, mirror))
    access = RegistryAccess(tls_verify=False, registries_conf=path, registries_conf_dir=directory / "none")
    return make_client(directory, access)


def descriptor_of(blob: Blob) -> Descriptor:
    return Descriptor("", Digest.parse(blob.digest), len(blob.data))


async def pulled(source: RegistrySource) -> tuple[str, bytes]:
    """All documents, verified, and the layer and who sent it."""
    assert (await source.manifest()).raw == IMAGE.manifest.data
    assert await source.blob_bytes(descriptor_of(IMAGE.config), CONFIG_LIMIT) == IMAGE.config.data
    async with source.open_blob(descriptor_of(IMAGE.layers[0])) as response:
        return response.origin, b"".join([chunk async for chunk in response.chunks])


async def test_everything_comes_through_the_mirror(tmp_path: Path, home: Registry, mirror: Registry) -> None:
    reference = parse_reference(f"{home.address}/some/image:v1")
    async with mirrored(tmp_path, home, mirror.address) as client:
        assert await pulled(RegistrySource(client, reference)) == (f"{mirror.address}/some/image", LAYER)
    asked = [line for line in mirror.requests() if "/some/image/" in line]
    assert len(asked) == 3
    assert all(line.endswith(f"?ns={home.address.replace(':', '%3A')}") for line in asked)


async def test_a_mirror_for_digests_is_never_asked_for_a_tag(tmp_path: Path, home: Registry, mirror: Registry) -> None:
    reference = parse_reference(f"{home.address}/some/image:v1")
    async with mirrored(tmp_path, home, f"{mirror.address} digest-only") as client:
        source = RegistrySource(client, reference)
        assert await pulled(source) == (f"{mirror.address}/some/image", LAYER)
        assert (await source.manifest(Digest.parse(IMAGE.manifest.digest))).raw == IMAGE.manifest.data
    asked = mirror.requests()
    assert any(f"/manifests/{IMAGE.manifest.digest}" in line for line in asked)
    assert not any("/manifests/v1" in line for line in asked)


async def test_a_mirror_that_has_the_manifest_but_not_the_blob(tmp_path: Path, home: Registry) -> None:
    with docker_registry(tmp_path / "half") as half:
        half.push("some/image", "v1", IMAGE)
        digest = IMAGE.layers[0].digest.removeprefix("sha256:")
        shutil.rmtree(half.data / "docker/registry/v2/blobs/sha256" / digest[:2] / digest)
        reference = parse_reference(f"{home.address}/some/image:v1")
        async with mirrored(tmp_path, home, half.address) as client:
            source = RegistrySource(client, reference)
            for _ in range(2):
                assert await pulled(source) == (f"{home.address}/some/image", LAYER)
        assert sum(IMAGE.layers[0].digest in line and line.startswith("GET") for line in half.requests()) == 1


@pytest.mark.skipif(not servers.is_installed(), reason="nginx is not installed")
@pytest.mark.parametrize(
    ("status", "retry_after"), [(503, None), (429, "3600"), (503, "Fri, 31 Dec 2100 23:59:59 GMT")]
)
async def test_a_mirror_that_is_too_busy_is_not_waited_for(
    tmp_path: Path, home: Registry, status: int, retry_after: str | None
) -> None:
    refusals = (servers.Refusal("/some/image/blobs/", status),)
    options = servers.Options(refusals=refusals, retry_after=retry_after)
    reference = parse_reference(f"{home.address}/some/image:v1")
    with nginx(tmp_path / "busy", home, options) as busy:
        async with mirrored(tmp_path, home, busy.address) as client:
            for _ in range(3):
                assert await pulled(RegistrySource(client, reference)) == (f"{home.address}/some/image", LAYER)
        asked = [answer for answer in busy.answers() if "/some/image/" in answer.request]
    # The manifest, and once a blob; from then on it is left alone, by all sources.
    assert [answer.status for answer in asked] == [200, status]


async def test_a_mirror_that_went_away(tmp_path: Path, home: Registry) -> None:
    with docker_registry(tmp_path / "gone", mirror_of=f"http://{home.address}") as gone:
        address = gone.address
    reference = parse_reference(f"{home.address}/some/image:v1")
    async with mirrored(tmp_path, home, address) as client:
        assert await pulled(RegistrySource(client, reference)) == (f"{home.address}/some/image", LAYER)


# certs.d


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, home: Registry, authority: Authority) -> Iterator[Nginx]:
    """A registry that shows a certificate of the authority, and wants to see one."""
    if not servers.is_installed():
        pytest.skip("nginx is not installed")
    options = servers.Options(server=authority.server(), clients=authority)
    with nginx(tmp_path_factory.mktemp("strict"), home, options) as running:
        yield running


def cert_dir(directory: Path, *files: tuple[str, Path]) -> RegistryAccess:
    directory.mkdir()
    for name, path in files:
        shutil.copy(path, directory / name)
    return RegistryAccess(cert_dir=directory, registries_conf_dir=directory / "none")


async def test_certificates_end_to_end(tmp_path: Path, strict: Nginx, authority: Authority) -> None:
    client_certificate = authority.client()
    reference = parse_reference(f"{strict.address}/some/image:v1")
    access = cert_dir(
        tmp_path / "all",
        ("ca.crt", authority.path),
        ("client.cert", client_certificate.path),
        ("client.key", client_certificate.key),
    )
    async with make_client(tmp_path, access) as client:
        assert await pulled(RegistrySource(client, reference)) == (f"{strict.address}/some/image", LAYER)


async def test_a_registry_that_is_not_trusted_or_does_not_trust_us(
    tmp_path: Path, strict: Nginx, authority: Authority
) -> None:
    reference = parse_reference(f"{strict.address}/some/image:v1")
    stranger = make_authority(tmp_path / "stranger")
    async with make_client(tmp_path, cert_dir(tmp_path / "nothing")) as client:
        with pytest.raises(UnavailableError, match="certificate is refused"):
            await RegistrySource(client, reference).manifest()
    async with make_client(tmp_path, cert_dir(tmp_path / "stranger's", ("ca.crt", stranger.path))) as client:
        with pytest.raises(UnavailableError, match="certificate is refused"):
            await RegistrySource(client, reference).manifest()
    async with make_client(tmp_path, cert_dir(tmp_path / "authority", ("ca.crt", authority.path))) as client:
        with pytest.raises(UnavailableError, match="400"):  # what nginx says to who shows no certificate
            await RegistrySource(client, reference).manifest()
    async with make_client(tmp_path, cert_dir(tmp_path / "half", ("client.key", authority.key))) as client:
        with pytest.raises(ConfigurationError, match=r"client\.key"):
            await RegistrySource(client, reference).manifest()
    assert [answer.status for answer in strict.answers() if answer.status != 200] == [400]
