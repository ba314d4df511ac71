"""Pulls, or copies, the same images with asyncpull and with every peer that is found, and compares what that costs.

Each run has a new store, nothing is deleted before the last one has ended (file systems are slow for minutes after many
deletions), the peers take turns, and only runs of the same round are compared with each other.
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from bench.images import build_workload, push_image
from bench.links import LINKS, Meter, open_link
from bench.measure import measure_memory, measure_time
from bench.peers import OURS, PEERS, REPOSITORY, Peer, find_peers, peer_prefix, work_directory
from bench.report import Result, save, table
from bench.scenarios import SCENARIOS, USUAL
from tests.support.docker_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENOUGH = 1.2
"""How much free space is wanted, as a multiple of what all runs together unpack; containerd keeps the blobs too."""


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario over a link, and the names of those who pull it, taking turns."""

    scenario: str
    link: str
    peers: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    cases = [case for text in options.scenarios for case in cases_of(text, options.link, options.peers)]
    options.work.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(case.scenario for case in cases)
    workloads = {name: build_workload(SCENARIOS[name], options.sources) for name in names}
    runs = Path(mkdtemp(prefix="r", dir=options.work))
    try:
        with ExitStack() as stack:
            prefix = stack.enter_context(peer_prefix())
            wanted = {OURS, *(name for case in cases for name in case.peers)}
            peers = [peer for peer in find_peers(prefix) if peer.name in wanted]
            turns = options.rounds + options.memory_rounds
            _require_space(
                runs, turns * sum(workloads[case.scenario].unpacked_size * (1 + len(case.peers)) for case in cases)
            )
            registry = stack.enter_context(docker_registry(options.sources / "registry"))
            references = {
                name: [push_image(image, registry) for image in workload.images] for name, workload in workloads.items()
            }
            _warm(registry.data)
            meters = {
                name: stack.enter_context(open_link(LINKS[name], runs / f"link-{name}", registry))
                for name in dict.fromkeys(case.link for case in cases)
            }
            results = _compare(options, runs, peers, cases, references, meters)
    finally:
        shutil.rmtree(runs)
    for case in cases:
        print(table(workloads[case.scenario], case.link, results_of(case, results)), end="\n\n")
    print(f"versions: {', '.join(f'{peer.name} {peer.version}' for peer in peers)}")
    print(f"saved as {save(options.results, peers, list(workloads.values()), results)}")


def cases_of(text: str, links: Sequence[str], peers: Sequence[str]) -> Iterator[Case]:
    """Read ``SCENARIO[@LINK][:PEER,…]``; what it does not name is each of ``links``, and all of ``peers``."""
    text, _, named = text.partition(":")
    scenario, _, link = text.partition("@")
    chosen = tuple(named.split(",")) if named else tuple(peers)
    if scenario not in SCENARIOS or (link or "loopback") not in LINKS or not set(chosen) <= set(PEERS):
        scenarios, known = ", ".join(SCENARIOS), ", ".join(PEERS)
        raise SystemExit(f"{text}: scenarios are {scenarios}; links are {', '.join(LINKS)}; peers are {known}")
    for each in [link] if link else links:
        yield Case(scenario, each, chosen)


def results_of(case: Case, results: Sequence[Result]) -> list[Result]:
    return [result for result in results if (result.scenario, result.link) == (case.scenario, case.link)]


def _compare(
    options: argparse.Namespace,
    runs: Path,
    peers: Sequence[Peer],
    cases: Sequence[Case],
    references: Mapping[str, Sequence[str]],
    meters: Mapping[str, Meter],
) -> list[Result]:
    turns = {
        case: [
            peer for peer in peers if peer.name in {OURS, *case.peers} and SCENARIOS[case.scenario].goal in peer.goals
        ]
        for case in cases
    }
    results = {(case, peer.name): Result(case.scenario, case.link, peer.name) for case in cases for peer in turns[case]}
    rounds = options.rounds + options.memory_rounds
    for number in range(rounds):
        for case in cases:
            meter = meters[case.link]
            full = [f"{meter.address}/{reference}" for reference in references[case.scenario]]
            for peer in turns[case]:
                directory = runs / str(len(list(runs.iterdir())))
                directory.mkdir()
                result = results[case, peer.name]
                with peer.job(directory, full, SCENARIOS[case.scenario].goal) as job:
                    if number < options.rounds:
                        result.times.append(measure_time(job))
                    else:
                        result.peaks.append(measure_memory(job))
                result.traffic.append(meter.traffic())
            print(f"round {number + 1} of {rounds}: {case.scenario}@{case.link}", flush=True)
    return list(results.values())


def _require_space(directory: Path, stored: int) -> None:
    needed, free = int(stored * ENOUGH), shutil.disk_usage(directory).free
    if free < needed:
        raise SystemExit(f"{directory}: {free / 1e9:.0f} GB are free, all runs together need {needed / 1e9:.0f} GB")


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
    parser.add_argument("--rounds", type=int, default=5, help="runs of each peer in each case whose time is taken")
    parser.add_argument("--memory-rounds", type=int, default=1, help="further runs whose memory is taken")
    parser.add_argument(
        "--scenarios",
        nargs="+",
        default=list(USUAL),
        metavar="SCENARIO[@LINK][:PEER,…]",
        help=f"what is pulled, over which link, and by whom besides asyncpull: {', '.join(SCENARIOS)}",
    )
    parser.add_argument(
        "--link",
        nargs="+",
        choices=list(LINKS),
        default=["loopback"],
        help="the links of scenarios that name none: 8M and 30M are MB per second and connection",
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=["podman", "skopeo", "ctr", "crane"],
        help="who pulls scenarios that name nobody; whoever is not installed is left out",
    )
    parser.add_argument("--work", type=Path, default=work_directory(), help="where the stores of the runs are made")
    parser.add_argument("--sources", type=Path, default=REPOSITORY / "bench" / ".work", help="where images are kept")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench" / "results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
