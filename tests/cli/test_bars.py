"""What the terminal shows, drawn into a console of a known size."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from asyncpull.cli.progress.bars import Bars
from asyncpull.progress import (
    Event,
    ExtractAdvanced,
    ExtractCompleted,
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchStarted,
    PullCompleted,
    PullFailed,
    PullStarted,
    Resolved,
)

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MB = 1_000_000


def frame(*events: Event, width: int = 100, height: int = 20) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    bars = Bars(console)
    for event in events:
        bars.report(event)
    console.print(bars.frame())
    return [line.rstrip() for line in stream.getvalue().splitlines()]


BEGUN = (
    PullStarted(1, "x/y:1"),
    Resolved(1, "x/y:1", A, 3, 1, 40 * MB),
    FetchStarted(1, "x/y:1", A, 30 * MB, 0),
    FetchAdvanced(1, "x/y:1", A, 15 * MB),
    ExtractAdvanced(1, "x/y:1", A, 3 * MB),
)


def test_a_row_per_layer_and_a_total() -> None:
    head, layer, total, *_ = frame(*BEGUN)
    assert head == "x/y:1  pulling, 0/3 layers"
    assert layer.startswith("aaaaaaaaaaaa fetch ━")
    assert "15.0/30.0 MB extract ━" in layer
    assert layer.endswith(" 10%")
    assert total.startswith("total        fetch ━")
    assert "15.0/40.0 MB" in total
    assert total.endswith("  7%")


def test_a_pull_that_is_done_is_full() -> None:
    head, *rows = frame(
        *BEGUN,
        FetchCompleted(1, "x/y:1", A, 30 * MB),
        ExtractCompleted(1, "x/y:1", A, 90 * MB),
        PullCompleted(1, "x/y:1", "f" * 64, 30 * MB, 3.2),
    )
    assert head == "x/y:1  done in 3.2 s, 1/3 layers"
    assert all(row.endswith("100%") for row in rows)


def test_trouble_is_told_below() -> None:
    lines = frame(*BEGUN, FetchRetried(1, "x/y:1", A, "connection\x1b reset", 1.0))
    assert lines[-1] == "aaaaaaaaaaaa: connection\\x1b reset; trying again"


def test_a_failure_is_in_the_heading() -> None:
    assert frame(*BEGUN, PullFailed(1, "x/y:1", "because"))[0].startswith("x/y:1  failed")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_rows_stay_within_the_terminal(width: int) -> None:
    for line in frame(*BEGUN, width=width):
        assert len(line) <= width


def test_everything_stays_within_the_terminals_height() -> None:
    many = [FetchStarted(1, "x", f"sha256:{number:064}", MB, 0) for number in range(60)]
    lines = frame(PullStarted(1, "x"), Resolved(1, "x", A, 60, 0, 60 * MB), *many, height=10)
    assert len(lines) <= 10
    assert any(line.startswith("total") for line in lines)


def test_drawing_leaves_the_terminal_as_it_was() -> None:
    stream = io.StringIO()
    with Bars(Console(file=stream, width=80, height=20, force_terminal=True)) as bars:
        for event in BEGUN:
            bars.report(event)
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor hidden, and shown again
