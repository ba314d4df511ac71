"""Which bytes of a blob an answer holds (RFC 9110, 14.4, 15.3.7 and 15.5.17).

Registries and what stands before them are wrong about ranges in every way there is, so nothing is believed that could
put bytes in the wrong place: a partial answer must say where it begins and ends, and begin where we asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes from ``start`` to ``end`` (exclusive) of a blob of ``total`` bytes; None is what was not said."""

    start: int
    end: int | None
    total: int | None


def extent(status: int, headers: Mapping[str, str], content_length: int | None, offset: int) -> Extent | None:
    """What an answer to a request for the bytes from ``offset`` on holds; None if it cannot be used.

    For 416 the extent is empty and tells only the total, if the registry told it.
    """
    if status == 200:
        return Extent(0, content_length, content_length)
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if status not in (206, 416) or found is None:
        return None
    first, last, said = found.groups()
    total = None if said == "*" else int(said)
    if status == 416:
        return None if total is None or first is not None else Extent(offset, offset, total)
    if first is None or int(first) != offset:
        return None
    end = int(last) + 1
    is_consistent = end > offset and (total is None or end <= total) and content_length in (None, end - offset)
    return Extent(offset, end, total) if is_consistent else None
