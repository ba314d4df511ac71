"""Targets: what a server answers to a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.http1.body import body_after, content_length
from asyncpull.http1.head import NotHttpError, head_length, parse_response_head
from tests.fuzz.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator


def _answer(data: bytes) -> None:
    """The body is the same, however it is cut into pieces."""
    length = head_length(data)
    if length is None:
        raise NotHttpError("no end")
    head = parse_response_head(data[:length])
    assert 100 <= head.status <= 999
    for name, value in head.headers.items():
        assert name == name.lower()
        assert value == head.headers[name.upper()]
        assert not {"\r", "\n", "\0"} & set(value)
    whole, cut, rest = body_after("GET", head), body_after("GET", head), data[length:]
    if whole.is_done:
        return
    pieces = whole.feed(rest) if rest else []
    others = [piece for at in range(len(rest)) for piece in cut.feed(rest[at : at + 1])]
    assert b"".join(pieces) == b"".join(others)
    assert whole.is_done == cut.is_done
    promised = content_length(head.headers)
    assert promised is None or sum(map(len, pieces)) <= promised


def _seeds() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n1\r\nx\r\n0\r\nTrailer: x\r\n\r\n"
    yield b"HTTP/1.0 404 Not Found\nX: folded\n value\n\nuntil the end"


TARGETS = (
    Target(
        "http-answer",
        _answer,
        (NotHttpError,),
        _seeds,
        (b"HTTP/1.1 ", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
    ),
)
