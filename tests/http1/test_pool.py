"""Connections to servers that answer by hand: kept, closed, lost, read ahead of, and made through proxies."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import uvloop

from asyncpull.errors import UnavailableError
from asyncpull.http import HttpClient, HttpTimeouts, Stream
from asyncpull.http1.connection import BodyCutError, Connection, ConnectionLostError
from asyncpull.http1.head import NotHttpError
from asyncpull.http1.pool import Pool, ProxyRefusedError, Route, Tunnel
from asyncpull.proxies import Proxies
from tests.support.certificates import make_authority
from tests.support.docker_registry import free_port
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Server:
    """Answers each connection by the next of ``serve``, the last one for all that follow."""

    def __init__(self, *serve: Serve) -> None:
        self._serve = list(serve)
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.route = Route("", 0)

    def close(self) -> None:
        """Close every connection."""
        for writer in self._open:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        serve = self._serve.pop(0) if len(self._serve) > 1 else self._serve[0]
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()


@asynccontextmanager
async def serving(*serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(*serve)
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0, ssl=tls) as listening:
        server.route = Route("127.0.0.1", listening.sockets[0].getsockname()[1])
        yield server
        server.close()  # since Python 3.12 whoever leaves waits for all connections


def answers(*raw: bytes, then_closes: bool = False) -> Serve:
    """Send one of ``raw`` after each request; then wait until the client leaves, or leave first."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in raw:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(each)
            await writer.drain()
        if not then_closes:
            await reader.read()

    return serve


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool(5)
    yield made
    await made.aclose()


async def body_of(connection: Connection) -> bytes:
    whole = b""
    while piece := await connection.piece():
        whole += piece
    return whole


async def exchange(pool: Pool, route: Route, method: str = "GET") -> tuple[int, bytes]:
    """The status and the body of what is there; the connection is given back."""
    connection = pool.take(route) or await pool.connect(route)
    try:
        head = await connection.send(method, ASK)
        return head.status, await body_of(connection)
    finally:
        pool.give_back(route, connection)


async def test_one_connection_is_enough(pool: Pool) -> None:
    async with serving(answers(OK, OK, b"HTTP/1.1 204 None\r\n\r\n", OK)) as server:
        assert [await exchange(pool, server.route) for _ in range(4)] == [
            (200, b"ok"),
            (200, b"ok"),
            (204, b""),
            (200, b"ok"),
        ]
        assert server.connections == 1


async def test_what_comes_before_the_final_answer_is_read_past(pool: Pool) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with serving(answers(early + OK)) as server:
        assert await exchange(pool, server.route) == (200, b"ok")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"and more",
    ],
)
async def test_what_does_not_go_on_is_not_kept(pool: Pool, raw: bytes) -> None:
    async with serving(answers(raw)) as server:
        for number in range(1, 3):
            assert await exchange(pool, server.route) == (200, b"ok")
            assert server.connections == number


async def test_who_has_not_read_what_is_here_can_ask_again(pool: Pool) -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    async with serving(answers(OK, long, OK)) as server:
        for _ in range(2):
            connection = pool.take(server.route) or await pool.connect(server.route)
            assert (await connection.send("GET", ASK)).status == 200
            while not connection.is_idle:
                await asyncio.sleep(0.01)
            pool.give_back(server.route, connection)
        assert await exchange(pool, server.route) == (200, b"ok")
        assert server.connections == 1


