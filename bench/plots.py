"""The plots of the page, as SVG: matplotlib draws them without a display, and the text in them stays text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from bench.cases import limits_of
from bench.orders import OURS
from bench.results import Spread, wall_ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from bench.cases import Sweep
    from bench.results import Document, Result
    from bench.timeline import Timeline

_STYLE = str(Path(__file__).with_name("plots.mplstyle"))
_OURS, _THEIRS, _FLOOR = "#0f766e", "#94a3b8", "#d97706"
_USER, _SYSTEM = "#475569", "#b6c2d1"
_PHASES = {
    "resolve": "#7c3aed",
    "fetch": "#93c5fd",
    "extract": "#0f766e",
    "verify": "#f59e0b",
    "commit": "#be123c",
    "mount": "#475569",
}
_WHOLE = ("resolve", "commit", "mount")
_MiB = 1 << 20


def bars(results: Sequence[Result], ours: Result) -> str:
    """Return one case: walls by ours with their spread, processor time by ours, and memory by ours."""
    shown = sorted(
        (result for result in results if result.done and not limits_of(result.peer)),
        key=lambda result: result.wall.median if result.wall else 0.0,
    )
    with rc_context(fname=_STYLE):
        figure = Figure(figsize=(10, 0.8 + 0.38 * len(shown)), layout="constrained")
        wall, cpu, memory = figure.subplots(1, 3, sharey=True, width_ratios=(3, 2, 1.4))
        places = range(len(shown))
        _walls(wall, shown, ours)
        _processors(cpu, shown, ours)
        peaks = [result.peak / ours.peak if result.peak and ours.peak else 0.0 for result in shown]
        bars = memory.barh(places, peaks, color=[_colour(result) for result in shown], height=0.62)
        memory.bar_label(bars, [f"{peak:.2f}" if peak else "" for peak in peaks], padding=3, fontsize=9)
        memory.set_title("memory, by asyncpull's", fontsize=10, loc="left")
        for axes in (wall, cpu, memory):
            axes.axvline(1, color=_OURS, linewidth=1, linestyle=":")
            axes.margins(x=0.22)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.tick_params(axis="both", length=0)
        wall.set_yticks(places, [result.peer for result in shown])
        wall.invert_yaxis()
        return _svg(figure)


def _walls(axes: Axes, shown: Sequence[Result], ours: Result) -> None:
    spreads = [Spread.of(wall_ratios(result, ours)) or Spread(0, 0, 0) for result in shown]
    places = range(len(shown))
    errors = [[each.median - each.least for each in spreads], [each.most - each.median for each in spreads]]
    axes.barh(places, [each.median for each in spreads], color=[_colour(result) for result in shown], height=0.62)
    is_ours = [result.peer == OURS for result in shown]
    whiskers = [[0.0 if own else value for own, value in zip(is_ours, side, strict=True)] for side in errors]
    axes.errorbar(
        [each.median for each in spreads], places, xerr=whiskers, fmt="none", ecolor="#0f172a", elinewidth=1, capsize=3
    )
    for place, each in zip(places, spreads, strict=True):
        axes.annotate(
            f"{each.median:.2f}", (each.most, place), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_title("wall, by asyncpull's: median, least, most", fontsize=10, loc="left")


def _processors(axes: Axes, shown: Sequence[Result], ours: Result) -> None:
    whole = ours.cpu.median if ours.cpu and ours.cpu.median else 1.0
    user = [result.user.median / whole if result.user else 0.0 for result in shown]
    system = [result.system.median / whole if result.system else 0.0 for result in shown]
    places = range(len(shown))
    axes.barh(places, user, color=_USER, height=0.62)
    top = axes.barh(places, system, left=user, color=_SYSTEM, height=0.62)
    axes.bar_label(top, [f"{one + other:.2f}" for one, other in zip(user, system, strict=True)], padding=3, fontsize=9)
    axes.set_title("CPU, by asyncpull's: user, then system", fontsize=10, loc="left")


def _colour(result: Result) -> str:
    if result.peer == OURS:
        return _OURS
    return _FLOOR if result.peer.startswith("floor") else _THEIRS


def gantt(timeline: Timeline, most: int = 24) -> str:
    """Return one pull: a row for the pull as a whole, and one for each of its ``most`` longest layers."""
    digests = dict.fromkeys(span.digest for span in timeline.spans if span.digest)
    lengths = {
        digest: sum(span.end - span.start for span in timeline.spans if span.digest == digest) for digest in digests
    }
    kept = set(sorted(lengths, key=lambda digest: -lengths[digest])[:most])
    rows = {digest: number for number, digest in enumerate((d for d in digests if d in kept), start=1)}
    with rc_context(fname=_STYLE):
        figure = Figure(figsize=(10, 1.4 + 0.26 * (len(rows) + 1)), layout="constrained")
        axes = figure.subplots()
        for span in timeline.spans:
            if span.phase in _WHOLE:
                row, offset, height = 0, 0.0, 0.7
            elif span.digest in rows:
                # A layer is extracted while it arrives: the two bars lie one above the other.
                row, offset, height = rows[span.digest], (-0.19 if span.phase == "fetch" else 0.19), 0.36
            else:
                continue
            axes.barh(row + offset, span.end - span.start, left=span.start, height=height, color=_PHASES[span.phase])
        if timeline.first_extracted is not None:
            axes.axvline(timeline.first_extracted, color="#0f172a", linewidth=1, linestyle=":")
            where, coordinates = (timeline.first_extracted, 1.0), ("data", "axes fraction")
            axes.annotate("first bytes extracted", where, (0, 3), coordinates, "offset points", fontsize=8, ha="center")
        axes.set_yticks([0, *rows.values()], ["pull", *(f"layer {digest[7:15]}" for digest in rows)])
        axes.invert_yaxis()
        axes.set_xlabel("seconds since the pull was asked for (one run, not a result)")
        axes.set_xlim(left=0)
        axes.tick_params(axis="both", length=0)
        handles = [Patch(color=colour, label=phase) for phase, colour in _PHASES.items()]
        figure.legend(handles=handles, frameon=False, fontsize=9, ncols=len(handles), loc="outside upper left")
        return _svg(figure)


def scaling(document: Document, sweep: Sweep) -> str | None:
    """Return how the wall follows from what a series varies, by asyncpull's first; None if that was not measured."""
    lines = {name: _line_of(document, sweep, name) for name in _names(sweep)}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    unit = next(iter(lines.values()))[0][1].median
    with rc_context(fname=_STYLE):
        figure = Figure(figsize=(4.9, 3.1), layout="constrained")
        axes = figure.subplots()
        for name, points in lines.items():
            values = [value for value, _ in points]
            medians = [spread.median / unit for _, spread in points]
            errors = [
                [(spread.median - spread.least) / unit for _, spread in points],
                [(spread.most - spread.median) / unit for _, spread in points],
            ]
            colour = _OURS if name == OURS else _THEIRS
            axes.errorbar(values, medians, yerr=errors, color=colour, marker="o", markersize=4, capsize=3, label=name)
            axes.annotate(name, (values[-1], medians[-1]), (-4, 7), textcoords="offset points", ha="right", fontsize=9)
        axes.set_xscale("log")
        ticks = sorted({value for points in lines.values() for value, _ in points})
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(sweep.name)
        axes.set_ylabel("wall, by asyncpull's first")
        axes.set_title(sweep.says, fontsize=10, loc="left")
        axes.margins(y=0.15)
        return _svg(figure)


def _names(sweep: Sweep) -> list[str]:
    """The lines of a series; variants of asyncpull are one."""
    names = {OURS if limits_of(name) else name for point in sweep.points for name in point.peers}
    return sorted(names, key=lambda name: name != OURS)


def _line_of(document: Document, sweep: Sweep, line: str) -> list[tuple[int, Spread]]:
    found: list[tuple[int, Spread]] = []
    for point in sweep.points:
        own = next((name for name in point.peers if name == line or (line == OURS and limits_of(name))), None)
        result = document.find((point.scenario, point.link), own) if own else None
        if result is not None and result.wall is not None:
            found.append((point.value, result.wall))
    return found


def _svg(figure: Figure) -> str:
    """Return the element alone, without the lines that go before it in a file."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
