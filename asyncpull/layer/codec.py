"""Compressions of a layer: compressed bytes in, the tar stream out in bounded pieces.

What compression it is, the first bytes tell; media types lie too often. How others read the same bytes decides what is
accepted here (tried with podman 5.8.6):

- gzip, bzip2 and xz: any number of members, one after another; their contents count as one stream. That makes eStargz
  an ordinary layer, too.
- zstd: any number of frames; skippable ones mean nothing. That makes zstd:chunked an ordinary layer. A blob that
  *begins* with a skippable frame is none.
- After a member, zeros are padding (Go's gzip refuses them, gzip(1), pigz and podman with pigz ignore them). Anything
  else is an error, as with Go; pigz would ignore that too.
- Nothing compressed is a stream of nothing: an empty blob is an empty layer.

Bombs: a piece has at most 1 MiB, and is made when it is asked for; all of them together stay below ``Ceilings``. The
decoders of gzip, bzip2 and xz stop at a given length. zstandard's cannot, so its input is cut at block boundaries: what
a block can become is written in its header.
"""

from __future__ import annotations

import bz2
import lzma
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

import zstandard
from isal import igzip_lib, isal_zlib

from asyncpull.errors import MalformedLayerError
from asyncpull.layer.ceilings import USUAL
from asyncpull.layer.zstdframes import FrameWalker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncpull.layer.ceilings import Ceilings

__all__ = ["Compression", "Inflater", "detect"]

PIECE: Final = 1 << 20
_SMALL_SLICE: Final = 1 << 13
_HEAD_SLICE: Final = 1 << 6
_XZ_MEMORY: Final = 128 << 20

_GZIP_CRC: Final = 2
_GZIP_EXTRA: Final = 4
_GZIP_NAME: Final = 8
_GZIP_COMMENT: Final = 16
_GZIP_TEXT_LIMIT: Final = 512


class Compression(IntEnum):
    """The compressions by the numbers of containers/storage, as they stand in ``layers.json``."""

    NONE = 0
    BZIP2 = 1
    GZIP = 2
    XZ = 3
    ZSTD = 4


_MAGIC: Final = {
    Compression.BZIP2: b"BZh",
    Compression.GZIP: b"\x1f\x8b\x08",
    Compression.XZ: b"\xfd7zXZ\x00",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
}


def detect(prefix: bytes) -> Compression:
    """The compression of a blob that begins with ``prefix``; six bytes are enough for certainty."""
    for compression, magic in _MAGIC.items():
        if prefix.startswith(magic):
            return compression
    return Compression.NONE


class Inflater:
    """Turns the bytes of a blob into its tar stream.

    Obligations: exhaust what feed() returns before the next feed(), and close() at the end of the blob. After an error
    the object is of no use. The interpreter lock is free while it inflates.
    """

    def __init__(self, ceilings: Ceilings | None = None) -> None:
        self._ceilings = ceilings or USUAL
        self._taken = self._made = 0
        self._prefix = b""
        self._decoder: _Decoder | None = None
        self.compression = Compression.NONE

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield pieces of the tar stream, of at most 1 MiB each.

        Raises MalformedLayerError, and CeilingError instead of a piece too many.
        """
        self._taken += len(data)
        if self._decoder is None:
            data = self._prefix + data
            if any(len(data) < len(magic) and magic.startswith(data) for magic in _MAGIC.values()):
                self._prefix = data
                return iter(())
            self.compression = detect(data)
            self._decoder = _DECODERS[self.compression]()
        return self._measured(self._decoder.feed(data))

    def close(self) -> None:
        """End the blob.

        Raises MalformedLayerError if that is in the middle of something.
        """
        if self._decoder is not None:
            self._decoder.close()
        elif self._prefix:
            raise _truncated()

    def _measured(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._made += len(piece)
            self._ceilings.check_inflated(self._taken, self._made)
            yield piece


class _Decoder(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class _Plain:
    """What is not compressed."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if len(data) <= PIECE:
            yield data
            return
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]

    def close(self) -> None:
        pass


class _MemberDecoder(Protocol):
    """What the decoders of isal, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Format(Protocol):
    """One format of compressed members."""

    error: type[Exception]

    def head_length(self, head: bytes) -> int:
        """How many bytes at the beginning of ``head`` are a member's head; 0 if more must be seen."""
        ...

    def open(self, head: bytes) -> _MemberDecoder:
        """A decoder for what follows ``head``."""
        ...


