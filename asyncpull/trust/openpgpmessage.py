"""The frame of a signed message in OpenPGP, read before anybody parses it further (RFC 4880, 4 and 5.6; RFC 9580).

A message may be compressed, and what that makes of four megabytes is up to who sent it. So compression is taken off
here, once and with a limit, and what is left must be one signed piece of data and nothing else: packets that hold
packets, a second signature or data behind the end are refused, which no signature that anybody makes has.
"""

from __future__ import annotations

import bz2
import zlib

from asyncpull.errors import DocumentError

CONTENT_LIMIT = 1 << 20
"""Bytes that a message may have when it is not compressed any more; a claim has a few hundred."""

_SIGNATURE, _ONE_PASS, _COMPRESSED, _MARKER, _LITERAL = 2, 4, 8, 10, 11
# A signature around data comes before it, or in two parts on both sides.
_FORMS = ([_SIGNATURE, _LITERAL], [_ONE_PASS, _LITERAL, _SIGNATURE])


def plain_message(message: bytes) -> bytes:
    """``message`` without its compression: one piece of data, signed once. Raises DocumentError."""
    packets = _packets(message)
    if [tag for tag, _ in packets] == [_COMPRESSED]:
        message = _decompressed(packets[0][1])
        packets = _packets(message)
    tags = [tag for tag, _ in packets if tag != _MARKER]
    if tags not in _FORMS:
        raise DocumentError(f"the message is not one piece of data signed once: its packets are {tags[:8]}")
    return message


def _packets(message: bytes) -> list[tuple[int, bytes]]:
    """Tag and body of each packet."""
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(message):
        first = message[position]
        if not first & 0x80:
            raise DocumentError(f"no packet of OpenPGP begins at byte {position}")
        position += 1
        if first & 0x40:
            tag = first & 0x3F
            body, position = _new_body(message, position)
        else:
            tag = first >> 2 & 0x0F
            body, position = _old_body(message, position, first & 0x03)
        found.append((tag, body))
        if len(found) > 8:
            raise DocumentError("the message has too many packets")
    return found


def _old_body(message: bytes, position: int, kind: int) -> tuple[bytes, int]:
    if kind == 3:  # to the end of the message
        return message[position:], len(message)
    size = 1 << kind
    length = int.from_bytes(_taken(message, position, size))
    position += size
    return _taken(message, position, length), position + length


def _new_body(message: bytes, position: int) -> tuple[bytes, int]:
    body = b""
    while True:
        (first,) = _taken(message, position, 1)
        position += 1
        is_partial = 224 <= first < 255
        if first < 192:
            length = first
        elif first < 224:
            (second,) = _taken(message, position, 1)
            position += 1
            length = ((first - 192) << 8) + second + 192
        elif is_partial:
            length = 1 << (first & 0x1F)
        else:
            length = int.from_bytes(_taken(message, position, 4))
            position += 4
        body += _taken(message, position, length)
        position += length
        if not is_partial:
            return body, position


def _taken(message: bytes, position: int, length: int) -> bytes:
    piece = message[position : position + length]
    if len(piece) != length:
        raise DocumentError("the message ends in the middle of a packet")
    return piece


def _decompressed(body: bytes) -> bytes:
    if not body:
        raise DocumentError("the compressed packet is empty")
    method, data = body[0], body[1:]
    if method == 0:
        return data
    if method not in (1, 2, 3):
        raise DocumentError(f"compression {method} is unknown")
    decompressor = bz2.BZ2Decompressor() if method == 3 else zlib.decompressobj(-15 if method == 1 else 15)
    try:
        content = decompressor.decompress(data, CONTENT_LIMIT + 1)
    except (zlib.error, OSError, EOFError) as error:
        raise DocumentError(f"the compressed data is damaged: {error}") from error
    if len(content) > CONTENT_LIMIT:
        raise DocumentError(f"the message has more than {CONTENT_LIMIT} bytes, which is the limit")
    if not decompressor.eof or decompressor.unused_data:
        raise DocumentError("the compressed data does not end with the message")
    return content
