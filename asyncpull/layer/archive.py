"""The other way round: one member in, its header blocks out, the same bytes every time.

A plain member is one ustar block. What a block cannot say comes in a PAX header before it, as Go's writer does it:
names that are not ASCII or too long (a path of up to 255 bytes may go into name and prefix), numbers that are too
large, times before 1970 or with a fraction of a second, extended attributes. Records are sorted by key; no names of
users and groups are written, for they belong to the machine.

What ``layer.header`` and ``layer.pax`` read back is the member that was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncpull.errors import UnsupportedMemberError
from asyncpull.layer.header import BLOCK, DIRECTORY, RECORDS

if TYPE_CHECKING:
    from asyncpull.layer.header import Member

__all__ = ["END", "format_member", "padding"]

END: Final = bytes(2 * BLOCK)
"""What ends an archive."""

_NAME: Final = 100
_PREFIX: Final = 155
_NS: Final = 1_000_000_000
_MAX_SHORT: Final = 8**7 - 1
_MAX_LONG: Final = 8**11 - 1
_MAX_RECORDS: Final = 1 << 20


def padding(size: int) -> bytes:
    """What follows contents of ``size`` bytes, up to the next block."""
    return bytes(-size % BLOCK)


def format_member(member: Member) -> bytes:
    """The header blocks of a member; contents, if it has any, and their padding come after them.

    ``position`` and ``atime_ns`` are not written. The name of a directory is given its slash.
    Raises UnsupportedMemberError for attributes that no record can hold.
    """
    records: dict[bytes, bytes] = {}
    name = member.name + b"/" if member.kind == DIRECTORY and member.name[-1:] != b"/" else member.name
    prefix, last = _split(name)
    if not last:
        records[b"path"] = name
        last = _ascii(name)
    link = member.link_name
    if len(link) > _NAME or not link.isascii():
        records[b"linkpath"] = link
        link = _ascii(link)
    seconds, fraction = divmod(member.mtime_ns, _NS)
    if fraction or not 0 <= seconds <= _MAX_LONG:
        records[b"mtime"] = _time(member.mtime_ns)
        seconds = min(max(seconds, 0), _MAX_LONG)
    for key, number, most in (
        (b"uid", member.uid, _MAX_SHORT),
        (b"gid", member.gid, _MAX_SHORT),
        (b"size", member.size, _MAX_LONG),
    ):
        if number > most:
            records[key] = b"%d" % number
    for attribute, value in member.xattrs.items():
        if b"=" in attribute:
            raise UnsupportedMemberError("an extended attribute with '=' in its name", member.name)
        records[b"SCHILY.xattr." + attribute] = value
    header = b"".join(
        (
            last.ljust(_NAME, b"\0"),
            b"%07o\0" % (member.mode & 0o7777),
            b"%07o\0" % (member.uid if member.uid <= _MAX_SHORT else 0),
            b"%07o\0" % (member.gid if member.gid <= _MAX_SHORT else 0),
            b"%011o\0" % (member.size if member.size <= _MAX_LONG else 0),
            b"%011o\0" % seconds,
            b" " * 8,
            bytes((member.kind,)),
            link.ljust(_NAME, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0" % member.dev_major,
            b"%07o\0" % member.dev_minor,
            prefix.ljust(_PREFIX, b"\0"),
            bytes(12),
        )
    )
    return _extension(member.name, records) + _with_checksum(header)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """``name`` as prefix and name of a ustar block; two empty ones if it does not fit."""
    if not name.isascii():
        return b"", b""
    if len(name) <= _NAME:
        return b"", name
    # The slash of a directory stays with its name.
    at = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if at <= 0 or len(name) - at - 1 > _NAME:
        return b"", b""
    return name[:at], name[at + 1 :]


def _ascii(text: bytes) -> bytes:
    """Something that a reader without PAX can show."""
    return bytes(byte for byte in text if byte < 0x80)[:_NAME].rstrip(b"/") or b"-"


def _time(time_ns: int) -> bytes:
    sign = b"-" if time_ns < 0 else b""
    seconds, fraction = divmod(abs(time_ns), _NS)
    text = b"%b%d.%09d" % (sign, seconds, fraction)
    return text.rstrip(b"0").rstrip(b".")


def _extension(name: bytes, records: dict[bytes, bytes]) -> bytes:
    if not records:
        return b""
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    if len(data) > _MAX_RECORDS:
        raise UnsupportedMemberError("more extended attributes than an archive can hold", name)
    header = b"".join(
        (
            (b"PaxHeaders.0/" + _ascii(name.rpartition(b"/")[2])[:80]).ljust(_NAME, b"\0"),
            b"0000000\0" * 3,
            b"%011o\0" % len(data),
            b"%011o\0" % 0,
            b" " * 8,
            bytes((RECORDS,)),
            bytes(_NAME),
            b"ustar\x0000",
            bytes(64),
            b"0000000\0" * 2,
            bytes(_PREFIX + 12),
        )
    )
    return _with_checksum(header) + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """``"%d %s=%s\\n"``, where the number is the length of all of it, itself included."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest)
    while (total := len(rest) + len(b"%d" % length)) != length:
        length = total
    return b"%d%b" % (length, rest)


def _with_checksum(header: bytes) -> bytes:
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
