"""Numbers, times and tables as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from asyncpull.cli.formats import (
    format_table,
    human_age,
    human_duration,
    human_part,
    human_size,
    parse_duration,
    parse_size,
    short_id,
)
from asyncpull.errors import UsageError


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (30_000_000, "30.0 MB"),
        (5.5e15, "5.5 PB"),
        (5e18, "5000.0 PB"),
    ],
)
def test_size(size: float, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("50M", 50_000_000),
        ("50 MB", 50_000_000),
        ("50mb/s", 50_000_000),
        ("10MiB", 10 << 20),
        ("1.5Gi", 3 << 29),
        ("20k", 20_000),
    ],
)
def test_amounts_of_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "M", "-5M", "5X", "5iB", "1e3", "0.1", "9" * 400, "9" * 5000 + "k"])
def test_what_is_no_amount_of_bytes(text: str) -> None:
    with pytest.raises(UsageError, match="no amount of bytes"):
        parse_size(text)


def test_part_has_the_unit_of_the_whole() -> None:
    assert human_part(120_000, 30_000_000) == "0.1/30.0 MB"
    assert human_part(0, 12) == "0/12 B"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.4, "59.4 s"), (60, "1:00 min"), (125, "2:05 min"), (3725, "1:02:05 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("2s", 2), ("500ms", 0.5), ("1m30s", 90), ("1h2m3s4ms", 3723.004), ("1.5h", 5400), (" 7d ", 604_800)],
)
def test_a_duration_is_read_as_go_writes_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1 s", "1sm", "1,5h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=59), "just now"),
        (timedelta(seconds=-5), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=800), "2 years ago"),
    ],
)
def test_age(ago: timedelta, text: str) -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC)
    assert human_age(now - ago, now) == text


def test_short_id_of_a_digest() -> None:
    assert short_id("sha256:" + "ab" * 32) == "abababababab"
    assert short_id("cd" * 32) == "cdcdcdcdcdcd"


def test_table_is_aligned_and_has_no_trailing_spaces() -> None:
    assert format_table(["A", "LONG", "C"], [["wide one", "x", ""], ["y", "z", "end"]]) == (
        "A         LONG  C\nwide one  x\ny         z     end\n"
    )


def test_table_without_rows_is_its_heading() -> None:
    assert format_table(["A", "B"], []) == "A  B\n"
