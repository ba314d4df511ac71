"""Bodies: where they end, however they are cut into pieces, and what is no framing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.http1.body import Body, ChunkedBody, SizedBody, UnsizedBody, body_after, content_length
from asyncpull.http1.head import Headers, NotHttpError, parse_response_head

# What nginx 1.22 sent after its head.
NGINX = (
    b"99\r\n<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n"
    b"<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n"
    b"</body>\r\n</html>\r\n\r\n0\r\n\r\n"
)


def body(method: str, *lines: str, status: int = 200) -> Body:
    return body_after(method, parse_response_head("\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode()))


def fed(taker: Body, data: bytes, cuts: list[int]) -> bytes:
    """What ``taker`` takes of ``data``, cut at those places."""
    taken, ends = b"", [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in zip([0, *ends], ends, strict=False):
        for piece in taker.feed(data[start:end]) if end > start else []:
            assert piece
            taken += piece
    return taken


@pytest.mark.parametrize(
    ("method", "lines", "status", "kind", "is_done"),
    [
        ("GET", ["Content-Length: 3"], 200, SizedBody, False),
        ("GET", ["Content-Length: 0"], 200, SizedBody, True),
        ("GET", ["Content-Length: 3, 3", "Content-Length: 3"], 200, SizedBody, False),
        ("HEAD", ["Content-Length: 3"], 200, SizedBody, True),
        ("HEAD", ["Transfer-Encoding: chunked"], 200, SizedBody, True),
        ("GET", ["Content-Length: 3"], 204, SizedBody, True),
        ("GET", ["Content-Length: 3"], 304, SizedBody, True),
        ("CONNECT", ["Content-Length: 3"], 200, SizedBody, True),
        ("CONNECT", ["Content-Length: 3"], 407, SizedBody, False),
        ("GET", ["Transfer-Encoding: Chunked"], 200, ChunkedBody, False),
        ("GET", ["Transfer-Encoding: chunked", "Content-Length: 3"], 200, ChunkedBody, False),
        ("GET", [], 200, UnsizedBody, False),
    ],
)
def test_which_body_follows(method: str, lines: list[str], status: int, kind: type, is_done: bool) -> None:
    found = body(method, *lines, status=status)
    assert (type(found), found.is_done, found.has_excess) == (kind, is_done, False)


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: x"],
        ["Content-Length: -1"],
        ["Content-Length: +1"],
        ["Content-Length: 1 2"],
        ["Content-Length: 0x1"],
        ["Content-Length: 1, 2"],
        ["Content-Length: 1", "Content-Length: 2"],
        ["Content-Length: " + "9" * 20],
        ["Content-Length: ٣"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: identity"],
    ],
)
def test_what_is_no_framing(lines: list[str]) -> None:
    with pytest.raises(NotHttpError):
        body("GET", *lines)


def test_a_length_is_promised_or_not() -> None:
    assert content_length(Headers([("Content-Length", "12")])) == 12
    assert content_length(Headers([])) is None
    assert content_length(Headers([("Content-Length", "12"), ("Transfer-Encoding", "chunked")])) is None


@given(st.lists(st.integers(0, 9999), max_size=9))
def test_a_body_of_some_length(cuts: list[int]) -> None:
    taker = SizedBody(300)
    assert fed(taker, bytes(299), cuts) == bytes(299)
    assert (taker.is_done, taker.has_excess) == (False, False)
    taker.end()
    assert not taker.is_done
    assert taker.feed(b"ab") == [b"a"]
    assert (taker.is_done, taker.has_excess) == (True, True)


def test_a_body_until_the_end() -> None:
    taker = UnsizedBody()
    assert (taker.feed(b"abc"), taker.is_done) == ([b"abc"], False)
    taker.end()
    assert taker.is_done


@given(st.lists(st.integers(0, 9999), max_size=9))
def test_the_chunks_of_nginx(cuts: list[int]) -> None:
    taker = ChunkedBody()
    assert fed(taker, NGINX, cuts) == NGINX[4:-7]
    assert (taker.is_done, taker.has_excess) == (True, False)
    taker.feed(b"HTTP/1.1")
    assert taker.has_excess


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b";a=b", b" ; a", b"\t;"]),
    st.sampled_from([b"\r\n", b"\n"]),
    st.lists(st.sampled_from([b"X: y", b"Digest: sha-256=abc"]), max_size=3),
    st.lists(st.integers(0, 9999), max_size=9),
)
def test_chunks_however_they_are_cut(
    chunks: list[bytes], extension: bytes, line_end: bytes, trailer: list[bytes], cuts: list[int]
) -> None:
    sent = b"".join(b"%X%s%s%s%s" % (len(chunk), extension, line_end, chunk, line_end) for chunk in chunks)
    sent += b"000" + line_end + b"".join(line + line_end for line in trailer) + line_end
    taker = ChunkedBody()
    assert fed(taker, sent, cuts) == b"".join(chunks)
    assert (taker.is_done, taker.has_excess) == (True, False)
    short = ChunkedBody()
    fed(short, sent[:-1], cuts)
    assert not short.is_done


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1 \r2\r\n",
        b"1" * 16 + b"\r\n",
        b"1\r\nabc",
        b"1\r\na\r\r\n",
        b"1;" + b"x" * 5000,
        b"0\r\n" + b"X: y\r\n" * 6000,
    ],
)
def test_what_are_no_chunks(data: bytes) -> None:
    with pytest.raises(NotHttpError):
        ChunkedBody().feed(data + b"\n")
