"""Sets of byte ranges, compared with sets of integers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.ranges import Range, RangeSet

SIZE = 40
SPANS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)))


@given(SPANS, st.integers(0, SIZE), st.integers(0, SIZE))
def test_it_is_a_set_of_bytes_in_the_fewest_ranges(spans: list[tuple[int, int]], start: int, end: int) -> None:
    ranges, model = RangeSet(), set[int]()
    for low, high in spans:
        ranges.add(low, high)
        model |= set(range(low, high))
    listed = list(ranges)
    assert {number for item in listed for number in range(item.start, item.end)} == model
    assert all(one.end < other.start for one, other in itertools.pairwise(listed))
    assert ranges.total == len(model)
    assert len(ranges) == len(listed)
    assert ranges.front == next(number for number in range(SIZE + 1) if number not in model)
    missing = list(ranges.missing(start, end))
    assert {number for item in missing for number in range(item.start, item.end)} == set(range(start, end)) - model
    assert ranges == RangeSet(listed)
    ranges.clear()
    assert list(ranges.missing(0, SIZE)) == [Range(0, SIZE)]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (3, 2), (-1, 2)])
def test_a_range_has_bytes(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="no range"):
        Range(start, end)


def test_repr_shows_the_ranges() -> None:
    assert repr(RangeSet([Range(0, 2), Range(5, 6)])) == "RangeSet(0-2, 5-6)"
    assert RangeSet() != object()
