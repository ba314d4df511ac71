"""PAX extended header records: ``"%d %s=%s\\n"`` lines that override the header that follows them.

The rules of validity are those of Go's archive/tar, which are laxer than POSIX: any bytes are taken for keys and
values, but for NUL in a key, and in the value of ``path``, ``linkpath``, ``uname`` and ``gname``. A later record
replaces an earlier one of the same key; an empty value leaves what the header says. Extended attributes are the records
``SCHILY.xattr.<name>``, also empty ones; ``LIBARCHIVE.xattr.*`` means nothing.

GNU's sparse files come as records too. A tar-split cannot represent them (it would hold the expanded file), so they are
recognised exactly where Go would expand them, and refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncpull.errors import MalformedLayerError
from asyncpull.layer.header import settable_time

if TYPE_CHECKING:
    from asyncpull.layer.header import Member

__all__ = ["apply_records", "is_sparse", "parse_records"]

_XATTR = b"SCHILY.xattr."
_TEXT_KEYS = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_SPARSE_MAP = b"GNU.sparse.map"
_DECIMAL = re.compile(rb"[+-]?[0-9]{1,40}")
_INT64 = 1 << 63
_NS = 1_000_000_000


def parse_records(data: bytes, position: int) -> dict[bytes, bytes]:
    """Parse the data of an ``x`` or ``g`` member whose header is at ``position``.

    Raises MalformedLayerError.
    """
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    start, end = 0, len(data)
    while start < end:
        space = data.find(b" ", start)
        length = _decimal(data[start:space], position) if space > 0 else 0
        stop = start + length
        # The shortest record is "5 a=\n". A padded length could even point before its own end.
        if length < 5 or stop > end or space + 1 >= stop - 1 or data[stop - 1] != 0x0A:
            raise _malformed(position)
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key or b"\0" in (value if key in _TEXT_KEYS else key):
            raise _malformed(position)
        start = stop
        if key in _SPARSE_PAIR:
            # Format 0.0 repeats these two in turn, which is no proper PAX; read as format 0.1 has it.
            if key != _SPARSE_PAIR[len(sparse) % 2] or b"," in value:
                raise _malformed(position)
            sparse.append(value)
        else:
            records[key] = value
    if sparse:
        records[_SPARSE_MAP] = b",".join(sparse)
    return records


def apply_records(member: Member, records: dict[bytes, bytes], position: int) -> None:
    """Let the records of the extended header at ``position`` override what the header of ``member`` says.

    Raises MalformedLayerError.
    """
    xattrs: dict[bytes, bytes] = {}
    atime_ns: int | None = None
    for key, value in records.items():
        if key.startswith(_XATTR):
            xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue
        elif key == b"path":
            member.name = value
        elif key == b"linkpath":
            member.link_name = value
        elif key == b"size":
            member.size = _decimal(value, position)
        elif key == b"uid":
            member.uid = _decimal(value, position)
        elif key == b"gid":
            member.gid = _decimal(value, position)
        elif key == b"mtime":
            member.mtime_ns = settable_time(_time(value, position))
        elif key == b"atime":
            atime_ns = settable_time(_time(value, position))
        elif key == b"ctime":
            _time(value, position)
    member.atime_ns = max(member.mtime_ns, member.atime_ns if atime_ns is None else atime_ns)
    if xattrs:
        member.xattrs = xattrs


def is_sparse(records: dict[bytes, bytes]) -> bool:
    """Whether Go's reader would expand the member as one of GNU's PAX sparse formats (0.0, 0.1, 1.0)."""
    major, minor = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"")
    if (major, minor) in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")):
        return True
    return not major and not minor and bool(records.get(_SPARSE_MAP))


def _decimal(text: bytes, position: int) -> int:
    """Go's ParseInt: a sign or none, digits, 64 bits."""
    if text.isdigit() and len(text) < 19:
        return int(text)
    value = int(text) if _DECIMAL.fullmatch(text) else _INT64
    if not -_INT64 <= value < _INT64:
        raise _malformed(position)
    return value


def _time(text: bytes, position: int) -> int:
    """Nanoseconds of ``seconds.fraction``; digits beyond the ninth are cut off, the sign counts for both parts."""
    whole, _, fraction = text.partition(b".")
    if fraction and not fraction.isdigit():
        raise _malformed(position)
    nanoseconds = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    return _decimal(whole, position) * _NS + (-nanoseconds if whole.startswith(b"-") else nanoseconds)


def _malformed(position: int) -> MalformedLayerError:
    return MalformedLayerError("a PAX record that breaks the format", None, position)
