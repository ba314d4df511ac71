"""Pulls, or copies, the same images with asyncpull and with every peer that is found, and compares what that costs.

Writes what was measured as JSON, as a page to look at, and as a table in Markdown.
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from bench.cases import SWEEPS, Case, cases_of, cases_of_sweep, limits_of, merged
from bench.filesystems import KINDS, Directories, Ground, LoopFilesystem
from bench.guard import guard
from bench.images import build_workload, push_image
from bench.links import LINKS, open_link
from bench.orders import OURS
from bench.peers import PEERS, REPOSITORY, find_peers, ours, peer_prefix, work_directory
from bench.report import write_report
from bench.results import Document, Machine, load, now, revision, save, together
from bench.rounds import Session
from bench.scenarios import LAYOUT, SCENARIOS, USUAL
from bench.session import alone
from bench.tables import table
from tests.support.docker_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.images import Workload
    from bench.orders import Peer
    from bench.scenarios import Scenario

ENOUGH = 1.2
"""How much free space is wanted, as a multiple of what all runs together unpack; containerd keeps the blobs too."""
_LOOP_ENOUGH, _LOOP_LEAST = 3, 2 << 30
"""The size of a file system for one run: as a multiple of what it unpacks, and in bytes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the options say, or show again what was measured, or guard against a revision."""
    options = _parse(arguments)
    if options.report:
        document = together(map(load, options.report))
        _show(document, write_report(document, options.results / options.report[-1].stem))
    elif options.guard:
        with alone(options.sources):
            guard(options.guard, options.rounds, options.work, options.sources)
    else:
        # What was measured is safe before all that runs have left is deleted, which takes a while.
        with alone(options.sources), _runs(options.work) as runs:
            document = measure(options, _cases(options), runs)
            written = save(document, options.results)
            _show(document, [written, *write_report(document, written.with_suffix(""))])


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = [case for text in options.scenarios or () for case in cases_of(text, options.link, options.peers)]
    cases += [case for name in options.sweep for case in cases_of_sweep(SWEEPS[name])]
    return merged(cases or [case for name in USUAL for case in cases_of(name, options.link, options.peers)])


def _show(document: Document, paths: Sequence[Path]) -> None:
    for case in document.cases:
        print(table(document, case), end="\n\n")
    print(f"versions: {', '.join(f'{name} {version}' for name, version in document.versions.items())}")
    print("\n".join(f"written: {path}" for path in paths), flush=True)


@contextmanager
def _runs(work: Path) -> Iterator[Path]:
    """Make the directory of all runs; it is deleted after the last."""
    work.mkdir(parents=True, exist_ok=True)
    runs = Path(mkdtemp(prefix="r", dir=work))
    try:
        yield runs
    finally:
        shutil.rmtree(runs)


def measure(options: argparse.Namespace, cases: Sequence[Case], runs: Path) -> Document:
    """Run all rounds of all cases, each run in a place of its own below ``runs``."""
    names = dict.fromkeys(case.scenario for case in cases)
    workloads = {name: build_workload(SCENARIOS[name], options.sources) for name in names}
    with ExitStack() as stack:
        prefix = stack.enter_context(peer_prefix())
        peers = _peers(cases, prefix)
        ground = _ground(options, runs, cases, workloads, prefix)
        registry = stack.enter_context(docker_registry(options.sources / "registry"))
        references = {
            name: [push_image(image, registry) for image in workload.images] for name, workload in workloads.items()
        }
        _warm(registry.data)
        meters = {
            name: stack.enter_context(open_link(LINKS[name], runs / f"link-{name}", registry))
            for name in dict.fromkeys(case.link for case in cases)
        }
        session = Session(ground, peers, cases, workloads, references, meters)
        machine = Machine.here(ground.says)
        results = session.measure(options.rounds, options.observed_rounds)
        timelines = list(session.trace()) if options.observed_rounds else []
    return Document(
        now(),
        revision(),
        options.rounds,
        machine,
        {peer.name: peer.version for peer in peers if not limits_of(peer.name)},
        {name: LINKS[name].says for name in meters},
        [workload.facts for workload in workloads.values()],
        results,
        timelines,
    )


def _peers(cases: Sequence[Case], prefix: tuple[str, ...]) -> list[Peer]:
    wanted = dict.fromkeys([OURS, *(name for case in cases for name in case.peers)])
    variants = [ours(name=name, limits=limits) for name in wanted if (limits := limits_of(name))]
    peers = [peer for peer in find_peers(prefix) if peer.name in wanted] + variants
    missing = wanted.keys() - {peer.name for peer in peers}
    if missing:
        print(f"not installed, and left out: {', '.join(sorted(missing))}")
    return peers


def _ground(
    options: argparse.Namespace,
    runs: Path,
    cases: Sequence[Case],
    workloads: dict[str, Workload],
    prefix: tuple[str, ...],
) -> Ground:
    sizes = {case: _stored(SCENARIOS[case.scenario], workloads[case.scenario]) for case in cases}
    if options.filesystem:
        size = max(sizes.values()) * _LOOP_ENOUGH + _LOOP_LEAST
        _require_space(runs, size)
        return LoopFilesystem(runs, options.filesystem, size, prefix)
    turns = options.rounds + options.observed_rounds
    stored = turns * sum(sizes[case] * (1 + len(case.peers)) for case in cases)
    _require_space(runs, int(stored * ENOUGH))
    return Directories(runs)


def _stored(scenario: Scenario, workload: Workload) -> int:
    """How many bytes one run leaves: a store has layers unpacked, a layout has them as they came."""
    return workload.blob_size if scenario.goal == LAYOUT else workload.unpacked_size


def _require_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise SystemExit(
            f"{directory}: {free / 1e9:.0f} GB are free, all runs together need {needed / 1e9:.0f} GB; with"
            " --filesystem one run at a time needs room"
        )


def _warm(directory: Path) -> None:
    """Read what will be served, so that no run is the first to fetch it from the disk."""
    for path in directory.rglob("data"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Compare pulls of asyncpull with those of its peers."
    )
    add = parser.add_argument
    add("--rounds", type=int, default=7, help="runs of each peer in each case whose time is taken")
    add("--observed-rounds", type=int, default=1, help="further runs: memory, system calls, first byte, timeline")
    add(
        "--scenarios",
        nargs="+",
        metavar="SCENARIO[@LINK][:PEER,…]",
        help=f"what is pulled, over which link, and by whom besides asyncpull: {', '.join(SCENARIOS)};"
        f" {', '.join(USUAL)} unless there is a --sweep",
    )
    links = "; ".join(f"{link.name} is {link.says}" for link in LINKS.values())
    add("--link", nargs="+", choices=list(LINKS), default=["loopback"], help=f"of scenarios that name none: {links}")
    add(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=["podman", "skopeo", "ctr", "floor-tar"],
        help="who pulls scenarios that name nobody; whoever is not installed is left out",
    )
    add("--sweep", nargs="+", choices=list(SWEEPS), default=[], help="how the time grows with the number of these")
    add(
        "--filesystem",
        choices=KINDS,
        help="make one anew for each run, in a file, instead of a new directory for each; takes root",
    )
    add("--guard", metavar="BASE", help="compare with this revision instead, and fail if this one costs more")
    add("--report", nargs="+", type=Path, metavar="FILE", help="show results of earlier runs as one page instead")
    add("--work", type=Path, default=work_directory(), help="where the stores of the runs are made")
    add("--sources", type=Path, default=REPOSITORY / "bench" / ".work", help="where images are kept")
    add("--results", type=Path, default=REPOSITORY / "bench" / "results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
