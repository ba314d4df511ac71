"""Tar header blocks: 512 bytes in, the fields of one member out.

Layers are read by Go programs, so this reads headers as Go's archive/tar does (the tar-split fork of it), not as POSIX
says and not as GNU tar does. Where they differ:

- The checksum may be the unsigned sum (POSIX) or the signed one (Sun's tar). Nothing else tells a header from garbage.
- Five flavours are told apart by magic and trailer only::

      magic 257..263  version 263..265  trailer 508..512   flavour   prefix field
      "ustar\\0"       any               "tar\\0"            STAR      131 bytes, then atime and ctime
      "ustar\\0"       any               other              USTAR     155 bytes (PAX has the same header)
      "ustar "        " \\0"             any                GNU       none: atime, ctime, sparse map
      other                                                V7        none; no device numbers either

- A GNU header whose atime or ctime does not parse, and whose "prefix" is ASCII, was written by Go before 1.8, which
  believed in a prefix there (golang.org/issue/12594): it is read as the prefix.
- Numbers are octal between NULs and spaces, or base 256 where the first bit is set. An octal number that is empty is 0.
- Strings end at their first NUL.
- Type flag NUL is a regular file, or a directory if the name (also the long one) ends in a slash. ``0`` with a slash
  stays a file.

Speed: this runs once per member. Almost all headers are *plain* (ASCII, USTAR or GNU magic, octal numbers, no GNU
times); those take a short path which makes the same decisions. An ASCII block sums to less than the modulus of
Adler-32, so its low half, computed at memory speed, *is* the checksum.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final

from isal import isal_zlib

from asyncpull.dataclass import dataclass
from asyncpull.errors import MalformedLayerError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BLOCK",
    "BLOCK_DEVICE",
    "CHARACTER_DEVICE",
    "DIRECTORY",
    "FIFO",
    "GLOBAL_RECORDS",
    "GNU_LONG_LINK",
    "GNU_LONG_NAME",
    "GNU_SPARSE",
    "HARD_LINK",
    "OLD_REGULAR",
    "RECORDS",
    "REGULAR",
    "SYMLINK",
    "Member",
    "parse_header",
    "settable_time",
]

BLOCK: Final = 512

REGULAR: Final = 0x30
HARD_LINK: Final = 0x31
SYMLINK: Final = 0x32
CHARACTER_DEVICE: Final = 0x33
BLOCK_DEVICE: Final = 0x34
DIRECTORY: Final = 0x35
FIFO: Final = 0x36
RECORDS: Final = 0x78
GLOBAL_RECORDS: Final = 0x67
GNU_LONG_NAME: Final = 0x4C
GNU_LONG_LINK: Final = 0x4B
GNU_SPARSE: Final = 0x53

OLD_REGULAR: Final = 0x00
_NS: Final = 1_000_000_000
_LAST_TIME: Final = (1 << 63) - 1
_INT64: Final = 1 << 63

NO_XATTRS: Final[Mapping[bytes, bytes]] = {}


@dataclass(slots=True)
class Member:
    """One member of a layer, extension headers already applied. Not changed after it was handed out.

    ``size`` is the number of payload bytes that follow in the stream, so 0 for links, devices and directories whatever
    their header claims. Times are nanoseconds since 1970, and 0 where the kernel's would overflow (before 1970, after
    2262): what containers/storage sets. ``atime_ns`` is never before ``mtime_ns``. ``position`` is the offset of the
    member's own header in the uncompressed stream, in bytes. Numbers are as wide as the archive has them.
    """

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    atime_ns: int
    link_name: bytes
    dev_major: int
    dev_minor: int
    xattrs: Mapping[bytes, bytes]
    position: int


# name, mode+uid+gid, size, mtime, checksum, type, link, magic+version, (owner names), devices, prefix, (7), trailer
_FIELDS = Struct("100s24s12s12s8sB100s8s64x16s155s8x4s").unpack
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \x00"
_STAR_TRAILER = b"tar\x00"
_NO_DEVICES = bytes(16)
_adler32 = isal_zlib.adler32


def parse_header(block: bytes, position: int) -> Member:
    """Read a header block (512 bytes, not all zero) that begins at ``position`` of the stream.

    The result is what this header alone says: ``size`` whatever the type, ``kind`` as it stands there.

    Raises MalformedLayerError where Go's reader does.
    """
    if not block.isascii():
        return _parse_any(block, position)
    name, owner, size, mtime, checksum, kind, link, magic, devices, prefix, trailer = _FIELDS(block)
    try:
        if _adler32(block) & 0xFFFF != _expected_adler(checksum):
            raise _malformed("not a tar header: its checksum is wrong", position)
        if magic == _GNU and not prefix[0] and not prefix[12]:
            prefix = b""
        elif magic != _USTAR or trailer == _STAR_TRAILER:
            return _parse_any(block, position)
        mode, uid, gid = _owner(owner)
        digits = size[:11]
        payload = int(digits, 8) if digits.isdigit() and size[11] in b"\0 " else _octal(size)
        mtime_ns = _mtime(mtime)
        major, minor = (0, 0) if devices == _NO_DEVICES else _devices(devices)
    except ValueError as error:
        raise _malformed("a tar header with a field that is no number", position) from error
    end = name.find(0)
    if end >= 0:
        name = name[:end]
    if prefix and prefix[0]:
        name = _text(prefix) + b"/" + name
    link = _text(link) if link[0] else b""
    return Member(name, kind, mode, uid, gid, payload, mtime_ns, mtime_ns, link, major, minor, NO_XATTRS, position)


def settable_time(time_ns: int) -> int:
    """The time that containers/storage sets for ``time_ns`` (nanoseconds since 1970): 0 outside of 1970 to 2262."""
    return time_ns if 0 <= time_ns <= _LAST_TIME else 0


def _parse_any(block: bytes, position: int) -> Member:
    """Read a header of any flavour; see parse_header, of which this is the long form."""
    if not _has_checksum(block):
        raise _malformed("not a tar header: its checksum is wrong", position)
    try:
        return _unpack(block, position)
    except ValueError as error:
        raise _malformed("a tar header with a field that is no number", position) from error


def _has_checksum(block: bytes) -> bool:
    try:
        expected = _octal(block[148:156])
    except ValueError:
        return False
    others = block[:148] + block[156:]
    unsigned = sum(others) + 8 * 0x20
    return expected in (unsigned, unsigned - 256 * sum(1 for byte in others if byte >= 0x80))


def _unpack(block: bytes, position: int) -> Member:
    magic, trailer = block[257:263], block[508:512]
    is_star = magic == b"ustar\0" and trailer == _STAR_TRAILER
    is_gnu = block[257:265] == _GNU
    is_ustar = magic == b"ustar\0" and not is_star
    name, link, prefix = _text(block[0:100]), _text(block[157:257]), b""
    mode, uid, gid = (_number(block[start : start + 8]) for start in (100, 108, 116))
    size, mtime = _number(block[124:136]), _number(block[136:148])
    major = minor = atime = 0
    if is_star or is_gnu or is_ustar:
        major, minor = _number(block[329:337]), _number(block[337:345])
    if is_ustar:
        prefix = _text(block[345:500])
    elif is_star:
        prefix = _text(block[345:476])
        atime = _number(block[476:488])
        _number(block[488:500])
    elif is_gnu:
        try:
            atime = _number(block[345:357]) if block[345] else 0
            _ = _number(block[357:369]) if block[357] else 0
        except ValueError:
            atime = 0
            prefix = _text(block[345:500])
            if not prefix.isascii():
                prefix = b""
    if prefix:
        name = prefix + b"/" + name
    mtime_ns, atime_ns = settable_time(mtime * _NS), settable_time(max(atime, mtime) * _NS)
    kind = block[156]
    return Member(name, kind, mode, uid, gid, size, mtime_ns, atime_ns, link, major, minor, NO_XATTRS, position)


def _text(field: bytes) -> bytes:
    end = field.find(0)
    return field if end < 0 else field[:end]


def _octal(field: bytes) -> int:
    """Value of an octal field between NULs and spaces; 0 if it is empty. Raises ValueError."""
    digits = _text(field.strip(b" \0"))
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError(field)
    return int(digits, 8)


def _number(field: bytes) -> int:
    """Value of an octal or base-256 field (two's complement, first bit is only the mark). Raises ValueError."""
    first = field[0]
    if not first & 0x80:
        return _octal(field)
    value = int.from_bytes(field) & ((1 << (8 * len(field) - 1)) - 1)
    if first & 0x40:
        value -= 1 << (8 * len(field) - 1)
    if not -_INT64 <= value < _INT64:
        raise ValueError(field)
    return value


# Most members of a layer share owner and mode, many their time and the rest their checksum.


@lru_cache(maxsize=8192)
def _expected_adler(field: bytes) -> int:
    """What the low half of Adler-32 of an ASCII block must be if ``field`` is its checksum field;"""
    return 1 + _octal(field) - 8 * 0x20 + sum(field)


@lru_cache(maxsize=1024)
def _owner(fields: bytes) -> tuple[int, int, int]:
    return _octal(fields[0:8]), _octal(fields[8:16]), _octal(fields[16:24])


@lru_cache(maxsize=1024)
def _mtime(field: bytes) -> int:
    return settable_time(_octal(field) * _NS)


@lru_cache(maxsize=64)
def _devices(fields: bytes) -> tuple[int, int]:
    return _octal(fields[0:8]), _octal(fields[8:16])


def _malformed(what: str, position: int) -> MalformedLayerError:
    return MalformedLayerError(what, None, position)
