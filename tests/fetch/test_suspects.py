"""Whom to ask alone, and who lied."""

from __future__ import annotations

import pytest

from asyncpull.fetch.suspects import Suspects
from asyncpull.journal import Recorded
from asyncpull.ranges import Range


def sent(**counts: int) -> list[Recorded]:
    """What each sent, behind each other; the CRC is only a number here."""
    records, position = [], 0
    for origin, count in counts.items():
        records.append(Recorded(Range(position, position + count), 7, origin.replace("_", "")))
        position += count
    return records


@pytest.mark.parametrize(
    ("origins", "records", "resumed", "order"),
    [
        (["home"], sent(home=10), False, []),
        (["home"], sent(home=10), True, ["home"]),
        (["home"], sent(_=5, home=5), True, ["home"]),
        (["one", "home"], sent(one=9, home=1), False, ["home", "one"]),
        (["one", "home"], sent(one=1, home=9), False, ["home", "one"]),
        (["one", "home"], sent(one=10), False, ["home"]),
        (["one", "home"], sent(home=10), False, ["one"]),
        (["one", "home"], sent(home=10), True, ["home", "one"]),
        (["one", "two", "three", "home"], sent(one=4, two=2, three=3, home=1), False, ["home", "two", "three", "one"]),
        (["one", "two", "home"], sent(home=10), False, ["one", "two"]),
    ],
)
def test_the_registry_first_then_who_sent_least_each_once(
    origins: list[str], records: list[Recorded], resumed: bool, order: list[str]
) -> None:
    suspects, asked = Suspects(), []
    suspects.add(records, alone=None, resumed=resumed)
    while (origin := suspects.next(origins)) is not None:
        asked.append(origin)
        suspects.add([], alone=origin)
    assert asked == order


def test_who_sent_what_differs_is_a_liar() -> None:
    suspects = Suspects()
    suspects.add([Recorded(Range(0, 10), 1, "one"), Recorded(Range(10, 20), 2, "two")], alone=None)
    suspects.add([Recorded(Range(0, 20), 3, "three"), Recorded(Range(20, 30), 4)], alone="three")
    assert suspects.liars(lambda record: record.checksum != 2) == ("one", "three")
    assert suspects.liars(lambda record: False) == ()
