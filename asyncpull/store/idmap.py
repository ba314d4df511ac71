"""Mappings of user and group IDs: which ID outside of a container an ID inside of it is.

A mapping is a tuple of ranges; the empty one maps every ID to itself, as in the records (format, section 2.1). On the
host side of a range are the IDs as the process that writes the store sees them: in a rootless store those of its user
namespace, not those of the machine.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

END_OF_IDS = (1 << 32) - 1
"""All IDs are smaller: the kernel keeps this one for "unchanged"."""

OVERFLOW_ID = 65534
"""Who the kernel says somebody is that a mapping does not have."""


@dataclass(frozen=True, slots=True)
class IDMap:
    """``size`` IDs, from ``container_id`` inside and ``host_id`` outside on. Raises ValueError for impossible ones."""

    container_id: int
    host_id: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 1 or min(self.container_id, self.host_id) < 0:
            raise ValueError(f"{self} has no IDs")
        if max(self.container_id, self.host_id) + self.size > END_OF_IDS:
            raise ValueError(f"{self} goes beyond the last ID, {END_OF_IDS - 1}")

    def __str__(self) -> str:
        return f"{self.container_id}:{self.host_id}:{self.size}"

    @property
    def as_json(self) -> dict[str, int]:
        """The range as a record has it."""
        return {"container_id": self.container_id, "host_id": self.host_id, "size": self.size}


IDMaps = tuple[IDMap, ...]
"""One mapping. Ranges do not overlap on either side."""


@dataclass(frozen=True, slots=True)
class IDMappings:
    """The mappings of users and of groups, of a container or of the tree of a layer; empty: every ID is itself."""

    uids: IDMaps = ()
    gids: IDMaps = ()

    def __bool__(self) -> bool:
        return bool(self.uids or self.gids)

    @property
    def root(self) -> tuple[int, int]:
        """User and group outside of whom root inside is. Raises LookupError if that is nobody."""
        return to_host(0, self.uids), to_host(0, self.gids)


NO_MAPPINGS = IDMappings()
"""Everybody is who he is."""


def parse_id_map(text: str) -> IDMaps:
    """The ranges of ``CONTAINER:HOST[:SIZE]``, several separated by commas; the size is 1 where it is missing.

    Raises UsageError.
    """
    maps = []
    for part in text.split(","):
        numbers = part.strip().split(":")
        if not 2 <= len(numbers) <= 3 or not all(number.isdecimal() and number.isascii() for number in numbers):
            raise UsageError(f"{part!r} is not a range of IDs", "it has the form CONTAINER:HOST:SIZE, in numbers")
        try:
            maps.append(IDMap(*map(int, numbers)) if len(numbers) == 3 else IDMap(int(numbers[0]), int(numbers[1]), 1))
        except ValueError as error:
            raise UsageError(str(error)) from error
    return checked(maps)


def checked(maps: Iterable[IDMap]) -> IDMaps:
    """The mapping, if no two ranges overlap: the kernel takes no other. Raises UsageError."""
    ranges = tuple(maps)
    for number, one in enumerate(ranges):
        for other in ranges[:number]:
            if _overlap(one.container_id, other.container_id, one, other) or _overlap(
                one.host_id, other.host_id, one, other
            ):
                raise UsageError(f"the ranges {other} and {one} of IDs overlap")
    return ranges


def is_contiguous(maps: Sequence[IDMap]) -> bool:
    """Whether there is no gap between the ranges, neither inside nor outside."""
    inside = sorted((one.container_id, one.size) for one in maps)
    outside = sorted((one.host_id, one.size) for one in maps)
    return all(start + size == after for side in (inside, outside) for (start, size), (after, _) in pairwise(side))


def _overlap(start: int, other_start: int, one: IDMap, other: IDMap) -> bool:
    return start < other_start + other.size and other_start < start + one.size


def parse_raw(value: object) -> IDMaps:
    """The mapping of a checked record; ranges of nothing are left out."""
    if not isinstance(value, list):
        return ()
    rows = ([item.get(key) or 0 for key in ("container_id", "host_id", "size")] for item in value)
    return tuple(IDMap(*row) for row in rows if row[2])


def format_raw(maps: Sequence[IDMap]) -> list[dict[str, int]]:
    """The mapping as a record has it."""
    return [one.as_json for one in maps]


def to_host(container_id: int, maps: Sequence[IDMap]) -> int:
    """Who ``container_id`` is outside. Raises LookupError if it is nobody there."""
    if not maps:
        return container_id
    for one in maps:
        if one.container_id <= container_id < one.container_id + one.size:
            return one.host_id + container_id - one.container_id
    raise LookupError(f"ID {container_id} of the container is not mapped")


def to_container(host_id: int, maps: Sequence[IDMap]) -> int:
    """Who ``host_id`` is inside. Raises LookupError if it is nobody there."""
    if not maps:
        return host_id
    for one in maps:
        if one.host_id <= host_id < one.host_id + one.size:
            return one.container_id + host_id - one.host_id
    raise LookupError(f"ID {host_id} is not mapped into the container")


def moved(uid: int, gid: int, old: IDMappings, new: IDMappings) -> tuple[int, int]:
    """Owner of a file under ``new`` mappings that has the owner ``uid`` and ``gid`` under ``old`` ones.

    Whoever is nobody under the new ones becomes the overflow ID, as the kernel shows it. Raises LookupError for
    somebody whom the old mappings cannot have made an owner; root is taken for the container's.
    """
    return _moved(uid, old.uids, new.uids), _moved(gid, old.gids, new.gids)


def _moved(host_id: int, old: IDMaps, new: IDMaps) -> int:
    try:
        inside = to_container(host_id, old)
    except LookupError:
        if host_id != 0:
            raise
        inside = 0
    try:
        return to_host(inside, new)
    except LookupError:
        return OVERFLOW_ID
