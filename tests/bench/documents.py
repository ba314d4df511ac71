"""Results as they could have been measured."""

from __future__ import annotations

from bench.images import Facts
from bench.links import Traffic
from bench.measure import Observation, Usage
from bench.results import Document, Machine, Result
from bench.timeline import Span, Timeline

MB = 1_000_000
MiB = 1 << 20
CASE = ("small", "8M")
DIGEST = "sha256:" + "d" * 64


def _result(peer: str, walls: list[float], user: float, system: float) -> Result:
    return Result(*CASE, peer, [Usage(wall, user, system, 90 * MB) for wall in walls])


def ours() -> Result:
    """Of three rounds."""
    result = _result("asyncpull", [2.0, 1.0, 9.0], 1.0, 0.5)
    result.observations, result.calls = [Observation(100 * MiB, 0.25)], [7_200]
    result.traffic = [Traffic(9, 30 * MB, 10), Traffic(8, 29 * MB, 12)]
    return result


def theirs() -> Result:
    """Of the same three."""
    result = _result("podman", [6.0, 4.0, 9.0], 4.0, 1.0)
    result.observations, result.calls = [Observation(50 * MiB, 0.5)], [10_800]
    result.traffic = [Traffic(5, 60 * MB, 1)]
    return result


def document() -> Document:
    """One case, two programs."""
    spans = (Span("resolve", 0.0, 0.1), Span("fetch", 0.1, 1.0, DIGEST), Span("extract", 0.2, 1.2, DIGEST))
    return Document(
        "2026-11-29T10:00:00+00:00",
        "1111",
        3,
        Machine("Some Processor", 2, 24 << 30, "6.1", "3.11", "ext4"),
        {"asyncpull": "1.2", "podman": "5.8.6"},
        {"8M": "8 MB/s per connection"},
        [Facts("small", "a <small> image", ("sha256:" + "a" * 64,), 3, 30 * MB, 90 * MB, 40, 36)],
        [ours(), theirs()],
        [Timeline(*CASE, spans, 0.3)],
    )
