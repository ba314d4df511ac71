"""The HTTP client by itself: origins, redirects, limits, and what its errors say and do not say."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import ssl
import subprocess
import traceback
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import DocumentTooLargeError, StoreError, TemporaryError, UnavailableError
from asyncpull.http import HttpClient, HttpTimeouts, Stream
from tests.support.registry_faults import chunked, cut, header, redirect, slow_head, stall, status, until_close
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.support.registry_faults import Fault

SECRET = "X-Signature=do-not-show"


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    async with HttpClient(HttpTimeouts(connect=5, headers=5, idle=5)) as made:
        yield made


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[RegistrySimulator]:
    """A simulator that shows a certificate which it signed itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with RegistrySimulator(tls=context) as simulator:
        yield simulator


async def test_every_request_says_who_we_are_and_wants_no_compression(
    registry: RegistrySimulator, client: HttpClient
) -> None:
    async with client.request("GET", f"{registry.url}/v2/", headers={"Accept": "x/y"}) as response:
        assert await response.read(10, "it") == b"{}"
        assert (response.status, response.content_length, response.is_foreign) == (200, 2, False)
        assert response.headers["content-TYPE"] == "application/json"
        assert repr(response) == f"<HttpResponse 200 {registry.url}/v2/>"
    [request] = registry.requests
    sent = {name: value for name, value in request.headers.items() if name != "host"}
    assert sent.pop("user-agent").startswith("asyncpull/")
    assert sent == {"accept": "x/y", "accept-encoding": "identity"}


async def test_urls_are_sent_as_they_are_and_user_information_is_not(
    registry: RegistrySimulator, client: HttpClient
) -> None:
    target = "/v2/a%2Fb%20c?x=%2B+y&sig=a/b%3D%3d"
    async with client.request("GET", f"http://me:secret@{registry.address}{target}"):
        pass
    [request] = registry.requests
    assert request.target == target
    assert "authorization" not in request.headers


async def test_authorization_follows_within_the_origin(registry: RegistrySimulator, client: HttpClient) -> None:
    registry.on("/one", redirect("two/../three?x"))
    async with client.request("GET", f"{registry.url}/v2/one", authorization="Basic eDp5"):
        pass
    assert [request.target for request in registry.requests] == ["/v2/one", "/v2/three?x"]
    assert [request.headers["authorization"] for request in registry.requests] == ["Basic eDp5"] * 2


@pytest.mark.parametrize("framing", [(), (chunked,), (until_close,)])
async def test_a_body_over_the_limit(
    registry: RegistrySimulator, client: HttpClient, framing: tuple[Fault, ...]
) -> None:
    registry.on("/v2/", status(200, b"x" * 1001), *framing, times=None)
    async with client.request("GET", f"{registry.url}/v2/") as response:
        with pytest.raises(DocumentTooLargeError, match="the limit"):
            await response.read(1000, "it")
    async with client.request("GET", f"{registry.url}/v2/") as response:
        assert len(await response.read(1001, "it")) == 1001
    async with client.request("GET", f"{registry.url}/v2/") as response:
        assert await response.excerpt(7) == b"x" * 7


async def test_an_encoded_body_has_no_excerpt(registry: RegistrySimulator, client: HttpClient) -> None:
    registry.on("/v2/", header("Content-Encoding", "br"))
    async with client.request("GET", f"{registry.url}/v2/") as response:
        with pytest.raises(UnavailableError, match="'br'"):
            response.chunks()


async def test_an_excerpt_ends_where_the_connection_does(registry: RegistrySimulator, client: HttpClient) -> None:
    registry.on("/v2/", status(500, b"12345"), cut(3))
    async with client.request("GET", f"{registry.url}/v2/") as response:
        assert await response.excerpt(100) in (b"", b"123")


@pytest.mark.parametrize("fault", [slow_head, stall(1)])
async def test_silence_is_temporary(registry: RegistrySimulator, fault: Fault) -> None:
    registry.on("/v2/", fault)
    async with HttpClient(HttpTimeouts(connect=5, headers=0.1, idle=0.1)) as client:
        with pytest.raises(TemporaryError, match=r"nothing was received in time|only 1 bytes came"):
            async with client.request("GET", f"{registry.url}/v2/") as response:
                await response.read(100, "it")


