"""Who is after which bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.fetch.claims import LARGEST_PIECE, SMALLEST_PIECE, Claim, Claims
from asyncpull.ranges import Range, RangeSet

MIB = 1 << 20


def span(claim: Claim | None) -> tuple[int, int] | None:
    return None if claim is None else (claim.start, claim.end)


def test_one_connection_takes_a_hole_whole() -> None:
    received = RangeSet([Range(10, 20)])
    claims = Claims(100, received)
    first = claims.take(1, 0.0)
    assert span(first) == (0, 10)
    assert first is not None
    received.add(0, 10)
    claims.give_back(first)
    assert span(claims.take(1, 0.0)) == (20, 100)
    assert claims.take(1, 0.0) is None


def test_several_take_pieces_at_the_front_that_become_smaller() -> None:
    claims = Claims(100 * MIB, RangeSet())
    taken = [claims.take(4, 0.0) for _ in range(3)]
    assert [span(claim) for claim in taken] == [(0, 8 * MIB), (8 * MIB, 16 * MIB), (16 * MIB, 24 * MIB)]
    sizes = []
    while (claim := claims.take(4, 0.0)) is not None:
        sizes.append(claim.end - claim.start)
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) == LARGEST_PIECE
    assert min(sizes[:-1]) >= SMALLEST_PIECE
    assert sum(sizes) == 76 * MIB


def test_what_is_given_back_is_taken_first() -> None:
    received = RangeSet()
    claims = Claims(100 * MIB, received)
    first, second = claims.take(2, 0.0), claims.take(2, 0.0)
    assert first is not None
    assert second is not None
    received.add(first.start, first.start + 5)
    claims.give_back(first)
    assert span(claims.take(2, 0.0)) == (5, 8 * MIB)


def test_those_who_join_take_from_the_one_that_was_alone() -> None:
    received = RangeSet()
    claims = Claims(100 * MIB, received)
    alone = claims.take(1, 0.0)
    assert alone is not None
    alone.position = 10 * MIB
    claims.share(2)
    assert alone.end == 18 * MIB
    assert span(claims.take(2, 0.0)) == (18 * MIB, 26 * MIB)


def test_without_ranges_one_takes_it_all() -> None:
    claims = Claims(100 * MIB, RangeSet())
    first, second, third = claims.take(3, 0.0), claims.take(3, 0.0), claims.take(3, 0.0)
    assert first is not None
    assert second is not None
    assert third is not None
    assert not claims.without_ranges(second)
    assert first.end == 100 * MIB
    claims.give_back(second)
    assert claims.take(3, 0.0) is None
    claims.share(8)
    assert first.end == 100 * MIB
    claims.give_back(first)
    assert claims.without_ranges(third)
    assert third.end == 100 * MIB
    claims.give_back(third)
    assert span(claims.take(3, 0.0)) == (0, 100 * MIB)


@given(st.integers(0, 60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))), st.integers(0, 1 << 32))
@pytest.mark.parametrize("connections", [1, 3])
def test_whatever_happens_all_of_it_arrives_and_nothing_twice(
    connections: int, size: int, kept: list[tuple[int, int]], seed: int
) -> None:
    chance = random.Random(seed)
    size *= MIB // 3
    received = RangeSet()
    for start, end in kept:
        received.add(min(start * MIB // 3, size), min(end * MIB // 3, size))
    claims, running = Claims(size, received), list[Claim]()
    before, moved = received.total, 0
    while received.total < size:
        if len(running) < connections and (claim := claims.take(connections, 0.0)) is not None:
            running.append(claim)
        claim = chance.choice(running)
        step = min(claim.end, claim.position + chance.randrange(MIB))
        assert list(received.missing(claim.position, step)) == (
            [Range(claim.position, step)] if step > claim.position else []
        )
        moved += step - claim.position
        received.add(claim.position, step)
        claim.position = step
        if step == claim.end or chance.random() < 0.1:
            running.remove(claim)
            claims.give_back(claim)
        if chance.random() < 0.1:
            claims.share(connections)
    assert before + moved == size


@pytest.mark.parametrize(
    ("moves", "held", "now", "taken", "useless"),
    [
        ([(100, 1.0), (7 * MIB, 1.0)], False, 1.5, (4 * MIB + 50, 8 * MIB), None),  # a slow one keeps half
        ([(7 * MIB, 1.0), (7 * MIB, 1.0)], False, 1.5, None, None),  # all will be done soon
        ([(4 * MIB, 1.0), (7 * MIB, 3.0)], False, 3.0, (4 * MIB, 8 * MIB), 0),  # a dead one loses all
        ([(4 * MIB, 1.0), (7 * MIB, 3.0)], True, 3.0, None, None),  # it is us who do not read
        ([(8 * MIB - 1000, 1.0), (7 * MIB, 3.0)], False, 3.0, (8 * MIB - 1000, 8 * MIB), 0),  # however little it is
        ([(100_000, 199.0), (8 * MIB, 3.0)], False, 200.0, (4 * MIB + 50_000, 8 * MIB), None),
        ([(8 * MIB - 100_000, 499.0), (8 * MIB, 3.0)], False, 500.0, None, None),  # too little to ask for
        ([(0, 0.0), (7 * MIB, 3.0)], False, 9.0, (15 * MIB, 16 * MIB), 1),  # the first byte may take longer
        ([(0, 0.0), (8 * MIB, 3.0)], False, 10.0, (0, 8 * MIB), 0),
    ],
)
def test_whoever_has_nothing_left_relieves_the_slowest(
    moves: list[tuple[int, float]], held: bool, now: float, taken: tuple[int, int] | None, useless: int | None
) -> None:
    claims, made = Claims(16 * MIB, RangeSet()), []
    for start in (0, 8 * MIB):
        claim = claims.take(1, 0.0)
        assert claim is not None
        claim.end = start + 8 * MIB
        made.append(claim)
    for claim, (count, at) in zip(made, moves, strict=True):
        if count:
            claim.moved(claim.start + count, at)
        claim.is_held = held
    assert claims.take(2, now) is None
    found, left = claims.relieve(now)
    assert span(found) == taken
    assert left is (None if useless is None else made[useless])
    if found is not None:
        assert sum(claim.left for claim in made) + found.left == sum(8 * MIB - count for count, _ in moves)


def test_without_ranges_nobody_is_relieved() -> None:
    claims = Claims(MIB, RangeSet())
    claim = claims.take(1, 0.0)
    assert claim is not None
    assert claims.without_ranges(claim)
    assert not claims.may_need_relief
    assert claims.relieve(1000.0) == (None, None)
