"""Ranges of bytes, half open as in Python: what of a blob is here, and what is missing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The bytes from ``start`` up to, but not including, ``end``. Raises ValueError unless 0 <= start < end."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"no range: {self.start} to {self.end}")

    def __len__(self) -> int:
        return self.end - self.start


class RangeSet:
    """A set of bytes, kept as the fewest ranges in ascending order.

    Ranges that overlap or touch are merged, so ``front`` is where the first gap begins if and only if a range starts
    at zero.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for item in ranges:
            self.add(item.start, item.end)

    def add(self, start: int, end: int) -> None:
        """Add the bytes from ``start`` to ``end``."""
        if start >= end:
            return
        # The ranges that touch [start, end] are those from the first that ends at or after start
        # to the last that starts at or before end.
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def clear(self) -> None:
        """Forget everything."""
        self._starts.clear()
        self._ends.clear()

    @property
    def front(self) -> int:
        """How many bytes are here without a gap from byte zero on."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def total(self) -> int:
        """How many bytes are here."""
        return sum(self._ends) - sum(self._starts)

    def missing(self, start: int, end: int) -> Iterator[Range]:
        """What of the bytes from ``start`` to ``end`` is not here, in ascending order."""
        position = start
        index = bisect_right(self._ends, start)
        while position < end and index < len(self._starts) and self._starts[index] < end:
            if position < self._starts[index]:
                yield Range(position, self._starts[index])
            position = self._ends[index]
            index += 1
        if position < end:
            yield Range(position, end)

    def __iter__(self) -> Iterator[Range]:
        return (Range(start, end) for start, end in zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, RangeSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"RangeSet({', '.join(f'{item.start}-{item.end}' for item in self)})"
