"""tar-split: everything of a tar stream but the file contents, so that the exact stream can be rebuilt from a tree.

A gzip stream of JSON objects, one per line, of two types (format specification, section 7)::

    {"type":2,"payload":"<base64>","position":0}                                raw bytes of the stream
    {"type":1,"name":"etc/hosts","size":9,"payload":"<crc64>","position":1}     the contents of a file go here

Every member gives one object of type 2 (the padding of the member before, its extension headers, its header) and one
of type 1, also where it has no contents: then without ``size``, and with ``null`` for the CRC. Names that are not UTF-8
stand as base64 in ``name_raw``. The writer's lines are byte for byte those of Go's encoder, which escapes ``<``, ``>``,
``&``, U+2028 and U+2029 for the sake of HTML. The CRC is CRC-64/ISO, big-endian.

Compressed or not is not a choice: readers insist on gzip. Level 0 of ISA-L is a good deal faster than what Go writes,
and the store keeps these files small anyway, since headers are mostly zeros.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

import orjson
from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SplitWriter"]

# JSON gathered before it is compressed and handed on, in bytes.
_GATHER: Final = 1 << 18
_GZIP: Final = 31
_LEVEL: Final = 0

_PLAIN_NAME: Final = bytes(set(range(0x20, 0x80)) - set(b'"\\<>&'))
_HTML_ESCAPES: Final = (
    (b"&", b"\\u0026"),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


class SplitWriter:
    """Writes the tar-split of one layer to ``sink``, in gzip pieces of at most some 100 KiB.

    Obligations: hand over the stream in order, and close() at its end. The sink must take all it is given.
    """

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._lines: list[bytes] = []
        self._gathered = 0
        self._position = 0
        self._compressor = isal_zlib.compressobj(_LEVEL, wbits=_GZIP)

    def add_member(self, raw: bytes, name: bytes, size: int, crc: int) -> None:
        """Add ``raw`` (all bytes since the last contents, up to the end of the header) and the member itself.

        ``size`` and ``crc`` are those of its contents; the CRC of nothing does not matter.
        """
        position = self._position
        self._position = position + 2
        text = b2a_base64(raw, newline=False)
        key = b',"name":"%b"' % name if not name.translate(None, _PLAIN_NAME) and name else _name_member(name)
        if size:
            line = b'{"type":2,"payload":"%b","position":%d}\n{"type":1%b,"size":%d,"payload":"%b","position":%d}\n' % (
                text,
                position,
                key,
                size,
                b2a_base64(crc.to_bytes(8), newline=False),
                position + 1,
            )
        else:
            line = b'{"type":2,"payload":"%b","position":%d}\n{"type":1%b,"payload":null,"position":%d}\n' % (
                text,
                position,
                key,
                position + 1,
            )
        self._lines.append(line)
        self._gathered += len(line)
        if self._gathered >= _GATHER:
            self._flush()

    def add_raw(self, raw: bytes) -> None:
        """Add bytes that belong to no member: the end marker and what follows it."""
        line = b'{"type":2,"payload":"%b","position":%d}\n' % (b2a_base64(raw, newline=False), self._position)
        self._position += 1
        self._lines.append(line)
        self._gathered += len(line)
        if self._gathered >= _GATHER:
            self._flush()

    def close(self) -> None:
        """Hand on what is left, and the end of the gzip stream."""
        self._flush()
        self._sink(self._compressor.flush())

    def _flush(self) -> None:
        piece = self._compressor.compress(b"".join(self._lines))
        self._lines.clear()
        self._gathered = 0
        if piece:
            self._sink(piece)


def _name_member(name: bytes) -> bytes:
    """``,"name":…`` of a name that needs escapes, base64, or (being empty) nothing at all."""
    if not name:
        return b""
    try:
        text = orjson.dumps(name.decode())
    except UnicodeDecodeError:
        return b',"name_raw":"%b"' % b2a_base64(name, newline=False)
    for character, escape in _HTML_ESCAPES:
        text = text.replace(character, escape)
    return b',"name":%b' % text
