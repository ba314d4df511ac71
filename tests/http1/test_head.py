"""Heads: as servers sent them, as the standard library reads them, and what is none."""

from __future__ import annotations

import http.client
import io
import string
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.http1.head import (
    HEAD_LIMIT,
    Headers,
    NotHttpError,
    head_length,
    parse_response_head,
    request_head,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# What docker's registry 2.8 and nginx 1.22 sent.
REGISTRY = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 1042\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"
    b"Docker-Content-Digest: sha256:24b2d53b10069b5ba72f99acf4896f36d7e5e2923fd0a4a9d4d39d5619745f88\r\n"
    b"Docker-Distribution-Api-Version: registry/2.0\r\n"
    b'Etag: "sha256:24b2d53b10069b5ba72f99acf4896f36d7e5e2923fd0a4a9d4d39d5619745f88"\r\n'
    b"Date: Mon, 30 Nov 2026 04:07:56 GMT\r\n\r\n"
)
NGINX = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 30 Nov 2026 04:08:01 GMT\r\nContent-Type: text/html\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
)


def test_a_head_of_a_registry() -> None:
    head = parse_response_head(REGISTRY)
    assert (head.status, head.is_persistent) == (200, True)
    assert dict(head.headers) == {
        "content-length": "1042",
        "content-type": "application/vnd.oci.image.manifest.v1+json",
        "docker-content-digest": "sha256:24b2d53b10069b5ba72f99acf4896f36d7e5e2923fd0a4a9d4d39d5619745f88",
        "docker-distribution-api-version": "registry/2.0",
        "etag": '"sha256:24b2d53b10069b5ba72f99acf4896f36d7e5e2923fd0a4a9d4d39d5619745f88"',
        "date": "Mon, 30 Nov 2026 04:07:56 GMT",
    }


def test_a_head_of_nginx() -> None:
    head = parse_response_head(NGINX)
    assert (head.status, head.is_persistent) == (200, True)
    assert head.headers["Server"] == "nginx/1.22.1"
    assert head.headers.tokens("transfer-encoding") == ["chunked"]


def test_headers_that_come_several_times() -> None:
    head = parse_response_head(b"HTTP/1.1 401 \r\nWWW-Authenticate: Basic\r\nX: 1\r\nwww-authenticate: Bearer \r\n\r\n")
    assert head.headers.all("WWW-AUTHENTICATE") == ("Basic", "Bearer")
    assert head.headers["WWW-Authenticate"] == "Basic"
    assert (len(head.headers), "x" in head.headers, "y" in head.headers) == (2, True, False)
    assert head.headers.all("none") == ()
    assert "Bearer" not in repr(head.headers)


@pytest.mark.parametrize(
    ("raw", "is_persistent"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\n\r\n", False),
    ],
)
def test_whether_the_connection_goes_on(raw: bytes, is_persistent: bool) -> None:
    assert parse_response_head(raw).is_persistent is is_persistent


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"HTTP/1.1 200\r\nX: a\r\n\r\n", "a"),
        (b"HTTP/1.1 200 OK\nX: a\n\n", "a"),
        (b"HTTP/1.1 200 OK\r\nX:a\r\n\r\n", "a"),
        (b"HTTP/1.1 200 OK\r\nX: \t a b \t\r\n\r\n", "a b"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\n\r\n", "a b c"),
        (b"HTTP/1.1 200 OK\r\nX:\r\n\r\n", ""),
        (b"HTTP/1.1 200 caf\xe9\r\nX: caf\xe9\r\n\r\n", b"caf\xe9".decode(errors="surrogateescape")),
    ],
)
def test_what_is_taken(raw: bytes, value: str) -> None:
    assert parse_response_head(raw).headers["x"] == value


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 0200 OK\r\n\r\n",
        b"HTTP/1.1 200 a\rb\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    ],
)
def test_what_is_no_head(raw: bytes) -> None:
    with pytest.raises(NotHttpError) as caught:
        parse_response_head(raw)
    assert "nonsense" not in str(caught.value)


def test_where_a_head_ends() -> None:
    raw = REGISTRY + b"body\r\n\r\n"
    assert head_length(raw) == len(REGISTRY)
    for end in range(len(REGISTRY)):
        assert head_length(raw[:end]) is None
        assert head_length(raw, end) == len(REGISTRY)  # what is searched already is not searched again, but for its end
    assert head_length(b"HTTP/1.1 200 OK\n\nx") == 17


def test_a_head_has_a_limit() -> None:
    begun = b"HTTP/1.1 200 OK\r\nX: "
    fits = begun + b"x" * (HEAD_LIMIT - len(begun) - 4) + b"\r\n\r\n"
    assert head_length(fits + b"x" * 100) == HEAD_LIMIT
    assert head_length(fits[:HEAD_LIMIT]) == HEAD_LIMIT
    for long in (begun + b"x" * HEAD_LIMIT, fits[:-4] + b"x\r\n\r\n"):
        with pytest.raises(NotHttpError, match="more than 131072 bytes"):
            head_length(long)


_NAME = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=9)
_VALUE = st.text(string.ascii_letters + string.digits + " ,;=\"'()/:", max_size=30).map(str.strip)


@given(st.integers(200, 599), st.lists(st.tuples(_NAME, _VALUE), max_size=9))
def test_it_reads_what_the_standard_library_reads(status: int, fields: list[tuple[str, str]]) -> None:
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in fields), "", ""]
    raw = "\r\n".join(lines).encode()

    class Socket:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(raw)

    theirs = http.client.HTTPResponse(Socket(), method="HEAD")  # type: ignore[arg-type]
    theirs.begin()
    ours = parse_response_head(raw)
    assert (ours.status, head_length(raw)) == (theirs.status, len(raw))
    for name, _ in fields:
        assert list(ours.headers.all(name)) == theirs.headers.get_all(name)


def test_the_head_of_a_request() -> None:
    fields = {"Host": "registry.example", "X-Empty": "", "X": b"caf\xe9".decode(errors="surrogateescape")}
    assert request_head("GET", "/v2/a%2Fb?x=%2B+y&sig=a/b%3D%3d", fields) == (
        b"GET /v2/a%2Fb?x=%2B+y&sig=a/b%3D%3d HTTP/1.1\r\nHost: registry.example\r\nX-Empty: \r\nX: caf\xe9\r\n\r\n"
    )


def test_a_target_stays_in_its_line() -> None:
    assert request_head("GET", "/a b\r\nX: y\x00é", {}) == b"GET /a%20b%0D%0AX:%20y%00%C3%A9 HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("GET /", {}),
        ("", {}),
        ("GET", {"X": "a\r\nY: b"}),
        ("GET", {"X": "a\nY: b"}),
        ("GET", {"X": "\x00"}),
        ("GET", {"X: a\r\nY": "b"}),
        ("GET", {"": "b"}),
    ],
)
def test_what_would_break_out_of_its_line_is_not_sent(method: str, fields: Mapping[str, str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        request_head(method, "/", fields)


def test_lists_in_headers() -> None:
    headers = Headers([("Connection", "Keep-Alive ,, x"), ("connection", "\tclose ")])
    assert headers.tokens("connection") == ["keep-alive", "x", "close"]
    assert headers.tokens("none") == []
