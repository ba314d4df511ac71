"""Every figure of the table stands beside its ratio to ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.images import BenchImage
from bench.layers import Layer
from bench.measure import Usage
from bench.peers import Command
from bench.report import MiB, Result, save, table

if TYPE_CHECKING:
    from pathlib import Path


def _image(tmp_path: Path) -> BenchImage:
    layer = Layer(tmp_path / "layer", "sha256:" + "a" * 64, 10_000_000, "sha256:" + "b" * 64, 30_000_000, 12)
    return BenchImage("small", b"{}", b"{}", (layer,))


def _results() -> list[Result]:
    ours = Result("small", "asyncpull", [Usage(2.0, 1.0, 0.5), Usage(1.0, 1.0, 0.5), Usage(9.0, 1.0, 0.5)], [100 * MiB])
    theirs = Result("small", "podman", [Usage(6.0, 4.0, 1.0)], [50 * MiB])
    return [ours, theirs]


def test_medians_and_ratios(tmp_path: Path) -> None:
    said = table(_image(tmp_path), _results())

    assert "1 layers, 12 entries, 10 MB gzip, 30 MB unpacked" in said
    ours, theirs = said.splitlines()[2:]
    assert "2.00 s x1.00" in ours
    assert "(1.00 to 9.00)" in ours
    for cell in ("6.00 s x3.00", "4.00 s x4.00", "1.00 s x2.00", "50 MiB x0.50"):
        assert cell in theirs


def test_everything_is_saved(tmp_path: Path) -> None:
    peers = [Command("asyncpull", "1.2", (), ()), Command("podman", "5.8.6", (), ())]

    path = save(tmp_path / "results", peers, [_image(tmp_path)], _results())

    document = json.loads(path.read_text())
    assert document["versions"] == {"asyncpull": "1.2", "podman": "5.8.6"}
    assert document["images"][0]["digest"].startswith("sha256:")
    assert [len(result["times"]) for result in document["results"]] == [3, 1]
    assert document["results"][1]["median"] == {"wall": 6.0, "user": 4.0, "system": 1.0, "peak": 50 * MiB}
