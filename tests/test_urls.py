"""URLs: their origin, and what of them may be told."""

from __future__ import annotations

import pytest

from asyncpull.urls import origin, redact


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Example.org/a", ("https", "example.org", 443)),
        ("http://example.org", ("http", "example.org", 80)),
        ("http://u:p@example.org:8080/", ("http", "example.org", 8080)),
        ("https://[::1]:5000/x", ("https", "::1", 5000)),
    ],
)
def test_origins(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize("url", ["ftp://example.org", "/v2/", "https://", "https://h:99999/", ""])
def test_what_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        origin(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a/b?X-Signature=do-not-show#x", "https://example.org/a/b?…"),
        ("https://me:secret@example.org:1/a", "https://example.org:1/a"),
        ("https://example.org/a", "https://example.org/a"),
    ],
)
def test_redaction(url: str, expected: str) -> None:
    assert redact(url) == expected
