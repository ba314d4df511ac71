"""HTTP through a real forward proxy: plain, by a tunnel, with a password, past it, and refused by it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AuthenticationError, UnavailableError
from asyncpull.http import HttpClient, HttpTimeouts
from asyncpull.proxies import Proxies
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.reference import parse_reference
from asyncpull.tls import TlsFiles
from tests.support import squid as proxies
from tests.support.certificates import make_authority
from tests.support.docker_registry import free_port
from tests.support.images import OCI_MANIFEST
from tests.support.registry_faults import redirect
from tests.support.registry_simulator import Bearer, RegistrySimulator
from tests.support.squid import Squid, squid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not proxies.is_installed() or shutil.which("openssl") is None, reason="squid or openssl is not installed"
)

HOSTS = ("registry.test", "tokens.test", "storage.test")
USER, PASSWORD = "me", "p@ss:word/"
RAW = b'{"schemaVersion":2}'


@pytest.fixture(scope="module")
def proxy() -> Iterator[Squid]:
    with squid(hosts=HOSTS) as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[Squid]:
    with squid(hosts=HOSTS, account=(USER, PASSWORD)) as running:
        yield running


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[RegistrySimulator, TlsFiles]]:
    authority = make_authority(tmp_path / "authority")
    server = authority.server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.path, server.key)
    async with RegistrySimulator(tls=context) as simulator:
        yield simulator, TlsFiles((authority.path,))


def through(proxy: str, **environ: str) -> HttpClient:
    environ = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy} | environ
    return HttpClient(HttpTimeouts(connect=5, headers=5, idle=5), Proxies.from_environ(environ))


def port_of(registry: RegistrySimulator) -> str:
    return registry.address.rpartition(":")[2]


def asked_of(proxy: Squid, port: str) -> list[str]:
    return [line for line in proxy.requests() if f":{port}" in line]


async def logged(proxy: Squid, port: str) -> list[str]:
    """What the proxy was asked, once it has said so: it writes its log after it has answered."""
    async with asyncio.timeout(10):
        while not asked_of(proxy, port):
            await asyncio.sleep(0.01)
    return asked_of(proxy, port)


async def test_plain_http(proxy: Squid, registry: RegistrySimulator) -> None:
    port = port_of(registry)
    url = f"http://registry.test:{port}/v2/"
    async with (
        through(f"http://{proxy.address}") as client,
        client.request("GET", url, authorization="Basic eDp5") as response,
    ):
        assert await response.read(100, "it") == b"{}"
    [request] = registry.requests
    assert (request.headers["host"], request.headers["authorization"]) == (f"registry.test:{port}", "Basic eDp5")
    assert "proxy-authorization" not in request.headers
    assert await logged(proxy, port) == [f"200 GET http://registry.test:{port}/v2/"]


async def test_a_tunnel(proxy: Squid, secure: tuple[RegistrySimulator, TlsFiles]) -> None:
    registry, tls = secure
    port = port_of(registry)
    async with through(f"http://{proxy.address}") as client:
        url = f"https://registry.test:{port}/v2/"
        # The certificate is for another name: so the tunnel ends at the registry, and not at the proxy.
        with pytest.raises(UnavailableError, match="certificate is refused"):
            async with client.request("GET", url, tls=tls):
                pass
        async with client.request("GET", url, verify_tls=False, authorization="Basic eDp5") as response:
            assert response.status == 200
    [request] = registry.requests
    assert request.headers["authorization"] == "Basic eDp5"
    assert f"CONNECT registry.test:{port}" in (await logged(proxy, port))[0]


async def test_a_password_is_shown_to_the_proxy_alone(
    guarded: Squid, registry: RegistrySimulator, secure: tuple[RegistrySimulator, TlsFiles]
) -> None:
    async with through(f"http://{USER}:p%40ss%3Aword%2F@{guarded.address}") as client:
        for url in (f"http://registry.test:{port_of(registry)}/v2/", f"https://registry.test:{port_of(secure[0])}/v2/"):
            for _ in range(2):
                async with client.request("GET", url, verify_tls=False) as response:
                    assert response.status == 200
    for request in (*registry.requests, *secure[0].requests):
        assert "proxy-authorization" not in request.headers


@pytest.mark.parametrize("account", ["", f"{USER}:wrong-and-secret@"])
async def test_a_proxy_that_wants_another_password(
    guarded: Squid, registry: RegistrySimulator, secure: tuple[RegistrySimulator, TlsFiles], account: str
) -> None:
    async with through(f"http://{account}{guarded.address}") as client:
        for url in (f"http://registry.test:{port_of(registry)}/v2/", f"https://registry.test:{port_of(secure[0])}/v2/"):
            with pytest.raises(AuthenticationError, match=f"proxy http://{guarded.address}") as caught:
                async with client.request("GET", url, verify_tls=False):
                    pass
            assert "wrong-and-secret" not in repr(caught.value) + repr(caught.value.__cause__)
            assert not caught.value.temporary
    assert not registry.requests
    assert not secure[0].requests


async def test_what_the_proxy_cannot_reach(proxy: Squid) -> None:
    port = free_port()
    async with through(f"http://{proxy.address}") as client:
        with pytest.raises(UnavailableError, match=f"proxy http://{proxy.address} answers 503") as caught:
            async with client.request("GET", f"https://registry.test:{port}/v2/"):
                pass
        assert caught.value.temporary


async def test_a_proxy_that_is_not_there(registry: RegistrySimulator) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with through(f"http://me:secret@{address}") as client:
        for scheme in ("http", "https"):
            with pytest.raises(UnavailableError, match=f"cannot connect to proxy http://{address}") as caught:
                async with client.request("GET", f"{scheme}://registry.test:{port_of(registry)}/"):
                    pass
            assert caught.value.temporary
            assert "secret" not in repr(caught.value) + repr(caught.value.__cause__)


async def test_what_is_asked_past_the_proxy(proxy: Squid, registry: RegistrySimulator) -> None:
    async with through(f"http://{proxy.address}") as client, client.request("GET", f"{registry.url}/v2/"):
        pass  # loopback is never asked through a proxy
    async with through(f"http://{proxy.address}", NO_PROXY="registry.test") as client:
        with pytest.raises(UnavailableError, match="cannot be resolved"):
            async with client.request("GET", "http://registry.test:1/v2/"):
                pass
    assert not asked_of(proxy, port_of(registry))


async def test_tokens_and_redirects_go_through_it_too(
    proxy: Squid, registry: RegistrySimulator, tmp_path: Path
) -> None:
    async with RegistrySimulator() as tokens, RegistrySimulator() as storage:
        registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        storage.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        ports = {each: port_of(each) for each in (registry, tokens, storage)}
        registry.protection = Bearer(realm=f"http://tokens.test:{ports[tokens]}/token")
        registry.tokens.add("token-0")
        registry.on("/manifests/", redirect(f"http://storage.test:{ports[storage]}/v2/a/b/manifests/t"), skip=1)
        access = RegistryAccess(tls_verify=False, registries_conf_dir=tmp_path / "none")
        environ = {"HOME": str(tmp_path), "http_proxy": proxy.address, "https_proxy": proxy.address}
        async with RegistryClient(access, environ=environ) as client:
            source = RegistrySource(client, parse_reference(f"registry.test:{ports[registry]}/a/b:t"))
            assert (await source.manifest()).raw == RAW
        for simulator, name in ((tokens, "tokens"), (storage, "storage")):
            [line] = await logged(proxy, ports[simulator])
            assert line.startswith(f"200 GET http://{name}.test:{ports[simulator]}/")
            assert "authorization" not in simulator.requests[0].headers
