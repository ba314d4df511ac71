"""Events become spans: what began and what ended, of the same pull and the same layer."""

from __future__ import annotations

import json
from dataclasses import asdict

from bench.timeline import Moment, Span, spans_of, timeline_of

MOMENTS = [
    Moment(5.0, "PullStarted", 1),
    Moment(5.0, "ResolveStarted", 1),
    Moment(5.25, "Resolved", 1, "sha256:manifest"),
    Moment(5.25, "FetchStarted", 1, "sha256:a"),
    Moment(5.5, "FetchStarted", 2, "sha256:a"),
    Moment(5.5, "ExtractStarted", 1, "sha256:a"),
    Moment(5.75, "ExtractAdvanced", 1, "sha256:a"),
    Moment(6.0, "FetchCompleted", 1, "sha256:a"),
    Moment(6.5, "ExtractCompleted", 1, "sha256:a"),
    Moment(6.5, "CommitStarted", 1),
    Moment(6.75, "CommitCompleted", 1),
]


def test_spans_are_paired_by_pull_and_layer() -> None:
    assert spans_of(MOMENTS) == (
        Span("resolve", 5.0, 5.25),
        Span("fetch", 5.25, 6.0, "sha256:a"),
        Span("extract", 5.5, 6.5, "sha256:a"),
        Span("commit", 6.5, 6.75),
    )


def test_time_counts_from_the_first_event() -> None:
    timeline = timeline_of("tiny", "8M", json.dumps([asdict(moment) for moment in MOMENTS]))

    assert timeline.first_extracted == 0.75
    assert timeline.phases == {"resolve": (0, 0.25), "fetch": (0.25, 1), "extract": (0.5, 1.5), "commit": (1.5, 1.75)}
