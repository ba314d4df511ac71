"""The tables and the page say what was measured, caveats first, and need nothing from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from bench.cases import SWEEPS, variant
from bench.measure import Usage
from bench.plots import bars, gantt, scaling
from bench.report import page, write_report
from bench.results import Result
from bench.tables import markdown, table
from tests.bench.documents import CASE, document, ours, theirs

if TYPE_CHECKING:
    from pathlib import Path

    from bench.results import Document


def texts(svg: str) -> list[str]:
    """All that can be read in a plot."""
    return [
        "".join(each.itertext()).strip() for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("text")
    ]


def test_every_figure_stands_beside_its_ratio() -> None:
    said = table(document(), CASE)

    assert "small over 8M: 1 image, 3 layers, 40 entries, 30 MB compressed, 90 MB unpacked" in said
    own, others = said.splitlines()[2:]
    for cell in ("2.00 s", "(1.00 to 9.00)", "x1.00 (1.00 to 1.00)", "30 MB x1.000", "200.0", "0.25 s"):
        assert cell in own
    for cell in ("x3.00 (1.00 to 4.00)", "4.00 s x4.00", "1.00 s x2.00", "50 MiB x0.50", "60 MB x2.000", "300.0"):
        assert cell in others


def test_markdown_has_ratios_and_no_times() -> None:
    said = markdown(document())

    assert "| what is pulled | podman 5.8.6 |" in said
    assert "| a <small> image, 30 MB, 8 MB/s per connection | 3.00 (1.00 to 4.00) |" in said
    assert "| a <small> image, 30 MB, 8 MB/s per connection | 0.25, 2.00, 1.00 |" in said
    assert "2026-11-29, revision 1111, Some Processor, 2 cores, 24 GiB" in said


def test_markdown_tells_of_failures() -> None:
    failed = document()
    result = failed.results[1]
    result.times, result.failures = [None] * 3, ["reset"] * 3

    assert "| failed |" in markdown(failed)


def test_the_page_is_whole_and_escapes(tmp_path: Path) -> None:
    paths = write_report(document(), tmp_path / "2026")

    assert [path.name for path in paths] == ["2026.html", "2026.md"]
    said = paths[0].read_text()
    assert "a &lt;small&gt; image" in said
    assert said.index("Before you believe") < said.index("At a glance") < said.index("Case by case")
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", re.sub(r"xmlns[^ ]*|xlink:href=\"#[^\"]*\"", "", said))
    assert "scripts/bench --rounds 3 --scenarios small@8M:podman" in said


def test_the_page_names_stand_ins_and_failures() -> None:
    odd = document()
    odd.scenarios[0] = replace(odd.scenarios[0], stand_ins=("bash",))
    odd.results[1].failures = ["reset"]

    said = page(odd)

    assert "generated files stand for them: bash" in said
    assert "podman 1 times with small over 8M" in said


def test_bars_are_in_order_with_their_ratios() -> None:
    read = texts(bars([theirs(), ours()], ours()))

    assert read.index("asyncpull") < read.index("podman")
    assert {"3.00", "1.00", "3.33", "0.50"} <= set(read)


def test_a_timeline_has_a_row_for_each_layer() -> None:
    (timeline,) = document().timelines

    read = texts(gantt(timeline))

    assert {"pull", "layer dddddddd", "first bytes extracted", "resolve", "commit"} <= set(read)


def _swept(name: str) -> Document:
    swept = document()
    sweep = SWEEPS[name]
    swept.results = [
        Result(point.scenario, point.link, peer, [Usage(factor * (10 + point.value), 1.0, 1.0)])
        for point in sweep.points
        for factor, peer in enumerate(point.peers, start=1)
    ]
    return swept


def test_scaling_is_by_the_first_point_of_ours() -> None:
    read = texts(scaling(_swept("layers"), SWEEPS["layers"]) or "")

    assert {"asyncpull", "podman", "layers", "120", "10x"} <= set(read)


def test_variants_of_ours_are_one_line() -> None:
    read = texts(scaling(_swept("connections"), SWEEPS["connections"]) or "")

    assert read.count("asyncpull") == 1
    assert variant("connections", 4) not in read


def test_a_series_that_was_not_measured_has_no_plot() -> None:
    assert scaling(document(), SWEEPS["workers"]) is None


def test_a_page_of_series_alone() -> None:
    swept = _swept("layers")
    swept.scenarios = [replace(swept.scenarios[0], name=point.scenario) for point in SWEEPS["layers"].points]
    swept.links = {"loopback": "loopback"}
    swept.timelines = []

    assert "How it grows" in page(swept)