async def test_a_body_that_was_left_is_not_kept(pool: Pool) -> None:
    async with serving(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")) as server:
        connection = await pool.connect(server.route)
        assert (await connection.send("GET", ASK)).status == 200
        assert await connection.piece() == b"ok"
        pool.give_back(server.route, connection)
        assert pool.take(server.route) is None


async def test_a_server_that_speaks_without_being_asked_is_not_asked_again(pool: Pool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers(OK, then_closes=True)(reader, writer)
        writer.write(OK)
        await reader.read()

    async with serving(serve) as server:
        for _ in range(2):
            connection = pool.take(server.route) or await pool.connect(server.route)
            await connection.send("GET", ASK)
            assert await body_of(connection) == b"ok"
            pool.give_back(server.route, connection)
            await asyncio.sleep(0.05)
        assert server.connections == 2


async def test_a_connection_that_is_lost_while_it_is_kept_is_not_taken(pool: Pool) -> None:
    async with serving(answers(OK, then_closes=True)) as server:
        for number in range(1, 3):
            assert await exchange(pool, server.route) == (200, b"ok")
            await asyncio.sleep(0.05)
            assert server.connections == number


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent"])
async def test_a_connection_that_is_lost_before_the_answer(pool: Pool, sent: bytes) -> None:
    async with serving(answers(sent, then_closes=True)) as server:
        connection = await pool.connect(server.route)
        with pytest.raises(ConnectionLostError) as caught:
            await connection.send("GET", ASK)
        assert caught.value.is_unanswered is (sent == b"")
        with pytest.raises(ConnectionLostError):
            await connection.send("GET", ASK)
        with pytest.raises(ConnectionLostError):
            await connection.write(b"x")


async def test_a_body_that_is_cut_is_told_after_what_came(pool: Pool) -> None:
    async with serving(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", then_closes=True)) as server:
        connection = await pool.connect(server.route)
        await connection.send("GET", ASK)
        await asyncio.sleep(0.05)
        assert await connection.piece() == b"ok"
        for _ in range(2):
            with pytest.raises(BodyCutError):
                await connection.piece()


async def test_a_body_until_the_end_of_the_connection(pool: Pool) -> None:
    async with serving(answers(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1 << 20), then_closes=True)) as server:
        assert await exchange(pool, server.route) == (200, bytes(1 << 20))
        assert pool.take(server.route) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"x" * (200 << 10),
    ],
)
async def test_what_is_not_http_is_left(pool: Pool, raw: bytes) -> None:
    async with serving(answers(raw)) as server:
        connection = await pool.connect(server.route)
        with pytest.raises(NotHttpError):
            await connection.send("GET", ASK)


