"""Ranges of versions, by what the library says of them that skopeo uses."""

from __future__ import annotations

import pytest

from asyncpull.errors import UsageError
from asyncpull.spec.semver import Version, VersionRange

TAGS = [
    "0.0.3", "0.0.4", "0.2.3", "0.3.0", "1", "v1.2", "1.2.3", "1.2.4", "1.3.0", "2.0.0-rc.1", "2.0.0", "2.1", "11.1.1",
    "latest", "1.2.3.4", "1.2.3-01", "",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.3", "1.2.3"),
        ("= v1.2.3", "1.2.3"),
        ("1.2", "v1.2 1.2.3 1.2.4"),
        ("1.2.x", "v1.2 1.2.3 1.2.4"),
        ("1.x", "1 v1.2 1.2.3 1.2.4 1.3.0"),
        ("*", "0.0.3 0.0.4 0.2.3 0.3.0 1 v1.2 1.2.3 1.2.4 1.3.0 2.0.0 2.1 11.1.1"),
        ("", "0.0.3 0.0.4 0.2.3 0.3.0 1 v1.2 1.2.3 1.2.4 1.3.0 2.0.0 2.1 11.1.1"),
        (">= 1.3", "1.3.0 2.0.0 2.1 11.1.1"),
        ("=> 1.3", "1.3.0 2.0.0 2.1 11.1.1"),
        ("> 1.2.3", "1.2.4 1.3.0 2.0.0 2.1 11.1.1"),
        ("> 1", "2.0.0 2.1 11.1.1"),
        ("> 1.2", "1.3.0 2.0.0 2.1 11.1.1"),
        ("> 11.1", ""),
        ("< 1", "0.0.3 0.0.4 0.2.3 0.3.0"),
        ("<= 1", "0.0.3 0.0.4 0.2.3 0.3.0 1 v1.2 1.2.3 1.2.4 1.3.0"),
        ("<=0.2", "0.0.3 0.0.4 0.2.3"),
        ("=< 0.0.3", "0.0.3"),
        ("~1.2.3", "1.2.3 1.2.4"),
        ("~> 1.2", "v1.2 1.2.3 1.2.4"),
        ("~1", "1 v1.2 1.2.3 1.2.4 1.3.0"),
        ("~0.0.0", "0.0.3 0.0.4 0.2.3 0.3.0 1 v1.2 1.2.3 1.2.4 1.3.0 2.0.0 2.1 11.1.1"),
        ("^1.2.3", "1.2.3 1.2.4 1.3.0"),
        ("^0.2", "0.2.3"),
        ("^0.0.3", "0.0.3"),
        ("^0.0", "0.0.3 0.0.4"),
        ("^0", "0.0.3 0.0.4 0.2.3 0.3.0"),
        ("!= 1.x, <2", "0.0.3 0.0.4 0.2.3 0.3.0"),
        ("!=1.2.3 >=1.2.3 <2.0.0-a", "1.2.4 1.3.0"),
        ("1.2.3 - 2.0", "1.2.3 1.2.4 1.3.0 2.0.0"),
        ("0.0.3 || 2.x", "0.0.3 2.0.0 2.1"),
        (">=2.0.0-0", "2.0.0-rc.1 2.0.0 2.1 11.1.1"),
        ("~2.0.0-0", "2.0.0-rc.1 2.0.0"),
    ],
)
def test_ranges(text: str, expected: str) -> None:
    assert [tag for tag in TAGS if VersionRange.parse(text).allows(tag)] == expected.split()


def test_prereleases_come_before_releases_and_numbers_before_words() -> None:
    ordered = ["1.0.0-1", "1.0.0-2", "1.0.0-11", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta", "1.0.0", "1.0.1-0"]
    versions = [version for version in map(Version.parse, ordered) if version is not None]
    assert len(versions) == len(ordered)
    keys = [version.key for version in versions]
    assert keys == sorted(keys)
    assert VersionRange.parse(f">1.0.0-{'8' * 5000}").allows(f"1.0.0-{'9' * 5000}")
    assert Version.parse("1+build") == Version.parse("v1.0.0")


@pytest.mark.parametrize("text", ["latest", ">", "1.2.3.4", ">= 1.2 foo", "1..2", ">>1"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError):
        VersionRange.parse(text)
