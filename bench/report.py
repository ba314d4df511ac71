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

    from bench.images import BenchImage
    from bench.measure import Usage
    from bench.peers import Peer

MiB = 1 << 20


@dataclass(slots=True)
class Result:
    """All runs of one peer with one image. ``peaks`` are bytes."""

    image: str
    peer: str
    times: list[Usage] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return median(usage.wall for usage in self.times)

    @property
    def user(self) -> float:
        return median(usage.user for usage in self.times)

    @property
    def system(self) -> float:
        return median(usage.system for usage in self.times)

    @property
    def peak(self) -> int | None:
        return max(self.peaks, default=None)


def table(image: BenchImage, results: Sequence[Result]) -> str:
    """Return the results of one image, each beside its ratio to ours: above 1, asyncpull needs less."""
    ours = next((result for result in results if result.peer == OURS), None)
    head = (
        f"{image.name}: {len(image.layers)} layers, {image.entries} entries,"
        f" {image.size / 1e6:.0f} MB gzip, {image.unpacked_size / 1e6:.0f} MB unpacked"
    )
    columns = f"  {'':10} {'wall':>15} {'(min to max)':>15} {'user CPU':>15} {'system CPU':>15} {'peak PSS':>17}"
    return "\n".join([head, columns, *(_row(result, ours) for result in results)])


def _row(result: Result, ours: Result | None) -> str:
    walls = [usage.wall for usage in result.times]
    cells = [
        _cell(result.wall, ours.wall if ours else None, "s"),
        f"({min(walls):.2f} to {max(walls):.2f})",
        _cell(result.user, ours.user if ours else None, "s"),
        _cell(result.system, ours.system if ours else None, "s"),
    ]
    row = f"  {result.peer:10} " + " ".join(f"{cell:>15}" for cell in cells)
    if result.peak is None:
        return row
    peak = ours.peak if ours else None
    return f"{row} {_cell(result.peak / MiB, peak and peak / MiB, 'MiB', 0):>17}"


def _cell(value: float, ours: float | None, unit: str, digits: int = 2) -> str:
    ratio = f"x{value / ours:.2f}" if ours else "x?"
    return f"{value:.{digits}f} {unit} {ratio}"


def save(directory: Path, peers: Sequence[Peer], images: Sequence[BenchImage], results: Sequence[Result]) -> Path:
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
        "images": [image.as_json() for image in images],
        "results": [
            {
                "image": result.image,
                "peer": result.peer,
                "median": {"wall": result.wall, "user": result.user, "system": result.system, "peak": result.peak},
                "times": [asdict(usage) for usage in result.times],
                "peaks": result.peaks,
            }
            for result in results
        ],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{now:%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
