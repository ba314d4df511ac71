"""Pulls the same images with asyncpull and with every peer that is found, and compares what that costs.

Each run has a new store, nothing is deleted before the last one has ended (file systems are slow for minutes after many
deletions), the peers take turns, and only medians of one run of this program are compared with each other.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from bench.images import RECIPES, USUAL, BenchImage, build_image, push_image
from bench.measure import measure_memory, measure_time
from bench.peers import OURS, REPOSITORY, Peer, find_peers, peer_prefix, work_directory
from bench.report import Result, save, table
from tests.support.docker_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Sequence

ENOUGH = 1.3
"""How much free space is wanted, as a multiple of what all runs together unpack."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    images = [build_image(name, options.sources) for name in options.images]
    runs = Path(mkdtemp(prefix="r", dir=work))
    try:
        with peer_prefix() as prefix, docker_registry(options.sources / "registry") as registry:
            peers = [peer for peer in find_peers(prefix) if peer.name in {OURS, *options.peers}]
            _require_space(runs, images, len(peers) * (options.rounds + options.memory_rounds))
            references = {image.name: push_image(image, registry) for image in images}
            _warm(options.sources / "registry")
            results = _compare(options, runs, peers, images, references)
    finally:
        shutil.rmtree(runs)
    for image in images:
        print(table(image, [result for result in results if result.image == image.name]), end="\n\n")
    print(f"versions: {', '.join(f'{peer.name} {peer.version}' for peer in peers)}")
    print(f"saved as {save(options.results, peers, images, results)}")


def _compare(
    options: argparse.Namespace,
    runs: Path,
    peers: Sequence[Peer],
    images: Sequence[BenchImage],
    references: dict[str, str],
) -> list[Result]:
    results = {(image.name, peer.name): Result(image.name, peer.name) for image in images for peer in peers}
    for number in range(options.rounds + options.memory_rounds):
        for image in images:
            for peer in peers:
                directory = runs / str(len(list(runs.iterdir())))
                directory.mkdir()
                result = results[image.name, peer.name]
                with peer.job(directory, references[image.name]) as job:
                    if number < options.rounds:
                        result.times.append(measure_time(job))
                    else:
                        result.peaks.append(measure_memory(job))
            print(f"round {number + 1} of {options.rounds + options.memory_rounds}: {image.name}", flush=True)
    return list(results.values())


def _require_space(directory: Path, images: Sequence[BenchImage], times: int) -> None:
    needed = int(sum(image.unpacked_size + image.size for image in images) * times * ENOUGH)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise SystemExit(f"{directory}: {free / 1e9:.0f} GB are free, all runs together need {needed / 1e9:.0f} GB")


def _warm(directory: Path) -> None:
    """Read what the registry will serve, so that no run is the first to fetch it from the disk."""
    for path in directory.rglob("data"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Compare pulls of asyncpull with those of its peers."
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each peer with each image whose time is taken")
    parser.add_argument("--memory-rounds", type=int, default=1, help="further runs whose memory is taken")
    parser.add_argument("--images", nargs="+", choices=sorted(RECIPES), default=list(USUAL))
    parser.add_argument("--peers", nargs="*", choices=["podman", "skopeo", "ctr"], default=["podman", "skopeo", "ctr"])
    parser.add_argument("--work", type=Path, default=work_directory(), help="where the stores of the runs are made")
    parser.add_argument("--sources", type=Path, default=REPOSITORY / "bench" / ".work", help="where images are kept")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench" / "results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
