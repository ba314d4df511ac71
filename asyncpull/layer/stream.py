"""A tar stream in, its members and their contents out; and its tar-split on the way.

States, with what is awaited (nothing is acted on before it is there as a whole)::

    HEADER      a block; two where the first is all zeros; with their data where it is an extension header
    CONTENTS    any bytes of the payload
    TRAILER     everything after two zero blocks; belongs to the stream, the diff ID and the tar-split, means nothing

Extension headers (``x``: PAX records; ``L``, ``K``: GNU long name, long link) act on the next member and are no members
themselves. A later ``x`` replaces an earlier one. A global header (``g``) is a member without contents: its records
mean nothing to anybody, but it has a name in the tar-split, and what ``x``, ``L``, ``K`` came before it is forgotten.

The end, as Go's reader takes it: two zero blocks; one and then nothing; nothing at all at a header's place; also the
end in the middle of a payload's padding (Go forgets that part of the padding in the tar-split; here it is kept).
Anything else is malformed: an incomplete header or payload, a block of zeros and then one that is not.

What the tar-split cannot represent is refused here: sparse files (type ``S``, PAX), and hard links that claim contents,
which are there for some writers and not for others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastcrc.crc64 import go_iso

from asyncpull.errors import MalformedLayerError, UnsupportedMemberError
from asyncpull.layer.header import (
    BLOCK,
    DIRECTORY,
    FIFO,
    GLOBAL_RECORDS,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    HARD_LINK,
    OLD_REGULAR,
    RECORDS,
    REGULAR,
    Member,
    parse_header,
)
from asyncpull.layer.pax import apply_records, is_sparse, parse_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.layer.split import SplitWriter

__all__ = ["Member", "Part", "TarStream"]

Part = tuple[Member | None, memoryview]
"""A member and the first of its contents, which may be all or nothing of them; or without a member, more of them."""

_EXTENSIONS: Final = frozenset((RECORDS, GLOBAL_RECORDS, GNU_LONG_NAME, GNU_LONG_LINK))
# Data of one extension header: the limit of Go and of libarchive.
_EXTENSION_LIMIT: Final = 1 << 20
# All extension headers of one member, with their data: three at most make sense.
_RAW_LIMIT: Final = 4 << 20
# A segment of the trailer; what Go takes at most.
_TRAILER_PIECE: Final = 1 << 20
_ZEROS: Final = bytes(BLOCK)
_NOTHING: Final = memoryview(b"")
_REPACK: Final = "rebuild the image with a tool that writes plain tar members"


class TarStream:
    """Reads a tar stream that comes in pieces of any size.

    Obligations: exhaust what feed() returns before the next feed(), close() at the end of the stream, and close the
    SplitWriter after that. After an error the object is of no use.
    """

    def __init__(self, split: SplitWriter) -> None:
        self._split = split
        self._fed = 0
        # Bytes of the raw segment in progress: how many of them are done with, how many it takes to go on.
        self._held = bytearray()
        self._done = 0
        self._wanted = BLOCK
        # What extension headers say of the next member.
        self._extended = False
        self._records: dict[bytes, bytes] = {}
        self._long_name = self._long_link = b""
        # The member whose contents are under way, with its raw segment.
        self._member: Member | None = None
        self._raw = b""
        self._left = 0
        self._crc = 0
        self._in_trailer = False

    def feed(self, data: bytes) -> Iterator[Part]:
        """Yield the members that are complete with ``data``, each with what there is of its contents, and more of them.

        Contents are views of what was fed; together they have ``member.size`` bytes, over as many calls as it takes.

        Raises MalformedLayerError, and UnsupportedMemberError for what a tar-split cannot represent.
        """
        base = self._fed
        self._fed += len(data)
        if self._left:
            return self._continue(data, base)
        if self._in_trailer:
            self._add_trailer(data)
            return iter(())
        if self._held:
            base -= len(self._held)
            self._held += data
            if len(self._held) < self._wanted:
                return iter(())
            data = bytes(self._held)
            self._held.clear()
        return self._walk(data, base, 0, self._done)

    def close(self) -> None:
        """End the stream.

        Raises MalformedLayerError if it may not end here.
        """
        if self._member is not None:
            raise MalformedLayerError("the layer ends in contents", self._member.name, self._member.position)
        rest = self._held[self._done :] if not self._in_trailer else b""
        if rest and rest != _ZEROS:
            raise MalformedLayerError("the layer ends in a header", None, self._fed - len(rest))
        if self._held:
            self._split.add_raw(bytes(self._held))
            self._held.clear()

    def _continue(self, data: bytes, base: int) -> Iterator[Part]:
        """Go on with contents, and with what comes after them."""
        piece = memoryview(data)[: self._left]
        length = len(piece)
        self._crc = go_iso(piece, self._crc)
        self._left -= length
        if piece:
            yield None, piece
        if self._left or self._member is None:
            return
        member, self._member = self._member, None
        self._split.add_member(self._raw, member.name, member.size, self._crc)
        yield from self._walk(data, base, length, length + -member.size % BLOCK)

    def _walk(self, data: bytes, base: int, start: int, at: int) -> Iterator[Part]:
        """Walk the members of ``data``, which begins at ``base`` of the stream.

        ``start`` is where the raw segment in progress begins, ``at`` where the next header is.
        """
        view, end, wanted = memoryview(data), len(data), 0
        add_member = self._split.add_member
        while (stop := at + BLOCK) <= end:
            block = data[at:stop]
            if block == _ZEROS:
                if stop + BLOCK > end:
                    wanted = stop + BLOCK
                    break
                self._end(data, start, stop, base)
                return
            member = parse_header(block, base + at)
            if member.kind != REGULAR or self._extended or member.size < 0:
                if member.kind in _EXTENSIONS:
                    wanted = stop + _extension_size(member)
                    if wanted > end:
                        break
                    if self._extend(member, data[stop:wanted]):
                        add_member(data[start:wanted], member.name, 0, 0)
                        yield member, _NOTHING
                        start = wanted
                    at = wanted + (stop - wanted) % BLOCK
                    if at - start > _RAW_LIMIT:
                        raise MalformedLayerError("too many extension headers", member.name, member.position)
                    continue
                self._settle(member)
            size = member.size
            if not size:
                add_member(data[start:stop], member.name, 0, 0)
                yield member, _NOTHING
                start = at = stop
                continue
            at = stop + size
            contents = view[stop:at]
            if at > end:
                self._begin(member, data[start:stop], contents)
                yield member, contents
                return
            add_member(data[start:stop], member.name, size, go_iso(contents))
            yield member, contents
            start = at
            at += -size % BLOCK
        self._held += view[start:]
        self._done = at - start
        self._wanted = max(wanted, at + BLOCK) - start

    def _begin(self, member: Member, raw: bytes, contents: memoryview) -> None:
        """Keep a member whose contents have only begun."""
        self._member, self._raw = member, raw
        self._crc = go_iso(contents)
        self._left = member.size - len(contents)

    def _end(self, data: bytes, start: int, second: int, base: int) -> None:
        """Begin the trailer with two blocks, of which the first is all zeros and ``second`` is where the other is."""
        stop = second + BLOCK
        if data[second:stop] != _ZEROS:
            raise MalformedLayerError("a single block of zeros before a header", None, base + second - BLOCK)
        self._split.add_raw(data[start:stop])
        self._in_trailer = True
        self._add_trailer(data[stop:])

    def _add_trailer(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= _TRAILER_PIECE:
            self._split.add_raw(bytes(self._held[:_TRAILER_PIECE]))
            del self._held[:_TRAILER_PIECE]

    def _extend(self, header: Member, data: bytes) -> bool:
        """Remember an extension header; whether it is a global one, and thereby a member by itself."""
        if header.kind == GNU_LONG_NAME:
            self._long_name = data.partition(b"\0")[0]
        elif header.kind == GNU_LONG_LINK:
            self._long_link = data.partition(b"\0")[0]
        else:
            self._records = parse_records(data, header.position)
        self._extended = header.kind != GLOBAL_RECORDS
        if self._extended:
            return False
        apply_records(header, self._records, header.position)
        header.size = 0
        self._forget()
        return True

    def _forget(self) -> None:
        self._extended = False
        self._records = {}
        self._long_name = self._long_link = b""

    def _settle(self, member: Member) -> None:
        """Apply the extension headers to ``member``, and the rules of its type."""
        if member.size < 0 and not HARD_LINK <= member.kind <= FIFO:
            raise MalformedLayerError("a negative size", member.name, member.position)
        if self._extended:
            apply_records(member, self._records, member.position)
            member.name = self._long_name or member.name
            member.link_name = self._long_link or member.link_name
            sparse = is_sparse(self._records)
            self._forget()
            if sparse:
                raise UnsupportedMemberError("a sparse file", member.name, member.position, _REPACK)
        if member.kind == OLD_REGULAR:
            member.kind = DIRECTORY if member.name.endswith(b"/") else REGULAR
        if member.kind == GNU_SPARSE:
            raise UnsupportedMemberError("a sparse file", member.name, member.position, _REPACK)
        if member.kind == HARD_LINK and member.size > 0:
            raise UnsupportedMemberError("a hard link with contents", member.name, member.position, _REPACK)
        if HARD_LINK <= member.kind <= FIFO:
            member.size = 0
        elif member.size < 0:
            raise MalformedLayerError("a negative size", member.name, member.position)


def _extension_size(header: Member) -> int:
    if not 0 <= header.size <= _EXTENSION_LIMIT:
        raise MalformedLayerError("an extension header of a bad size", header.name, header.position)
    return header.size