async def test_chunks_that_are_none_are_left(pool: Pool) -> None:
    async with serving(answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nx\r\n")) as server:
        connection = await pool.connect(server.route)
        await connection.send("GET", ASK)
        with pytest.raises(NotHttpError):
            await body_of(connection)


async def test_an_answer_before_the_question_is_none(pool: Pool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await reader.read()

    async with serving(serve) as server:
        connection = await pool.connect(server.route)
        await asyncio.sleep(0.05)
        with pytest.raises(NotHttpError):
            await connection.send("GET", ASK)


async def test_no_more_is_read_ahead_than_a_little(pool: Pool) -> None:
    written = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(1024):
            writer.write(bytes(64 << 10))
            await writer.drain()
            written += 64 << 10

    async with serving(serve) as server:
        connection = await pool.connect(server.route)
        await connection.send("GET", ASK)
        await asyncio.sleep(0.5)
        assert written < 32 << 20  # the sockets' buffers take some, too
        count = 0
        while piece := await connection.piece():
            count += len(piece)
        assert count == 64 << 20


async def test_a_wait_for_a_piece_that_is_given_up_loses_nothing(pool: Pool) -> None:
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", then_closes=True)(reader, writer)
        await go_on.wait()
        writer.write(b"ok")
        await reader.read()

    async with serving(serve) as server:
        connection = await pool.connect(server.route)
        await connection.send("GET", ASK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.piece()
        go_on.set()
        assert await body_of(connection) == b"ok"


async def test_a_pool_that_is_closed_keeps_nothing() -> None:
    pool = Pool(5)
    async with serving(answers(OK, OK)) as server:
        connection = await pool.connect(server.route)
        await connection.send("GET", ASK)
        await body_of(connection)
        await pool.aclose()
        pool.give_back(server.route, connection)
        assert pool.take(server.route) is None
        with pytest.raises(ConnectionLostError):
            await connection.write(b"x")


# Whom it connects to


async def test_the_next_address_of_a_name_is_tried(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """``localhost`` is ::1 first, where nobody listens."""
    async with serving(answers(OK)) as server:
        loop = asyncio.get_running_loop()
        asked: list[str] = []

        async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            asked.append(host)
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            ]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        route = Route("registry.test", server.route.port)
        connections = await asyncio.gather(*(pool.connect(route) for _ in range(3)))
        assert asked == ["registry.test"]  # once for all
        for connection in connections:
            assert (await connection.send("GET", ASK)).status == 200
            connection.close()


async def test_a_name_without_addresses_is_asked_for_again(pool: Pool) -> None:
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await pool.connect(Route("registry.invalid", 80))


async def test_nobody_there(pool: Pool) -> None:
    with pytest.raises(ConnectionRefusedError):
        await pool.connect(Route("127.0.0.1", free_port()))


async def test_a_server_that_begins_no_tls_is_given_up() -> None:
    async with serving(answers()) as server:
        route = Route(server.route.host, server.route.port, ssl.create_default_context())
        with pytest.raises(TimeoutError):
            await Pool(0.1).connect(route)


# As the client uses it


async def test_a_connection_that_was_closed_the_moment_it_is_used(tmp_path: Path) -> None:
    """Nobody knows whether the server saw the request: what can be asked twice is, and nothing else."""

    def closing_at_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        return answers(OK, b"", then_closes=True)(reader, writer)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    async with HttpClient(HttpTimeouts(connect=5, headers=5, idle=5, verdict=5)) as client:

        async def status(method: str, url: str, body: bytes | Stream | None = None) -> int:
            async with client.request(method, url, body=body) as response:
                await response.read(100, "it")
                return response.status

        for method, body, is_repeated in (
            ("GET", None, True),
            ("PUT", b"abc", True),
            ("POST", b"abc", False),
            ("PUT", Stream(3, pieces), False),
        ):
            async with serving(closing_at_the_second, answers(OK)) as server:
                url = f"http://127.0.0.1:{server.route.port}/"
                assert await status("GET", url) == 200
                if is_repeated:
                    assert await status(method, url, body) == 200
                else:
                    with pytest.raises(UnavailableError, match="lost") as caught:
                        await status(method, url, body)
                    assert caught.value.temporary
                assert server.connections == 1 + is_repeated


async def test_a_new_connection_that_is_closed_is_not_tried_again() -> None:
    async with serving(answers(b"", then_closes=True)) as server, HttpClient() as client:
        with pytest.raises(UnavailableError, match="the connection was lost"):
            async with client.request("GET", f"http://127.0.0.1:{server.route.port}/"):
                pass
        assert server.connections == 1


async def test_a_stream_of_another_length_is_found(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    async with RegistrySimulator() as registry, HttpClient() as client:
        with pytest.raises(UnavailableError, match="cannot be made"):
            async with client.request("PUT", registry.url, body=Stream(4, pieces)):
                pass
        assert registry.requests == []


# Proxies; the real one is in test_forward_proxy.py


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the tunnel that is asked for, to a port of this machine."""
    request = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
    method, target, _ = request.split()
    host, _, port = target.rpartition(":")
    assert (method, host) == ("CONNECT", "registry.test")
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(b"HTTP/1.0 200 Connection established\r\n\r\n")

    async def carry(source: asyncio.StreamReader, goal: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            goal.write(data)
            await goal.drain()
        goal.close()

    await asyncio.gather(carry(reader, there_writer), carry(there_reader, writer), return_exceptions=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_tunnel_in_tls_or_not(
    tmp_path: Path, proxy_scheme: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asked_by_a_tunnel(tmp_path, proxy_scheme))


async def asked_by_a_tunnel(tmp_path: Path, proxy_scheme: str) -> None:
    authority = make_authority(tmp_path / "authority")
    shown = authority.server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown.path, shown.key)
    async with (
        RegistrySimulator(tls=context) as registry,
        serving(relay, tls=context if proxy_scheme == "https" else None) as proxy,
    ):
        proxies = Proxies.from_environ({"HTTPS_PROXY": f"{proxy_scheme}://localhost:{proxy.route.port}"})
        url = f"https://registry.test:{registry.address.rpartition(':')[2]}/v2/"
        async with HttpClient(HttpTimeouts(connect=5, headers=5, idle=5), proxies) as client:
            for _ in range(2):
                async with client.request("GET", url, verify_tls=False) as response:
                    assert await response.read(10, "it") == b"{}"
        assert proxy.connections == 1
        assert [request.target for request in registry.requests] == ["/v2/", "/v2/"]


async def test_a_tunnel_that_is_refused(pool: Pool) -> None:
    async with serving(answers(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")) as proxy:
        tunnel = Tunnel("registry.test", "registry.test:443", ssl.create_default_context())
        with pytest.raises(ProxyRefusedError) as caught:
            await pool.connect(Route("127.0.0.1", proxy.route.port, tunnel=tunnel))
        assert caught.value.status == 403
