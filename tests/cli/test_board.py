"""Events in, numbers out."""

from __future__ import annotations

import pytest

from asyncpull.cli.progress.board import Board, LayerRow, Rate, rows_that_fit
from asyncpull.progress import (
    CommitCompleted,
    CommitStarted,
    Dropped,
    Event,
    ExtractAdvanced,
    ExtractCompleted,
    ExtractStarted,
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchServed,
    FetchStarted,
    LayerQueued,
    LayerReused,
    Mounted,
    PullCompleted,
    PullFailed,
    PullStarted,
    Resolved,
    ResolveStarted,
    Unmounted,
    VerifyCompleted,
    VerifyStarted,
)

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def board_after(*events: Event) -> Board:
    board = Board()
    for event in events:
        board.take(event)
    return board


def test_a_pull_from_beginning_to_end() -> None:
    board = board_after(PullStarted(1, "x"))
    pull = board.pulls[1]
    assert pull.state == "queued"
    board.take(ResolveStarted(1, "x"))
    assert (pull.state, pull.done, pull.is_over) == ("resolving", 0, False)
    begun: list[Event] = [
        Resolved(1, "x", A, 3, 1, 150),
        LayerReused(1, "x", "sha256:c", 7),
        FetchStarted(1, "x", A, 100, 20),
        ExtractStarted(1, "x", A, 100),
        FetchAdvanced(1, "x", A, 60),
        ExtractAdvanced(1, "x", A, 30),
    ]
    for event in begun:
        board.take(event)
    assert (pull.state, pull.layers, pull.done) == ("pulling", 3, 1)
    assert (pull.fetched, pull.extracted, pull.size) == (60, 30, 150)
    assert board.received == 40  # what an earlier pull left did not come now
    ended: list[Event] = [
        FetchCompleted(1, "x", A, 100),
        ExtractCompleted(1, "x", A, 300),
        FetchStarted(1, "x", B, 50, 0),
        ExtractStarted(1, "x", B, 50),
        FetchCompleted(1, "x", B, 50),
        ExtractCompleted(1, "x", B, 90),
        CommitStarted(1, "x"),
    ]
    for event in ended:
        board.take(event)
    assert (pull.state, pull.done, pull.fetched, pull.extracted) == ("committing", 3, 150, 150)
    board.take(CommitCompleted(1, "x"))
    board.take(PullCompleted(1, "x", "id", 130, 1.5))
    assert (pull.state, pull.seconds, pull.is_over) == ("done", 1.5, True)
    assert board.received == 130


def test_a_layer_that_is_copied_is_extracted_without_being_fetched() -> None:
    board = board_after(Resolved(1, "x", A, 1, 0, 0), ExtractStarted(1, "x", A, 10), ExtractCompleted(1, "x", A, 30))
    assert (board.pulls[1].size, board.pulls[1].fetched, board.received) == (10, 10, 0)


def test_trouble_stays_until_bytes_come_again() -> None:
    board = board_after(FetchStarted(1, "x", A, 10, 0), FetchRetried(1, "x", A, "reset", 1.0))
    assert board.pulls[1].rows[A].trouble == "reset"
    board.take(FetchAdvanced(1, "x", A, 5))
    assert board.pulls[1].rows[A].trouble is None


def test_what_waits_who_sends_and_what_is_verified() -> None:
    board = board_after(LayerQueued(1, "x", A, 10), LayerQueued(1, "x", B, 10, behind=2), Dropped(0, "", 1))
    pull = board.pulls[1]
    assert (list(board.pulls), pull.queued) == ([1], {A, B})
    board.take(FetchStarted(1, "x", A, 10, 0))
    board.take(LayerReused(1, "x", B, 10))
    board.take(FetchServed(1, "x", A, "mirror.q.io/a"))
    board.take(VerifyStarted(1, "x", A, 10))
    assert (pull.queued, pull.rows[A].origin, pull.rows[A].is_verifying) == (set(), "mirror.q.io/a", True)
    board.take(VerifyCompleted(1, "x", A))
    assert not pull.rows[A].is_verifying
    board.take(Mounted(1, "x", "/mnt"))
    assert pull.state == "mounted"
    board.take(Unmounted(1, "x", "/mnt"))
    assert pull.state == "done"


def test_pulls_are_kept_apart() -> None:
    board = board_after(FetchStarted(1, "x", A, 10, 0), FetchStarted(2, "y", A, 10, 0), FetchAdvanced(1, "x", A, 5))
    assert (board.pulls[1].fetched, board.pulls[2].fetched) == (5, 0)
    board.take(PullFailed(2, "y", "because"))
    assert (board.pulls[1].is_over, board.pulls[2].state) == (False, "failed")


def test_a_position_never_goes_back() -> None:
    board = board_after(FetchStarted(1, "x", A, 10, 0), FetchAdvanced(1, "x", A, 5), FetchAdvanced(1, "x", A, 4))
    assert board.pulls[1].fetched == 5


def test_a_layer_that_is_fetched_afresh_begins_again() -> None:
    board = board_after(
        FetchStarted(1, "x", A, 10, 5),
        ExtractStarted(1, "x", A, 10),
        ExtractAdvanced(1, "x", A, 7),
        FetchStarted(1, "x", A, 10, 0),
        ExtractStarted(1, "x", A, 10),
    )
    assert (board.pulls[1].fetched, board.pulls[1].extracted) == (0, 0)


def test_rate_over_the_window() -> None:
    rate = Rate(window=5)
    assert rate.sample(0, 0) == 0
    assert rate.sample(1, 100) == pytest.approx(100)
    assert rate.sample(4, 1000) == pytest.approx(250)
    assert rate.sample(10, 1000) == pytest.approx(0)  # only what is younger than the window counts


def test_rows_under_way_come_first_and_keep_their_order() -> None:
    rows = [LayerRow(str(number), 1, is_complete=number not in (1, 5)) for number in range(7)]
    assert [row.digest for row in rows_that_fit(rows, 4)] == ["1", "4", "5", "6"]
    assert rows_that_fit(rows, 7) == rows
    assert rows_that_fit(rows, 0) == []
    assert rows_that_fit(rows, -3) == []
