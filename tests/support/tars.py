"""Layer tars written down as lists of entries, the same bytes on every run."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NANOSECONDS = 1_000_000_000
DAY_ONE = 1_700_000_000 * NANOSECONDS
"""The modification time of entries that name none: whole seconds, so that no PAX record is needed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer. Times are in nanoseconds; ``kind`` is a type flag of tarfile."""

    name: str | bytes
    kind: bytes = tarfile.REGTYPE
    data: bytes = field(default=b"", repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = DAY_ONE
    link: str | bytes = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pax: Mapping[str, str] = field(default_factory=dict)

    def with_(self, **changes: object) -> Entry:
        """Return a copy with other values: ``file("a").with_(uid=5)``."""
        return replace(self, **changes)  # type: ignore[arg-type]  # the names are those of the fields


def file(name: str | bytes, data: bytes = b"", mode: int = 0o644) -> Entry:
    return Entry(name, data=data, mode=mode)


def directory(name: str | bytes, mode: int = 0o755) -> Entry:
    return Entry(name, tarfile.DIRTYPE, mode=mode)


def symlink(name: str | bytes, target: str | bytes) -> Entry:
    return Entry(name, tarfile.SYMTYPE, mode=0o777, link=target)


def hard_link(name: str | bytes, target: str | bytes, mode: int = 0o644) -> Entry:
    return Entry(name, tarfile.LNKTYPE, mode=mode, link=target)


def fifo(name: str | bytes, mode: int = 0o644) -> Entry:
    return Entry(name, tarfile.FIFOTYPE, mode=mode)


def character_device(name: str | bytes, major: int, minor: int, mode: int = 0o666) -> Entry:
    return Entry(name, tarfile.CHRTYPE, mode=mode, device=(major, minor))


def block_device(name: str | bytes, major: int, minor: int, mode: int = 0o660) -> Entry:
    return Entry(name, tarfile.BLKTYPE, mode=mode, device=(major, minor))


def whiteout(name: str) -> Entry:
    """Say that ``name`` of the layers below is gone."""
    parent, _, last = name.rpartition("/")
    return file(f"{parent}/.wh.{last}" if parent else f".wh.{last}")


def opaque(name: str) -> Entry:
    """Say that everything in directory ``name`` of the layers below is gone."""
    return file(f"{name}/.wh..wh..opq")


def tar(entries: Iterable[Entry], *, layout: int = tarfile.PAX_FORMAT) -> bytes:
    """Write the entries in order; ``layout`` is one of tarfile's formats."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
        for entry in entries:
            info = tarfile.TarInfo(_text(entry.name))
            info.type, info.mode, info.uid, info.gid = entry.kind, entry.mode, entry.uid, entry.gid
            info.size = len(entry.data)
            info.linkname = _text(entry.link)
            info.devmajor, info.devminor = entry.device
            seconds, fraction = divmod(entry.mtime_ns, NANOSECONDS)
            info.mtime = seconds
            records = {f"SCHILY.xattr.{name}": _text(value) for name, value in entry.xattrs.items()}
            if fraction:
                records["mtime"] = f"{seconds}.{fraction:09d}"
            info.pax_headers = records | dict(entry.pax)
            archive.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else os.fsdecode(value)
