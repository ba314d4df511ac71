"""One pull as spans of time: what the events of a pull make of its phases, and of each layer's."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PHASES = ("resolve", "fetch", "extract", "verify", "commit", "mount")
_PAIRS = {
    "ResolveStarted": ("resolve", "Resolved"),
    "FetchStarted": ("fetch", "FetchCompleted"),
    "ExtractStarted": ("extract", "ExtractCompleted"),
    "VerifyStarted": ("verify", "VerifyCompleted"),
    "CommitStarted": ("commit", "CommitCompleted"),
    "MountStarted": ("mount", "MountCompleted"),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """An event: ``at`` is in seconds since the pull was asked for, ``digest`` that of the layer, if it is about one."""

    at: float
    kind: str
    pull: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that was under way from ``start`` to ``end``, in seconds since the pull was asked for."""

    phase: str
    start: float
    end: float
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The phases of one pull of ``scenario`` over ``link``; those of layers overlap."""

    scenario: str
    link: str
    spans: tuple[Span, ...]
    first_extracted: float | None = None
    """When a worker first told of bytes that it had extracted."""

    @property
    def phases(self) -> dict[str, tuple[float, float]]:
        """From when to when any span of a phase was under way."""
        return {
            phase: (min(span.start for span in spans), max(span.end for span in spans))
            for phase in PHASES
            if (spans := [span for span in self.spans if span.phase == phase])
        }


def spans_of(moments: Iterable[Moment]) -> tuple[Span, ...]:
    """Pair what started with what completed; what never completed is left out."""
    spans: list[Span] = []
    begun: dict[tuple[str, int, str], tuple[str, float]] = {}
    for moment in moments:
        if moment.kind in _PAIRS:
            phase, end = _PAIRS[moment.kind]
            begun.setdefault((end, moment.pull, moment.digest if phase not in _WHOLE else ""), (phase, moment.at))
        else:
            key = (moment.kind, moment.pull, moment.digest if moment.kind not in _WHOLE_ENDS else "")
            if key in begun:
                phase, start = begun.pop(key)
                spans.append(Span(phase, start, moment.at, key[2]))
    return tuple(sorted(spans, key=lambda span: span.start))


_WHOLE = {"resolve", "commit", "mount"}
"""Phases of the pull as a whole; ``Resolved`` names the digest of the manifest."""
_WHOLE_ENDS = {end for phase, end in _PAIRS.values() if phase in _WHOLE}


def timeline_of(scenario: str, link: str, said: str) -> Timeline:
    """Read what bench.embedded prints with ``--trace``."""
    moments = [Moment(**each) for each in json.loads(said)]
    began = moments[0].at
    moments = [replace(moment, at=moment.at - began) for moment in moments]
    first = next((moment.at for moment in moments if moment.kind == "ExtractAdvanced"), None)
    return Timeline(scenario, link, spans_of(moments), first)


def busiest(spans: Sequence[Span], phase: str) -> int:
    """How many spans of a phase were under way at the same time, at most."""
    changes = sorted(change for span in spans if span.phase == phase for change in ((span.start, 1), (span.end, -1)))
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most
