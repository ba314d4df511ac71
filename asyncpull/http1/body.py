"""The bodies of responses as they come: where they end, and what of the bytes is theirs (RFC 9112 §6 and §7)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from asyncpull.http1.head import NotHttpError

if TYPE_CHECKING:
    from asyncpull.http1.head import Headers, ResponseHead

_LINE_LIMIT: Final = 4 << 10  # bytes of a line with the size of a chunk, and its extensions
_TRAILER_LIMIT: Final = 32 << 10
_LENGTH: Final = re.compile(r"[0-9]{1,19}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304


class Body(Protocol):
    """Takes what follows a head. ``is_done`` at its end; ``has_excess`` if more came after it, which is nobody's."""

    is_done: bool
    has_excess: bool

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body that ``data`` holds. Raises NotHttpError."""
        ...

    def end(self) -> None:
        """The connection has ended in good order, which is the end of some bodies."""
        ...


def body_after(method: str, head: ResponseHead) -> Body:
    """The body of the response to a request of ``method`` (RFC 9112 §6.3). Raises NotHttpError."""
    is_tunnel = method == "CONNECT" and 200 <= head.status < 300
    if method == "HEAD" or head.status in (_NO_CONTENT, _NOT_MODIFIED) or is_tunnel:
        return SizedBody(0)
    codings = head.headers.tokens("Transfer-Encoding")
    if codings:
        if codings != ["chunked"]:
            raise NotHttpError("a transfer coding that nobody asked for")
        return ChunkedBody()
    length = content_length(head.headers)
    return UnsizedBody() if length is None else SizedBody(length)


def content_length(headers: Headers) -> int | None:
    """The length that the headers promise, in bytes; None if they promise none. Raises NotHttpError."""
    if headers.tokens("Transfer-Encoding"):
        return None
    lengths = set(headers.tokens("Content-Length"))
    if not lengths:
        return None
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise NotHttpError("a Content-Length that is none")
    return int(length)


class SizedBody:
    """So many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_done = not length
        self.has_excess = False

    def feed(self, data: bytes) -> list[bytes]:
        """All of it, up to the length."""
        if len(data) > self._left:
            self.has_excess = True
            data = data[: self._left]
        self._left -= len(data)
        self.is_done = not self._left
        return [data] if data else []

    def end(self) -> None:
        """Not the end of this one."""


class UnsizedBody:
    """Whatever comes until the connection ends."""

    def __init__(self) -> None:
        self.is_done = False
        self.has_excess = False

    def feed(self, data: bytes) -> list[bytes]:
        """All of it."""
        return [data]

    def end(self) -> None:
        """This is its end."""
        self.is_done = True


class ChunkedBody:
    """Chunks with their sizes before them; extensions and trailers are read past (RFC 9112 §7.1)."""

    def __init__(self) -> None:
        self.is_done = False
        self.has_excess = False
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""  # what is here of a line
        self._trailer = 0
        self._take_line = self._take_size

    def feed(self, data: bytes) -> list[bytes]:
        """What of it lies within chunks."""
        pieces, position = [], 0
        while position < len(data):
            if self.is_done:
                self.has_excess = True
                break
            if self._left:
                piece = data[position : position + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                position += len(piece)
                continue
            end = data.find(b"\n", position) + 1 or len(data)
            self._line += data[position:end]
            position = end
            if len(self._line) > _LINE_LIMIT:
                raise NotHttpError("a line between chunks that is too long")
            if self._line.endswith(b"\n"):
                line, self._line = self._line, b""
                self._take_line(line)
        return pieces

    def end(self) -> None:
        """Not the end of this one."""

    def _take_size(self, line: bytes) -> None:
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise NotHttpError("a chunk without a size")
        self._left = int(found[1], 16)
        self._take_line = self._take_end if self._left else self._take_trailer

    def _take_end(self, line: bytes) -> None:
        if line not in (b"\r\n", b"\n"):
            raise NotHttpError("a chunk that is longer than it says")
        self._take_line = self._take_size

    def _take_trailer(self, line: bytes) -> None:
        self._trailer += len(line)
        if self._trailer > _TRAILER_LIMIT:
            raise NotHttpError("a trailer that is too long")
        self.is_done = line in (b"\r\n", b"\n")
