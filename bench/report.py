"""The page to look at: one HTML file that needs nothing else, and its tables as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.cases import SWEEPS
from bench.orders import OURS
from bench.plots import bars, gantt, scaling
from bench.results import Spread, wall_ratios
from bench.scenarios import SCENARIOS
from bench.tables import case_rows, head, is_sweep_only, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.results import Document


@dataclass(frozen=True, slots=True)
class Cell:
    """A ratio of the overview, as text."""

    median: str
    spread: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Overview:
    """Walls of all peers by ours in all cases."""

    peers: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Section:
    """One case on the page; ``bars`` and ``timeline`` are SVG."""

    id: str
    title: str
    head: str
    bars: str
    columns: Sequence[str]
    rows: Sequence[dict[str, object]]
    digests: Sequence[str]
    timeline: str = ""


def write_report(document: Document, path: Path) -> list[Path]:
    """Write the page and the tables beside each other: ``path`` with .html and with .md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page_path, table_path = path.with_name(f"{path.name}.html"), path.with_name(f"{path.name}.md")
    page_path.write_text(page(document))
    table_path.write_text(markdown(document))
    return [page_path, table_path]


def page(document: Document) -> str:
    """Return the whole page."""
    loader = PackageLoader("bench", ".")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(
        "page.html"
    )
    cases = [case for case in document.cases if not is_sweep_only(document, case)]
    timelines = {(each.scenario, each.link): each for each in document.timelines}
    shown = next((timelines[case] for case in cases if case in timelines), None)
    failed = [
        f"{result.peer} {len(result.failures)} times with {result.scenario} over {result.link}"
        for result in document.results
        if result.failures
    ]
    return template.render(
        document=document,
        any_cold=any(SCENARIOS[each.name].cold for each in document.scenarios if each.name in SCENARIOS),
        stand_ins=sorted({name for each in document.scenarios for name in each.stand_ins}),
        failures="; ".join(failed),
        overview=overview(document, cases),
        scalings=[svg for sweep in SWEEPS.values() if (svg := scaling(document, sweep))],
        cases=[_section(document, case) for case in cases],
        showcase=shown and {"title": document.scenario(shown.scenario).says, "svg": gantt(shown)},
        words=" ".join(_words(document, case) for case in cases),
    )


def overview(document: Document, cases: Sequence[tuple[str, str]]) -> Overview:
    """Return the ratios of all cases."""
    peers = list(dict.fromkeys(r.peer for case in cases for r in document.of(case) if r.peer in document.versions))
    peers = [peer for peer in peers if peer != OURS]
    rows = [Row(_title(document, case), [_cell(document, case, peer) for peer in peers]) for case in cases]
    return Overview(peers, rows)


def _cell(document: Document, case: tuple[str, str], peer: str) -> Cell:
    theirs, ours = document.find(case, peer), document.ours(case)
    if theirs is None or ours is None:
        return Cell("")
    ratios = Spread.of(wall_ratios(theirs, ours))
    return Cell(f"{ratios.median:.2f}", f"{ratios.least:.2f} to {ratios.most:.2f}") if ratios else Cell("failed")


def _section(document: Document, case: tuple[str, str]) -> Section:
    scenario, ours = document.scenario(case[0]), document.ours(case)
    columns, *rows = case_rows(document, case)
    timeline = next((each for each in document.timelines if (each.scenario, each.link) == case), None)
    return Section(
        f"{case[0]}-{case[1]}",
        _title(document, case),
        head(scenario, case[1]),
        bars(document.of(case), ours) if ours and ours.done else "",
        columns,
        [{"ours": row[0] == OURS, "cells": row} for row in rows],
        scenario.digests,
        gantt(timeline) if timeline else "",
    )


def _title(document: Document, case: tuple[str, str]) -> str:
    return f"{document.scenario(case[0]).says}, {document.links[case[1]]}"


def _words(document: Document, case: tuple[str, str]) -> str:
    peers = [result.peer for result in document.of(case) if result.peer in document.versions and result.peer != OURS]
    return f"{case[0]}@{case[1]}" + (f":{','.join(peers)}" if peers else "")
