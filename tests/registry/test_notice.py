"""What a registry wants people to know."""

from __future__ import annotations

import pytest

from asyncpull.registry.notice import parse_notices


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), ()),
        (('299 - "this repository moves"',), ("this repository moves",)),
        (('299 - "one", 299 - "two, with a comma"', '299 - "three"'), ("one", "two, with a comma", "three")),
        (('299 - "say \\"please\\""',), ('say "please"',)),
        (('299 - "bad \x1b[31m red\x07"',), ("bad [31m red",)),
        (('299 - ""',), ()),
        (('110 - "stale"', '299 example.org "from a proxy"', "299 - unquoted", '299 - "open'), ()),
        (('299 - "' + "x" * 1000 + '"',), ("x" * 300 + "…",)),
        (('299 - "again"',) * 50, ("again",) * 10),
    ],
)
def test_warnings(values: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert parse_notices(values) == expected
