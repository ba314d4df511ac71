"""The frame of messages in OpenPGP: what is let through, and that nothing large is made of something small."""

from __future__ import annotations

import bz2
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import DocumentError
from asyncpull.trust.openpgpmessage import CONTENT_LIMIT, plain_message


def new(tag: int, body: bytes) -> bytes:
    """A packet in the new form."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4) + body


def old(tag: int, body: bytes) -> bytes:
    """A packet in the old form, with a length of two bytes."""
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2) + body


def endless(tag: int, body: bytes) -> bytes:
    """A packet that goes on to the end of the message."""
    return bytes([0x80 | tag << 2 | 3]) + body


def partial(tag: int, body: bytes) -> bytes:
    """A packet in pieces: two of 512 bytes, and the rest."""
    assert 1024 <= len(body) < 1024 + 192
    pieces = [bytes([0xE9]) + body[:512], bytes([0xE9]) + body[512:1024], bytes([len(body) - 1024]) + body[1024:]]
    return bytes([0xC0 | tag]) + b"".join(pieces)


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


SIGNATURE, ONE_PASS, COMPRESSED, MARKER, LITERAL = 2, 4, 8, 10, 11
SIGNED = new(ONE_PASS, b"o") + new(LITERAL, b"data") + new(SIGNATURE, b"s")


@pytest.mark.parametrize(
    "message",
    [
        SIGNED,
        old(SIGNATURE, b"s") + old(LITERAL, b"data"),
        new(SIGNATURE, b"s") + endless(LITERAL, b"data"),
        new(MARKER, b"PGP") + SIGNED,
        new(ONE_PASS, b"o") + partial(LITERAL, b"x" * 1100) + new(SIGNATURE, b"s"),
        bytes([0xC0 | ONE_PASS, 1, 0x6F, 0xC0 | LITERAL, 0xC1, 0x0A]) + b"x" * 458 + new(SIGNATURE, b"s"),
    ],
)
def test_signed_once(message: bytes) -> None:
    assert plain_message(message) == message
    for number, compressed in enumerate((message, raw_deflate(message), zlib.compress(message), bz2.compress(message))):
        for packet in (new, old, endless):
            assert plain_message(packet(COMPRESSED, bytes([number]) + compressed)) == message


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"-----BEGIN PGP SIGNED MESSAGE-----",
        new(LITERAL, b"data"),
        new(1, b"encrypted") + new(18, b"data"),
        SIGNED + new(SIGNATURE, b"t"),
        new(ONE_PASS, b"p") + SIGNED + new(SIGNATURE, b"t"),
        SIGNED + new(LITERAL, b"more"),
        SIGNED + b"\0",
        SIGNED[:-1],
        new(COMPRESSED, b"\0" + SIGNED) + SIGNED,
        new(COMPRESSED, b"\0" + new(COMPRESSED, b"\0" + SIGNED)),
        new(ONE_PASS, b"o") + new(COMPRESSED, b"\0" + new(LITERAL, b"data")) + new(SIGNATURE, b"s"),
        new(COMPRESSED, b""),
        new(COMPRESSED, b"\x04" + SIGNED),
        new(COMPRESSED, b"\x02" + SIGNED),
        new(COMPRESSED, b"\x03" + SIGNED),
        new(COMPRESSED, b"\x02" + zlib.compress(SIGNED)[:-1]),
        new(COMPRESSED, b"\x02" + zlib.compress(SIGNED) + b"more"),
        bytes([0xC0 | LITERAL, 0xE9]) + b"x" * 512,
        bytes([0xC0 | LITERAL]),
        new(MARKER, b"PGP") * 20 + SIGNED,
    ],
)
def test_refused(message: bytes) -> None:
    with pytest.raises(DocumentError):
        plain_message(message)


@pytest.mark.parametrize("method", [1, 2, 3])
def test_a_bomb_is_left_alone(method: int) -> None:
    large = new(ONE_PASS, b"o") + new(LITERAL, bytes(64 << 20)) + new(SIGNATURE, b"s")
    body = raw_deflate(large) if method == 1 else zlib.compress(large) if method == 2 else bz2.compress(large)
    assert len(body) < 100_000
    with pytest.raises(DocumentError, match=f"more than {CONTENT_LIMIT} bytes"):
        plain_message(new(COMPRESSED, bytes([method]) + body))


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: SIGNED[: len(tail)] + tail))
def test_whatever_comes_is_one_message_or_refused(message: bytes) -> None:
    with suppress(DocumentError):
        assert plain_message(message)