class _Members:
    """Members of one format, one after another, with zeros after them."""

    def __init__(self, form: _Format) -> None:
        self._format = form
        self._member: _MemberDecoder | None = None
        self._member_size = 0
        # As much of the next member's head as there is yet.
        self._head = b""
        # How much is given to a decoder at once: what it leaves over at its end is copied, for every member again.
        self._slice = PIECE

    def feed(self, data: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(data):
            if self._member is None:
                start = self._open(data, start)
                continue
            part = data[start : start + self._slice]
            start += len(part)
            self._member_size += len(part)
            yield from self._inflate(self._member, part)
            if self._member.eof:
                surplus = len(self._member.unused_data)
                start -= surplus
                self._slice = min(max(2 * (self._member_size - surplus), _SMALL_SLICE), PIECE)
                self._member = None
            else:
                self._slice = min(2 * self._slice, PIECE)

    def close(self) -> None:
        if self._member is not None or self._head:
            raise _truncated()

    def _open(self, data: bytes, start: int) -> int:
        """Skip zeros and a head, and open the member when that is complete; where in ``data`` to go on."""
        if not self._head and not data[start]:
            return len(data) - len(data[start:].lstrip(b"\0"))
        size = _HEAD_SLICE
        while True:
            head = self._head + data[start : start + size]
            length = self._format.head_length(head)
            if length:
                start += length - len(self._head)
                self._member, self._member_size, self._head = self._format.open(head[:length]), 0, b""
                return start
            if start + size >= len(data):
                self._head = head
                return len(data)
            size *= 8

    def _inflate(self, member: _MemberDecoder, data: bytes) -> Iterator[bytes]:
        try:
            while True:
                piece = member.decompress(data, PIECE)
                if piece:
                    yield piece
                if member.eof or member.needs_input:
                    return
                data = b""
        except self._format.error as error:
            raise _damaged(error) from error


class _Zstd:
    """Frames of zstd, cut so that no call makes more than a piece."""

    def __init__(self) -> None:
        self._walker = FrameWalker(PIECE)
        self._frames = zstandard.ZstdDecompressor().decompressobj(write_size=PIECE, read_across_frames=True)

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            for run in self._walker.feed(data):
                piece = self._frames.decompress(run)
                if piece:
                    yield piece
        except zstandard.ZstdError as error:
            raise _damaged(error) from error

    def close(self) -> None:
        if not self._walker.between_frames:
            raise _truncated()


def _truncated() -> MalformedLayerError:
    return MalformedLayerError("the compressed data ends too early")


def _damaged(what: object) -> MalformedLayerError:
    return MalformedLayerError(f"the compressed data is damaged: {what}")


class _Gzip:
    """gzip, whose heads (RFC 1952, section 2.3) are read here: ISA-L loses track of their CRC when they come in parts.

    As with Go, reserved flags mean nothing, and texts in the head are limited.
    """

    error: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # the stubs take the class for an instance

    def head_length(self, head: bytes) -> int:
        _expect(Compression.GZIP, head)
        if len(head) < 10:
            return 0
        flags, at = head[3], 10
        if flags & _GZIP_EXTRA:
            at += 2 + int.from_bytes(head[at : at + 2], "little")
        for flag in (_GZIP_NAME, _GZIP_COMMENT):
            if flags & flag:
                end = head.find(0, at, at + _GZIP_TEXT_LIMIT)
                if end < 0 and len(head) >= at + _GZIP_TEXT_LIMIT:
                    raise _damaged("a gzip header with a text too long")
                at = end + 1 if end >= 0 else len(head) + 1
        if flags & _GZIP_CRC:
            crc = int.from_bytes(head[at : at + 2], "little")
            if len(head) >= at + 2 and crc != isal_zlib.crc32(head[:at]) & 0xFFFF:
                raise _damaged("a gzip header with a wrong CRC")
            at += 2
        return at if len(head) >= at else 0

    def open(self, head: bytes) -> _MemberDecoder:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP_NO_HDR_VER)


class _Bzip2:
    error: type[Exception] = OSError

    def head_length(self, head: bytes) -> int:
        return _expect(Compression.BZIP2, head)

    def open(self, head: bytes) -> _MemberDecoder:
        member = bz2.BZ2Decompressor()
        member.decompress(head)
        return member


class _Xz:
    error: type[Exception] = lzma.LZMAError

    def head_length(self, head: bytes) -> int:
        return _expect(Compression.XZ, head)

    def open(self, head: bytes) -> _MemberDecoder:
        member = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        member.decompress(head)
        return member


def _expect(compression: Compression, head: bytes) -> int:
    """The length of the magic that ``head`` begins with, 0 if it is not complete."""
    magic = _MAGIC[compression]
    if not magic.startswith(head[: len(magic)]):
        raise MalformedLayerError("bytes after the compressed data that are no further member of it")
    return len(magic) if len(head) >= len(magic) else 0


_DECODERS: Final[dict[Compression, Callable[[], _Decoder]]] = {
    Compression.NONE: _Plain,
    Compression.BZIP2: lambda: _Members(_Bzip2()),
    Compression.GZIP: lambda: _Members(_Gzip()),
    Compression.XZ: lambda: _Members(_Xz()),
    Compression.ZSTD: _Zstd,
}
