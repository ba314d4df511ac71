"""What was measured as text: a table of a case for the terminal, and Markdown for the README.

Every figure that is a time stands beside its ratio to asyncpull's, or is that ratio alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cases import limits_of
from bench.orders import OURS
from bench.results import Spread, wall_ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.images import Facts
    from bench.results import Document, Result

MiB = 1 << 20
MB = 1_000_000

_COLUMNS = (
    ("", 12),
    ("wall", 8),
    ("(min to max)", 16),
    ("per pair (min to max)", 22),
    ("user CPU", 15),
    ("system CPU", 15),
    ("peak PSS", 15),
    ("written", 14),
    ("egress", 15),
    ("calls/file", 10),
    ("first byte", 10),
    ("failed", 6),
)


def head(scenario: Facts, link: str) -> str:
    """Return in one line what is pulled."""
    images = f"{len(scenario.digests)} image{'s' * (len(scenario.digests) > 1)}"
    return (
        f"{scenario.name} over {link}: {images}, {scenario.layers} layers, {scenario.entries:,} entries,"
        f" {scenario.blob_size / MB:.0f} MB compressed, {scenario.unpacked_size / MB:.0f} MB unpacked"
    )


def table(document: Document, case: tuple[str, str]) -> str:
    """Return the results of one case. Ratios are to ours: above 1, asyncpull needs less.

    Egress is beside its ratio to the size of all blobs, each counted once.
    """
    return "\n".join([head(document.scenario(case[0]), case[1]), *map(_line, case_rows(document, case))])


def case_rows(document: Document, case: tuple[str, str]) -> list[list[str]]:
    """Return the cells of that table, the names of the columns first."""
    scenario, ours = document.scenario(case[0]), document.ours(case)
    rows = [[name for name, _ in _COLUMNS]]
    return rows + [_cells(scenario, result, ours) for result in document.of(case)]


def _cells(scenario: Facts, result: Result, ours: Result | None) -> list[str]:
    wall, ratios = result.wall, Spread.of(wall_ratios(result, ours)) if ours else None
    egress, written = result.egress, result.written
    return [
        result.peer,
        f"{wall.median:.2f} s" if wall else "",
        f"({wall.least:.2f} to {wall.most:.2f})" if wall else "",
        f"x{ratios.median:.2f} ({ratios.least:.2f} to {ratios.most:.2f})" if ratios else "",
        _cell(result.user, ours.user if ours else None),
        _cell(result.system, ours.system if ours else None),
        _ratio(result.peak, ours.peak if ours else None, MiB, "MiB"),
        _ratio(written, ours.written if ours else None, MB, "MB"),
        f"{egress / MB:.0f} MB x{egress / scenario.blob_size:.3f}" if egress is not None else "",
        f"{calls:.1f}" if (calls := calls_per_file(scenario, result)) is not None else "",
        f"{result.first_byte:.2f} s" if result.first_byte is not None else "",
        f"{len(result.failures)}" if result.failures else "",
    ]


def calls_per_file(scenario: Facts, result: Result) -> float | None:
    """System calls of a run for each regular file that a store gets by it."""
    return min(result.calls) / scenario.files if result.calls and scenario.files else None


def _line(cells: Sequence[str]) -> str:
    name, *others = (f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    return "  ".join(["", f"{name.strip():<{_COLUMNS[0][1]}}", *others]).rstrip()


def _cell(value: Spread | None, ours: Spread | None) -> str:
    if value is None:
        return ""
    ratio = f" x{value.median / ours.median:.2f}" if ours and ours.median else ""
    return f"{value.median:.2f} s{ratio}"


def _ratio(value: float | None, ours: float | None, unit: int, name: str) -> str:
    if value is None:
        return ""
    return f"{value / unit:.0f} {name}" + (f" x{value / ours:.2f}" if ours else "")


def markdown(document: Document) -> str:
    """Return the tables of the README: walls of peers by asyncpull's, and what else a pull costs."""
    cases = [case for case in document.cases if not is_sweep_only(document, case)]
    peers = list(
        dict.fromkeys(r.peer for case in cases for r in document.of(case) if r.peer != OURS and not limits_of(r.peer))
    )
    said = (
        f"Walls, peer by asyncpull: above 1, asyncpull is quicker. Medians over {document.rounds} interleaved rounds,"
        " each run compared with its neighbour, and in parentheses the smallest and the largest."
    )
    lines = [
        said,
        "",
        _row(["what is pulled", *(_titled(document, peer) for peer in peers)]),
        _row(["---"] * (1 + len(peers))),
    ]
    lines += [_row([_what(document, case), *(_wall(document, case, peer) for peer in peers)]) for case in cases]
    lines += [
        "",
        "What asyncpull needs of what the peer needs: user CPU time, memory at its peak (PSS), bytes written.",
        "",
        _row(["what is pulled", *(_titled(document, peer) for peer in peers)]),
        _row(["---"] * (1 + len(peers))),
    ]
    lines += [_row([_what(document, case), *(_needs(document, case, peer) for peer in peers)]) for case in cases]
    machine = document.machine
    where = (
        f"{document.date[:10]}, revision {document.revision}, {machine.cpu}, {machine.cores} cores,"
        f" {machine.memory / 2**30:.0f} GiB, Linux {machine.kernel}, {machine.filesystem}."
    )
    return "\n".join([*lines, "", where]) + "\n"


def is_sweep_only(document: Document, case: tuple[str, str]) -> bool:
    """Whether a case is a point of a series, which has a plot of its own."""
    name, _, number = case[0].rpartition("-")
    return (name in ("layers", "files") and number.isdigit()) or (
        all(result.peer == OURS or limits_of(result.peer) for result in document.of(case))
        and any(limits_of(result.peer) for result in document.of(case))
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _titled(document: Document, peer: str) -> str:
    version = document.versions.get(peer, "")
    return peer if peer.startswith("floor") or not version else f"{peer} {version}"


def _what(document: Document, case: tuple[str, str]) -> str:
    scenario = document.scenario(case[0])
    return f"{scenario.says}, {scenario.blob_size / MB:.0f} MB, {document.links[case[1]]}"


def _wall(document: Document, case: tuple[str, str], peer: str) -> str:
    theirs, ours = document.find(case, peer), document.ours(case)
    if theirs is None or ours is None:
        return ""
    ratios = Spread.of(wall_ratios(theirs, ours))
    failed = f", failed {len(theirs.failures)} times" if theirs.failures else ""
    return f"{ratios.median:.2f} ({ratios.least:.2f} to {ratios.most:.2f}){failed}" if ratios else "failed"


def _needs(document: Document, case: tuple[str, str], peer: str) -> str:
    theirs, ours = document.find(case, peer), document.ours(case)
    if theirs is None or ours is None:
        return ""
    pairs = (
        (ours.user.median if ours.user else None, theirs.user.median if theirs.user else None),
        (ours.peak, theirs.peak),
        (ours.written, theirs.written),
    )
    return ", ".join(f"{own / other:.2f}" if own is not None and other else "?" for own, other in pairs)
