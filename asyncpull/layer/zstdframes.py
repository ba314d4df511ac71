"""The outer structure of zstd data (RFC 8878, section 3.1), so that it can be cut into runs of bounded contents.

::

    frame       magic, header, blocks up to one marked as the last, checksum (4 bytes, if the header says so)
    header      descriptor (1), window (0 or 1), dictionary ID (0, 1, 2, 4), contents size (0, 1, 2, 4, 8)
    block       3 bytes: last? (1 bit), type (2 bits), size (21 bits); then 1 byte for a repeated byte, else size bytes
    skippable   magic 0x184D2A5?, size (4 bytes), so many bytes

A block becomes at most the smaller of the window and 128 KiB; one that stands as it is, or a repeated byte, becomes
what its size says. Four bytes can so become 128 KiB, which is why input alone is no measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncpull.errors import MalformedLayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _Reader = Callable[[bytes, int], tuple[int, int]]

__all__ = ["FrameWalker"]

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"
_BLOCK_LIMIT: Final = 128 << 10
# Counted for any block: keeps runs of empty ones short as well.
_BLOCK_LEAST: Final = 1 << 10
_REPEATED: Final = 1
_COMPRESSED: Final = 2
_RESERVED: Final = 3


class FrameWalker:
    """Cuts zstd data, which comes in pieces of any size, into runs that each become at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        # The end of a block that began in the run before comes on top of what is counted.
        self._budget = limit - _BLOCK_LIMIT
        self._head = b""
        self._rest = 0
        self._next: _Reader = self._frame
        self._block_limit = 0
        self._has_checksum = False

    @property
    def between_frames(self) -> bool:
        """Whether the data may end here."""
        return self._next == self._frame and not self._rest and not self._head

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield ``data`` in runs; the head of an element that is not complete is held back for the next time.

        Raises MalformedLayerError.
        """
        if self._head:
            data, self._head = self._head + data, b""
        start, end, becomes = 0, len(data), 0
        at = min(self._rest, end)
        self._rest -= at
        while at < end:
            size, contents = self._next(data, at)
            if not size:
                self._head = data[at:]
                break
            if becomes + contents > self._budget and at > start:
                yield data[start:at]
                start, becomes = at, 0
            becomes += contents
            at += size
        if at > end:
            self._rest, at = at - end, end
        if at > start:
            yield data[start:at]

    # Each of these reads the element at ``at``: its size and what it becomes, in bytes; size 0 if more must be seen.

    def _frame(self, data: bytes, at: int) -> tuple[int, int]:
        head = data[at : at + 18]
        if len(head) < 5:
            return 0, 0
        if head[0] & 0xF0 == 0x50 and head[1:4] == _SKIPPABLE:
            return (8 + int.from_bytes(head[4:8], "little"), 0) if len(head) >= 8 else (0, 0)
        if head[:4] != _MAGIC:
            raise MalformedLayerError("bytes after the compressed data that are no further frame of it")
        descriptor = head[4]
        has_window = not descriptor & 0x20
        size_at = 5 + has_window + (0, 1, 2, 4)[descriptor & 3]
        size_length = (0 if has_window else 1, 2, 4, 8)[descriptor >> 6]
        if len(head) < size_at + size_length:
            return 0, 0
        if has_window:
            base = 1 << (10 + (head[5] >> 3))
            window = base + base // 8 * (head[5] & 7)
        else:
            window = int.from_bytes(head[size_at : size_at + size_length], "little") + 256 * (size_length == 2)
        self._block_limit = min(window, _BLOCK_LIMIT)
        self._has_checksum = bool(descriptor & 4)
        self._next = self._block
        return size_at + size_length, 0

    def _block(self, data: bytes, at: int) -> tuple[int, int]:
        if len(data) - at < 3:
            return 0, 0
        head = int.from_bytes(data[at : at + 3], "little")
        kind, size = head >> 1 & 3, head >> 3
        if kind == _RESERVED or size > _BLOCK_LIMIT:
            raise MalformedLayerError("the compressed data is damaged: a block that cannot be")
        if head & 1:
            self._next = self._checksum if self._has_checksum else self._frame
        contents = self._block_limit if kind == _COMPRESSED else size
        return 3 + (1 if kind == _REPEATED else size), max(contents, _BLOCK_LEAST)

    def _checksum(self, data: bytes, at: int) -> tuple[int, int]:
        self._next = self._frame
        return 4, 0
