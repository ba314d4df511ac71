"""Measurements as a table for people and as JSON for later."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

from bench.peers import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.images import Workload
    from bench.links import Traffic
    from bench.measure import Usage
    from bench.peers import Peer

MiB = 1 << 20
MB = 1_000_000


@dataclass(slots=True)
class Result:
    """All runs of one peer with one scenario over one link. ``peaks`` are bytes."""

    scenario: str
    link: str
    peer: str
    times: list[Usage] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)

    @property
    def walls(self) -> list[float]:
        return [usage.wall for usage in self.times]

    @property
    def user(self) -> float:
        return median(usage.user for usage in self.times)

    @property
    def system(self) -> float:
        return median(usage.system for usage in self.times)

    @property
    def peak(self) -> int | None:
        return max(self.peaks, default=None)

    @property
    def egress(self) -> int:
        """The most bytes of blobs that a run had from the registry."""
        return max(each.blob_bytes for each in self.traffic)

    @property
    def at_once(self) -> float:
        return median(each.at_once for each in self.traffic)


def wall_ratios(theirs: Result, ours: Result) -> list[float]:
    """Return, round by round, how many times as long as asyncpull's a pull took: what ran next to each other."""
    return [their / our for their, our in zip(theirs.walls, ours.walls, strict=True)]


_COLUMNS = (
    ("", 10),
    ("wall", 8),
    ("(min to max)", 16),
    ("per pair (min to max)", 22),
    ("user CPU", 15),
    ("system CPU", 15),
    ("peak PSS", 17),
    ("egress", 17),
    ("at once", 7),
)


def table(workload: Workload, link: str, results: Sequence[Result]) -> str:
    """Return the results of one case. Ratios are to ours: above 1, asyncpull needs less.

    Egress is beside its ratio to the size of all blobs, each counted once; the last column is the most blobs, or parts
    of them, that were on their way at the same time.
    """
    ours = next((result for result in results if result.peer == OURS), None)
    layers = workload.layers
    head = (
        f"{workload.name} over {link}: {len(workload.images)} images, {len(layers)} layers,"
        f" {sum(layer.entries for layer in layers)} entries, {workload.blob_size / MB:.0f} MB gzip,"
        f" {sum(layer.unpacked_size for layer in layers) / MB:.0f} MB unpacked"
    )
    rows = [[name for name, _ in _COLUMNS], *(_cells(workload, result, ours) for result in results)]
    return "\n".join([head, *map(_line, rows)])


def _cells(workload: Workload, result: Result, ours: Result | None) -> list[str]:
    walls, ratios = result.walls, wall_ratios(result, ours) if ours else []
    peak = ours.peak if ours else None
    return [
        result.peer,
        f"{median(walls):.2f} s",
        f"({min(walls):.2f} to {max(walls):.2f})",
        f"x{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
        _cell(result.user, ours.user if ours else None, "s"),
        _cell(result.system, ours.system if ours else None, "s"),
        _cell(result.peak / MiB, peak and peak / MiB, "MiB", 0) if result.peak else "",
        f"{result.egress / MB:.0f} MB x{result.egress / workload.blob_size:.3f}",
        f"{result.at_once:.0f}",
    ]


def _line(cells: Sequence[str]) -> str:
    name, *others = (f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    return "  ".join(["", f"{name.strip():<{_COLUMNS[0][1]}}", *others]).rstrip()


def _cell(value: float, ours: float | None, unit: str, digits: int = 2) -> str:
    ratio = f"x{value / ours:.2f}" if ours else "x?"
    return f"{value:.{digits}f} {unit} {ratio}"


def save(directory: Path, peers: Sequence[Peer], workloads: Sequence[Workload], results: Sequence[Result]) -> Path:
    """Write everything that was measured, and on what, to a file named after the time; return its path."""
    now = datetime.now(UTC)
    document = {
        "date": now.isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "versions": {peer.name: peer.version for peer in peers},
        "scenarios": [workload.as_json() for workload in workloads],
        "results": [_result_as_json(result, results) for result in results],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{now:%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _result_as_json(result: Result, results: Sequence[Result]) -> dict[str, object]:
    key = (result.scenario, result.link, OURS)
    ours = next((each for each in results if (each.scenario, each.link, each.peer) == key), None)
    return {
        "scenario": result.scenario,
        "link": result.link,
        "peer": result.peer,
        "median": {
            "wall": median(result.walls),
            "user": result.user,
            "system": result.system,
            "peak": result.peak,
            "at_once": result.at_once,
        },
        "wall_ratios": wall_ratios(result, ours) if ours else None,
        "egress": result.egress,
        "times": [asdict(usage) for usage in result.times],
        "peaks": result.peaks,
        "traffic": [asdict(each) for each in result.traffic],
    }
