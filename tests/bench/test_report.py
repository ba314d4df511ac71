"""Every figure of the table stands beside its ratio to ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.images import BenchImage, Workload
from bench.layers import Layer
from bench.links import Traffic
from bench.measure import Usage
from bench.peers import Command
from bench.report import MiB, Result, save, table, wall_ratios

if TYPE_CHECKING:
    from pathlib import Path

MB = 1_000_000


def _layer(tmp_path: Path, letter: str, size: int) -> Layer:
    return Layer(tmp_path / letter, "sha256:" + letter * 64, size, "sha256:" + "f" * 64, 3 * size, 12)


def _workload(tmp_path: Path) -> Workload:
    shared, one, other = (_layer(tmp_path, letter, 10 * MB) for letter in "abc")
    images = (
        BenchImage("small-00", b"{}", b"{1}", (shared, one)),
        BenchImage("small-01", b"{}", b"{2}", (shared, other)),
    )
    return Workload("small", images)


def _results() -> list[Result]:
    ours = Result("small", "8M", "asyncpull", [Usage(2.0, 1.0, 0.5), Usage(1.0, 1.0, 0.5), Usage(9.0, 1.0, 0.5)])
    ours.peaks, ours.traffic = [100 * MiB], [Traffic(9, 30 * MB, 10), Traffic(8, 29 * MB, 12)]
    theirs = Result("small", "8M", "podman", [Usage(6.0, 4.0, 1.0), Usage(4.0, 4.0, 1.0), Usage(9.0, 4.0, 1.0)])
    theirs.peaks, theirs.traffic = [50 * MiB], [Traffic(5, 60 * MB, 1)]
    return [ours, theirs]


def test_medians_and_ratios(tmp_path: Path) -> None:
    said = table(_workload(tmp_path), "8M", _results())

    assert "small over 8M: 2 images, 3 layers, 36 entries, 30 MB gzip, 90 MB unpacked" in said
    ours, theirs = said.splitlines()[2:]
    for cell in ("2.00 s", "(1.00 to 9.00)", "x1.00 (1.00 to 1.00)", "30 MB x1.000", "11"):
        assert cell in ours
    for cell in ("6.00 s", "x3.00 (1.00 to 4.00)", "4.00 s x4.00", "1.00 s x2.00", "50 MiB x0.50", "60 MB x2.000"):
        assert cell in theirs


def test_a_round_is_compared_with_itself() -> None:
    ours, theirs = _results()

    assert wall_ratios(theirs, ours) == [3.0, 4.0, 1.0]


def test_everything_is_saved(tmp_path: Path) -> None:
    peers = [Command("asyncpull", "1.2", (), ()), Command("podman", "5.8.6", (), ())]

    path = save(tmp_path / "results", peers, [_workload(tmp_path)], _results())

    document = json.loads(path.read_text())
    assert document["versions"] == {"asyncpull": "1.2", "podman": "5.8.6"}
    assert len(document["scenarios"][0]["digests"]) == 2
    theirs = document["results"][1]
    assert (theirs["scenario"], theirs["link"], theirs["peer"]) == ("small", "8M", "podman")
    assert theirs["median"] == {"wall": 6.0, "user": 4.0, "system": 1.0, "peak": 50 * MiB, "at_once": 1}
    assert theirs["wall_ratios"] == [3.0, 4.0, 1.0]
    assert theirs["egress"] == 60 * MB
    assert document["results"][0]["traffic"][1] == {"requests": 8, "blob_bytes": 29 * MB, "at_once": 12}


def test_a_store_needs_a_layer_once_for_every_stack_below_it(tmp_path: Path) -> None:
    base, other, top = (_layer(tmp_path, letter, 10 * MB) for letter in "abc")
    images = (BenchImage("one", b"{}", b"{1}", (base, top)), BenchImage("two", b"{}", b"{2}", (other, top)))
    workload = Workload("two", images)

    assert workload.blob_size == 30 * MB + 4
    assert workload.unpacked_size == 4 * 30 * MB
