"""Which bytes an answer holds; most of what can be said wrongly is in test_client.py, over the wire."""

from __future__ import annotations

import pytest

from asyncpull.registry.extent import Extent, extent


@pytest.mark.parametrize(
    ("status", "said", "length", "expected"),
    [
        (200, None, 1000, Extent(0, 1000, 1000)),
        (200, None, None, Extent(0, None, None)),
        (200, "bytes 100-999/1000", 900, Extent(0, 900, 900)),
        (206, "bytes 100-999/1000", 900, Extent(100, 1000, 1000)),
        (206, " Bytes 100-199/* ", None, Extent(100, 200, None)),
        (206, "bytes 100-999/1000", 899, None),
        (206, "bytes 100-999/999", 900, None),
        (206, "bytes 99-999/1000", 901, None),
        (206, "bytes 101-999/1000", 899, None),
        (206, "bytes 100-99/1000", 0, None),
        (206, "bytes */1000", None, None),
        (206, "bytes 100-999/1000, 100-999/1000", 900, None),
        (206, "bytes 100-" + "9" * 30 + "/*", None, None),
        (206, None, 900, None),
        (416, "bytes */90", 0, Extent(100, 100, 90)),
        (416, "bytes */*", 0, None),
        (416, "bytes 100-999/1000", 0, None),
        (416, None, 0, None),
        (204, "bytes 100-999/1000", 900, None),
    ],
)
def test_extent(status: int, said: str | None, length: int | None, expected: Extent | None) -> None:
    headers = {} if said is None else {"Content-Range": said}
    assert extent(status, headers, length, 100) == expected
