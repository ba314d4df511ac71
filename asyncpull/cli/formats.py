"""Numbers, times and tables as text. Sizes are decimal, as podman's: 1 MB is 1,000,000 bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncpull.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

SHORT_ID = 12

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*([kmgt]?)(i?)b?(?:/s)?", re.IGNORECASE | re.ASCII)
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", re.ASCII)
_DURATION = re.compile(r"(?:\d{1,18}(?:\.\d+)?(?:ms|[smhd]))+|\d{1,18}(?:\.\d+)?", re.ASCII)
_AGES = (
    ("year", 365 * 86400),
    ("month", 30 * 86400),
    ("week", 7 * 86400),
    ("day", 86400),
    ("hour", 3600),
    ("minute", 60),
)


def human_size(size: float) -> str:
    """``30.0 MB``; bytes without a fraction."""
    return " ".join(_scaled(size, _unit_of(size)))


def parse_size(text: str) -> int:
    """Bytes: ``50M``, ``50 MB`` and ``50MB/s`` are 50,000,000, ``10MiB`` is 10 x 1,048,576. Raises UsageError."""
    found = _SIZE.fullmatch(text.strip())
    size = 0 if found is None else round(float(found[1]) * (1024 if found[3] else 1000) ** _UNITS[found[2].lower()])
    if size <= 0 or (found is not None and found[3] and not found[2]):
        raise UsageError(f"{text!r} is no amount of bytes", "write it like 50M, 1.5G or 10MiB")
    return size


def parse_duration(text: str) -> float:
    """Seconds: ``90``, ``90s``, ``500ms``, ``30m``, ``1.5h``, ``7d``, ``1h30m`` as Go has it. Raises UsageError."""
    parts = _DURATION.fullmatch(text.strip())
    if not parts or not text.strip():
        raise UsageError(f"{text!r} is no duration", "write it like 90s, 30m, 24h or 7d")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text.strip()) if number)


def human_part(part: float, whole: float) -> str:
    """``12.1/30.0 MB``: both in the unit of the whole."""
    unit = _unit_of(whole)
    return f"{_scaled(part, unit)[0]}/{' '.join(_scaled(whole, unit))}"


def human_duration(seconds: float) -> str:
    """``3.2 s``, ``2:05 min``, ``1:02:05 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def human_age(then: datetime, now: datetime) -> str:
    """``3 days ago``."""
    seconds = (now - then).total_seconds()
    for unit, length in _AGES:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def short_id(text: str) -> str:
    """The first 12 digits of an ID or digest."""
    return text.rpartition(":")[2][:SHORT_ID]


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, two spaces apart, each line ending in a newline and none in a space."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows))
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _unit_of(size: float) -> int:
    unit = 0
    while size >= 999.95 and unit < len(_SIZES) - 1:
        size, unit = size / 1000, unit + 1
    return unit


def _scaled(size: float, unit: int) -> tuple[str, str]:
    return (f"{size / 1000**unit:.1f}" if unit else f"{size:.0f}"), _SIZES[unit]