async def test_no_error_shows_a_signed_url(registry: RegistrySimulator, client: HttpClient) -> None:
    registry.on("/v2/one", redirect(f"/v2/?{SECRET}"))
    registry.on(SECRET, header("Content-Length", "70000"), cut(1))
    with pytest.raises(UnavailableError) as caught:
        async with client.request("GET", f"{registry.url}/v2/one") as response:
            await response.read(100_000, "it")
    assert caught.value.temporary
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"nonsense\r\n\r\n", "not HTTP"), (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not HTTP")],
)
async def test_what_is_not_http_is_not_shown(client: HttpClient, answer: bytes, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnavailableError, match=said) as caught:
            async with client.request("GET", f"http://127.0.0.1:{port}/?{SECRET}"):
                pass
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert "nonsense" not in shown


async def test_a_certificate_is_verified_unless_told_otherwise(secure: RegistrySimulator, client: HttpClient) -> None:
    with pytest.raises(UnavailableError, match="certificate is refused") as caught:
        async with client.request("GET", f"{secure.url}/v2/"):
            pass
    assert not caught.value.temporary
    assert "--tls-verify=false" in (caught.value.hint or "")
    async with client.request("GET", f"{secure.url}/v2/", verify_tls=False) as response:
        assert response.status == 200


async def test_https_is_not_left_for_http(
    secure: RegistrySimulator, registry: RegistrySimulator, client: HttpClient
) -> None:
    secure.on("/v2/", redirect(f"{registry.url}/v2/?{SECRET}"), times=None)
    with pytest.raises(UnavailableError, match="from https to http") as caught:
        async with client.request("GET", f"{secure.url}/v2/", verify_tls=False):
            pass
    assert SECRET not in str(caught.value)
    assert not registry.requests
    async with client.request("GET", f"{secure.url}/v2/", verify_tls=False, plain_http=True) as response:
        assert (response.status, response.is_foreign) == (200, True)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_body_is_sent_within_the_origin_only(
    registry: RegistrySimulator, client: HttpClient, code: int
) -> None:
    registry.on("/token", redirect("/v2/there", code), method="POST")
    async with client.request("POST", f"{registry.url}/token", body=b"refresh_token=secret") as response:
        await response.read(1000, "it")
    first, second = registry.requests
    assert (first.method, first.body) == ("POST", b"refresh_token=secret")
    assert first.headers["content-length"] == "20"
    again = ("POST", b"refresh_token=secret") if code in (307, 308) else ("GET", b"")
    assert (second.method, second.body) == again
    async with RegistrySimulator() as elsewhere:
        registry.on("/token", redirect(f"{elsewhere.url}/token", 307), method="POST")
        with pytest.raises(UnavailableError, match="with secrets is redirected to"):
            async with client.request("POST", f"{registry.url}/token", body=b"refresh_token=secret"):
                pass
        assert not elsewhere.requests


@pytest.mark.parametrize("target", ["//[", "http://h:port/", "mailto:x"])
async def test_what_is_no_url_is_followed_by_nobody(
    registry: RegistrySimulator, client: HttpClient, target: str
) -> None:
    registry.on("/one", redirect(target))
    with pytest.raises(UnavailableError, match="leads to something that is no http or https URL"):
        async with client.request("GET", f"{registry.url}/v2/one"):
            pass
    registry.on("/two", status(202, Location=target))
    async with client.request("GET", f"{registry.url}/v2/two") as response:
        with pytest.raises(UnavailableError, match="leads to something that is no http or https URL"):
            _ = response.location


async def test_private_headers_stay_at_home(registry: RegistrySimulator, client: HttpClient) -> None:
    async with RegistrySimulator() as elsewhere:
        registry.on("/one", redirect(f"{elsewhere.url}/v2/"))
        async with client.request(
            "GET", f"{registry.url}/v2/one", headers={"Accept": "x/y"}, private_headers={"X-Key": "secret"}
        ) as response:
            assert response.is_foreign
        assert registry.requests[0].headers["x-key"] == "secret"
        assert elsewhere.requests[0].headers["accept"] == "x/y"
        assert "x-key" not in elsewhere.requests[0].headers


