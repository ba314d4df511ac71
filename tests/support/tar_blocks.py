"""Tar bytes written down block by block: for archives that no library would write.

Everything returns bytes, to be joined: ``member(b"a", b"data") + END``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)

USTAR: Final = b"ustar\x0000"
GNU: Final = b"ustar  \x00"
V7: Final = bytes(8)

MTIME: Final = 1_700_000_000


def octal(value: int, width: int) -> bytes:
    """A numeric field as most writers fill it: octal digits and a NUL."""
    return b"%0*o\0" % (width - 1, value)


def base_256(value: int, width: int) -> bytes:
    """A numeric field in two's complement, with the first bit set as a mark."""
    return bytes([value >> 8 * (width - 1) & 0xFF | 0x80]) + (value % (1 << 8 * (width - 1))).to_bytes(width - 1)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = MTIME,
    link: bytes = b"",
    magic: bytes = USTAR,
    devices: tuple[int, int] | bytes = b"",
    prefix: bytes = b"",
    trailer: bytes = b"",
    checksum: bytes | None = None,
    signed: bool = False,
) -> bytes:
    """One header block. Numbers given as bytes are the field as it stands; ``prefix`` is everything from byte 345."""
    numbers = b"".join(
        value.ljust(width, b"\0") if isinstance(value, bytes) else octal(value, width)
        for value, width in ((mode, 8), (uid, 8), (gid, 8), (size, 12), (mtime, 12))
    )
    owners = b"root".ljust(32, b"\0") * 2 if magic != V7 else bytes(64)
    if not isinstance(devices, bytes):
        devices = octal(devices[0], 8) + octal(devices[1], 8)
    before = name.ljust(100, b"\0") + numbers
    after = kind + link.ljust(100, b"\0") + magic + owners + devices.ljust(16, b"\0") + prefix.ljust(163, b"\0")
    after += trailer.ljust(4, b"\0")
    if checksum is None:
        others = before + after
        total = sum(others) + 8 * 0x20 - (256 * sum(byte >= 0x80 for byte in others) if signed else 0)
        checksum = b"%06o\0 " % total
    block = before + checksum + after
    if len(block) != BLOCK:
        raise ValueError(f"a field is too long: {len(block)} bytes")
    return block


def checksum_of(block: bytes) -> int:
    """The unsigned checksum that belongs into a header block."""
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def padded(data: bytes) -> bytes:
    """``data`` filled up with zeros to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes = b"", kind: bytes = b"0", **fields: Any) -> bytes:
    """A header and its contents; takes the fields of header()."""
    return header(name, kind, **{"size": len(data), **fields}) + padded(data)


def directory(name: bytes, **fields: Any) -> bytes:
    return member(name, kind=b"5", **{"mode": 0o755, **fields})


def record(key: bytes, value: bytes) -> bytes:
    """One PAX record, which begins with its own length."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return b"%d%b" % (length, rest)


def records(pairs: Mapping[bytes, bytes], kind: bytes = b"x", **fields: Any) -> bytes:
    """An extended header (``x``) or global header (``g``) with these PAX records."""
    return raw_records(b"".join(record(key, value) for key, value in pairs.items()), kind, **fields)


def raw_records(data: bytes, kind: bytes = b"x", name: bytes = b"PaxHeaders.0/member", **fields: Any) -> bytes:
    """An extended header with whatever stands for its records."""
    return member(name, data, kind, **fields)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's header for a long name (``L``) or a long link target (``K``) of the next member."""
    return member(b"././@LongLink", name + b"\0", kind, magic=GNU, mode=0o644, mtime=0)
