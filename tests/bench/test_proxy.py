"""The proxy does to connections what it is told, and nothing to the bytes that it passes on."""

from __future__ import annotations

import http.client
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from bench.proxy import Faults, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = bytes(range(256)) * 8192  # 2 MiB


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that the proxy has cut."""


@contextmanager
def behind(faults: Faults) -> Iterator[str]:
    """A server with the proxy before it."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with proxy(f"127.0.0.1:{server.server_port}", faults) as address:
                yield address
        finally:
            server.shutdown()
            thread.join()


def _get(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    connection.request("GET", "/v2/a/blobs/sha256:0")
    response = connection.getresponse()
    return response.status, response.read()


def test_bytes_pass_unchanged_and_connections_stay() -> None:
    with behind(Faults(round_trip=0.02)) as address:
        connection = http.client.HTTPConnection(address, timeout=20)
        assert [_get(connection) for _ in range(3)] == [(200, BODY)] * 3
        connection.close()


def test_some_connections_are_reset_in_the_middle_the_same_ones_in_every_run() -> None:
    faults = Faults(cut_one_in=2, cut_from=100_000, cut_to=1_000_000)
    expected = [faults.cut_after(number) for number in range(6)]
    assert any(expected)
    assert not all(expected)

    with behind(faults) as address:
        for limit in expected:
            connection = http.client.HTTPConnection(address, timeout=20)
            if limit is None:
                assert _get(connection) == (200, BODY)
            else:
                with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                    _get(connection)
            connection.close()


def test_every_third_request_is_refused_and_the_connection_stays() -> None:
    with behind(Faults(refuse_one_in=3)) as address:
        connection = http.client.HTTPConnection(address, timeout=20)
        assert [_get(connection)[0] for _ in range(6)] == [200, 200, 429, 200, 200, 429]
        connection.request("GET", "/")
        assert connection.getresponse().read() == BODY
        connection.close()


def test_a_refusal_says_when_to_come_again() -> None:
    with behind(Faults(refuse_one_in=1)) as address:
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, response.headers["Retry-After"], response.read()) == (429, "1", b"")
        connection.close()


@pytest.mark.parametrize("faults", [Faults(), Faults(refuse_one_in=5)])
def test_who_tries_tls_is_told_at_once_that_there_is_none(faults: Faults) -> None:
    with behind(faults) as address:
        connection = http.client.HTTPSConnection(address, timeout=20, context=ssl.create_default_context())
        with pytest.raises(ssl.SSLError):
            connection.request("GET", "/v2/")


def test_what_is_cut_depends_on_the_number_of_the_connection_alone() -> None:
    faults = Faults(cut_one_in=3)
    cuts = [faults.cut_after(number) for number in range(300)]

    assert cuts == [faults.cut_after(number) for number in range(300)]
    assert 60 < sum(cut is not None for cut in cuts) < 140
    assert all(faults.cut_from <= cut < faults.cut_to for cut in cuts if cut is not None)
    assert {Faults().cut_after(number) for number in range(100)} == {None}