async def serving(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> asyncio.Server:
    """A server that answers by hand."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        except OSError:
            pass  # the client left
        finally:
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_headers_without_an_end_are_left(client: HttpClient) -> None:
    sent = 0

    async def one_endless_line(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while sent < 64 << 20:
            writer.write(bytes([120]) * 65536)
            sent += 65536
            await writer.drain()

    async def endless_lines(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while sent < 64 << 20:
            writer.write(b"".join(b"X-%d: y\r\n" % (sent + number) for number in range(5000)))
            sent += 5000 * 10
            await writer.drain()

    for answer in (one_endless_line, endless_lines):
        sent = 0
        async with await serving(answer) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(UnavailableError, match="not HTTP"):
                async with client.request("GET", f"http://127.0.0.1:{port}/"):
                    pass
        assert sent < 32 << 20


async def test_headers_that_dribble_are_left_in_time() -> None:
    async def dribble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in itertools.count():
            writer.write(b"X-%d: y\r\n" % number)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with await serving(dribble) as server, HttpClient(HttpTimeouts(headers=0.3)) as client:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((TemporaryError, UnavailableError)) as caught:
            async with client.request("GET", f"http://127.0.0.1:{port}/"):
                pass
        assert caught.value.temporary


async def test_it_is_used_inside_its_context() -> None:
    with pytest.raises(RuntimeError):
        async with HttpClient().request("GET", "http://127.0.0.1:1/"):
            pass


# Bodies that are sent as they come


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error


async def test_a_stream_arrives_as_it_was_made(registry: RegistrySimulator, client: HttpClient) -> None:
    body = Stream(300_003, lambda: pieces(b"abc", bytes(300_000)))
    async with client.request("PUT", f"{registry.url}/v2/x", body=body) as response:
        assert response.status == 404
    [request] = registry.requests
    assert request.body == b"abc" + bytes(300_000)
    assert request.headers["content-length"] == "300003"


async def test_what_a_stream_raises_is_raised_and_the_body_left_unfinished(
    registry: RegistrySimulator, client: HttpClient
) -> None:
    trouble = StoreError("gone")
    with pytest.raises(StoreError) as caught:
        async with client.request("PUT", registry.url, body=Stream(10, lambda: pieces(b"abc", error=trouble))):
            pass
    assert caught.value is trouble
    assert registry.requests == []


async def test_a_stream_is_closed_also_if_nobody_wanted_all_of_it(client: HttpClient) -> None:
    """The server answers and closes while the body is on its way."""
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            closed.set()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await asyncio.wait_for(closed.wait(), 60)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with client.request("PUT", url, body=Stream(1 << 40, endless)) as response:
            assert response.status == 413
        assert closed.is_set()


async def test_a_server_that_takes_nothing_more_is_given_up() -> None:
    stuck = asyncio.Event()

    async def take_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stuck.wait()
        writer.close()

    async with (
        await asyncio.start_server(take_nothing, "127.0.0.1", 0, limit=1024) as server,
        HttpClient(HttpTimeouts(connect=5, headers=5, idle=0.2, verdict=60)) as client,
    ):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(TemporaryError):
            async with client.request("PUT", url, body=Stream(64 << 20, lambda: pieces(*[bytes(1 << 20)] * 64))):
                pass
        stuck.set()


async def test_credentials_belong_to_the_home_that_is_named(registry: RegistrySimulator, client: HttpClient) -> None:
    async with RegistrySimulator() as elsewhere:
        for url in ("/v2/", f"{registry.url}/v2/", f"{elsewhere.url}/v2/"):
            async with client.request("GET", url, home=registry.url, authorization="Basic me") as response:
                assert response.is_foreign is (elsewhere.address in url)
        assert [request.headers.get("authorization") for request in registry.requests] == ["Basic me"] * 2
        assert [request.headers.get("authorization") for request in elsewhere.requests] == [None]
    with pytest.raises(UnavailableError, match="from https"):
        async with client.request("GET", f"{registry.url}/v2/", home="https://127.0.0.1:1"):
            pass


async def test_a_location_is_absolute(registry: RegistrySimulator, client: HttpClient) -> None:
    registry.on("/v2/", status(202, Location="x?a=%2F"))
    async with client.request("GET", f"{registry.url}/v2/") as response:
        assert response.location == f"{registry.url}/v2/x?a=%2F"
    async with client.request("GET", f"{registry.url}/v2/") as response:
        assert response.location is None
