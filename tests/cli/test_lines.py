"""Progress as lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
from itertools import repeat

from asyncpull.cli.progress.lines import JsonLines, PlainLines, event_name
from asyncpull.progress import (
    Dropped,
    Event,
    ExtractAdvanced,
    ExtractCompleted,
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchServed,
    FetchStarted,
    LayerQueued,
    LayerReused,
    LockAwaited,
    Mounted,
    PullCompleted,
    PullFailed,
    PullStarted,
    Resolved,
    VerifyCompleted,
    VerifyStarted,
)

A = "sha256:" + "a" * 64


def test_event_names() -> None:
    assert event_name(PullStarted(1, "x")) == "pull_started"
    assert event_name(Resolved(1, "x", A, 1, 0, 0)) == "resolved"


def written(kind: type[PlainLines | JsonLines], *events: Event) -> list[str]:
    stream = io.StringIO()
    with kind(stream, repeat(0.0).__next__) as reporter:
        for event in events:
            reporter.report(event)
    return stream.getvalue().splitlines()


def test_plain_lines() -> None:
    assert written(
        PlainLines,
        PullStarted(1, "x/y:1"),
        Resolved(1, "x/y:1", A, 3, 1, 30_000_000),
        LayerReused(1, "x/y:1", A, 7),
        FetchStarted(1, "x/y:1", A, 30_000_000, 5_000),
        FetchAdvanced(1, "x/y:1", A, 10_000),
        FetchRetried(1, "x/y:1", A, "connection reset", 1.0),
        FetchCompleted(1, "x/y:1", A, 30_000_000),
        ExtractCompleted(1, "x/y:1", A, 90_000_000),
        PullCompleted(1, "x/y:1", "f" * 64, 29_995_000, 3.21),
    ) == [
        f"x/y:1: resolved to {A}: 3 layers, 1 here already, 30.0 MB to fetch",
        "x/y:1: aaaaaaaaaaaa is there already",
        "x/y:1: aaaaaaaaaaaa fetching 30.0 MB, resumed at 5.0 kB",
        "x/y:1: aaaaaaaaaaaa broke off (connection reset), trying again in 1.0 s",
        "x/y:1: aaaaaaaaaaaa fetched",
        "x/y:1: aaaaaaaaaaaa verified and extracted, 90.0 MB",
        "x/y:1: done in 3.2 s, 30.0 MB fetched",
    ]


def test_plain_lines_of_layers_that_others_bring_in_and_of_mounts() -> None:
    assert written(
        PlainLines,
        LayerQueued(1, "x", A, 7),  # its turn comes soon: no line
        LayerQueued(2, "y", A, 7, behind=1),
        VerifyStarted(1, "x", A, 7),
        VerifyCompleted(1, "x", A),
        Mounted(2, "y", "/mnt/y"),
        LockAwaited(2, "y", "/g/layers.lock", 3.0, "process 7 (podman images)"),
        LockAwaited(2, "y", "/g/layers.lock", 6.0, ""),
        Dropped(0, "", 3),
    ) == [
        "y: aaaaaaaaaaaa is brought in by another pull, waiting for that",
        "y: mounted at /mnt/y",
        "y: waits for the lock /g/layers.lock, held by process 7 (podman images)",
        "y: waits for the lock /g/layers.lock, held by somebody",
    ]


def test_json_lines_of_every_kind_of_event() -> None:
    events = [FetchServed(1, "x", A, "q.io/a"), LayerQueued(2, "y", A, 7, 1), Dropped(0, "", 3)]
    assert [json.loads(line) for line in written(JsonLines, *events)] == [
        {"event": "fetch_served", "pull": 1, "reference": "x", "digest": A, "origin": "q.io/a"},
        {"event": "layer_queued", "pull": 2, "reference": "y", "digest": A, "size": 7, "behind": 1},
        {"event": "dropped", "pull": 0, "reference": "", "count": 3},
    ]


def test_a_failure_is_left_to_the_complaint() -> None:
    assert written(PlainLines, PullFailed(1, "x", "because")) == []


def test_what_a_registry_says_stays_on_one_line() -> None:
    lines = written(PlainLines, FetchRetried(1, "x", A, "two\nlines \x1b[1m", 1.0))
    assert lines == ["x: aaaaaaaaaaaa broke off (two lines \\x1b[1m), trying again in 1.0 s"]


def test_a_long_fetch_says_now_and_then_how_far_it_is() -> None:
    lines = PlainLines(io.StringIO(), repeat(0.0).__next__)
    assert lines.line(Resolved(1, "x", A, 1, 0, 100), 0) is not None
    assert lines.line(FetchStarted(1, "x", A, 100, 0), 1) is not None
    assert lines.line(FetchAdvanced(1, "x", A, 30), 5.9) is None
    assert lines.line(FetchAdvanced(1, "x", A, 40), 6) == "x: fetched 40%, extracted 0% of 100 B"
    assert lines.line(ExtractAdvanced(1, "x", A, 40), 7) is None


def test_json_lines_hold_the_fields() -> None:
    lines = [json.loads(line) for line in written(JsonLines, PullStarted(1, "x"), FetchStarted(1, "x", A, 10, 3))]
    assert lines == [
        {"event": "pull_started", "pull": 1, "reference": "x"},
        {"event": "fetch_started", "pull": 1, "reference": "x", "digest": A, "size": 10, "position": 3},
    ]


def test_json_advances_are_thinned_out_per_blob() -> None:
    lines = JsonLines(io.StringIO(), repeat(0.0).__next__)
    assert lines.line(FetchAdvanced(1, "x", A, 1), 0) is not None
    assert lines.line(FetchAdvanced(1, "x", A, 2), 0.05) is None
    assert lines.line(ExtractAdvanced(1, "x", A, 2), 0.05) is not None
    assert lines.line(FetchAdvanced(1, "x", "sha256:other", 2), 0.05) is not None
    assert lines.line(FetchAdvanced(1, "x", A, 3), 0.1) is not None


def test_a_reader_who_left_harms_nobody() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        with PlainLines(stream) as reporter:
            for _ in range(3):
                reporter.report(FetchCompleted(1, "x", A, 1))
        # What the stream still buffers cannot be written either; that is not the reporter's affair.
        with contextlib.suppress(BrokenPipeError):
            stream.close()
