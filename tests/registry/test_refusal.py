"""Statuses and bodies of errors, and what becomes of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from asyncpull.errors import AuthenticationError, NotFoundError, SourceError, TemporaryError, UnavailableError
from asyncpull.registry.refusal import explanation, refusal, retry_after_seconds

NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "kind", "temporary"),
    [
        (404, NotFoundError, False),
        (410, NotFoundError, False),
        (401, AuthenticationError, False),
        (403, AuthenticationError, False),
        (408, TemporaryError, True),
        (429, TemporaryError, True),
        (400, UnavailableError, False),
        (304, UnavailableError, False),
        (500, UnavailableError, True),
        (502, UnavailableError, True),
        (504, UnavailableError, True),
    ],
)
def test_statuses(status: int, kind: type[SourceError], temporary: bool) -> None:
    error = refusal("manifests/t of x/y", "x", status, {"Retry-After": "7"}, b"", NOW)
    assert (type(error), error.temporary) == (kind, temporary)
    assert str(error) == f"manifests/t of x/y: x answers {status}"
    assert error.retry_after == (7.0 if temporary or kind is UnavailableError else None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ""),
        (b"<html>", ""),
        (b"[]", ""),
        (b'{"errors": []}', ""),
        (b'{"errors": {}}', ""),
        (b'{"errors": [null, {"code": 1, "message": []}]}', ""),
        (b'{"errors": [{"code": "DENIED", "message": "no"}]}', "no (DENIED)"),
        (b'{"errors": [{"code": "DENIED"}, {"message": "no"}, {"message": "no"}]}', "DENIED; no"),
        (b'{"details": "incorrect username or password"}', "incorrect username or password"),
        (b'{"error": "invalid", "error_description": "too old"}', "too old; invalid"),
        (json.dumps({"message": "a\n\tb\u202e\x07c  d"}).encode(), "a b c d"),
        (json.dumps({"message": "x" * 1000}).encode(), "x" * 300 + "…"),
    ],
)
def test_explanations(body: bytes, expected: str) -> None:
    assert explanation(body) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 40, 999999999.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("Wed, 01 May 24444444444 12:00:30 GMT", None),
        ("Wed, 01 May 2024 12:5555555555 GMT", None),
        ("Wed, 01 May 2024 12:00:30 GMT", 30.0),
        ("Wed, 01 May 2024 11:00:00 GMT", 0.0),
        ("Wednesday, 01-May-24 12:01:00 GMT", 60.0),
        ("Wed May  1 12:00:05 2024", 5.0),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after_seconds(value, NOW) == expected
