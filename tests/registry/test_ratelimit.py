"""What answers say about how often one may ask."""

from __future__ import annotations

import pytest

from asyncpull.http1.head import Headers
from asyncpull.registry.ratelimit import RateLimit, parse_rate_limit


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        # As Docker Hub sends them.
        (
            {
                "ratelimit-limit": "100;w=21600",
                "ratelimit-remaining": "76;w=21600",
                "docker-ratelimit-source": "192.0.2.1",
            },
            RateLimit(76, 100, 21600),
        ),
        ({"RateLimit-Remaining": "0;w=21600"}, RateLimit(0, None, 21600)),
        ({"RateLimit-Limit": "100;w=21600"}, None),
        ({"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "7"}, RateLimit(7, 100, 60)),
        ({"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4999"}, RateLimit(4999, 5000)),
        ({"X-RateLimit-Remaining": " 12 "}, RateLimit(12)),
        ({"RateLimit-Remaining": "-1"}, None),
        ({"RateLimit-Remaining": "many"}, None),
        ({"RateLimit-Remaining": "9" * 40}, None),
        ({"RateLimit-Remaining": "5;w=", "RateLimit-Limit": "x"}, RateLimit(5)),
    ],
)
def test_headers(headers: dict[str, str], expected: RateLimit | None) -> None:
    assert parse_rate_limit(Headers(headers.items())) == expected


@pytest.mark.parametrize(
    ("limit", "scarce"),
    [
        (RateLimit(0), True),
        (RateLimit(1), False),
        (RateLimit(5, 100), True),
        (RateLimit(6, 100), False),
        (RateLimit(0, 100), True),
    ],
)
def test_when_the_end_is_near(limit: RateLimit, scarce: bool) -> None:
    assert limit.is_scarce is scarce
