"""What is to be measured: scenarios over links, by peers, as the command line names them; and whole series of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.links import LINKS
from bench.orders import OURS
from bench.peers import PEERS
from bench.scenarios import SCENARIOS, SWEEP_FILES, SWEEP_LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario over a link, and the names of those who pull it besides asyncpull, taking turns."""

    scenario: str
    link: str
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One value of what a series varies, and whose results are there: of ``peers``, in this scenario over this link."""

    value: int
    scenario: str
    link: str
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A series: how the wall follows from the number of something."""

    name: str
    says: str
    points: tuple[Point, ...]


def variant(option: str, value: int) -> str:
    """The name of asyncpull with a limit of its own, among peers."""
    return f"{OURS} {option}={value}"


def limits_of(name: str) -> tuple[str, ...]:
    """The options of bench.embedded for a variant; none for others."""
    ours, _, limit = name.partition(" ")
    option, _, value = limit.partition("=")
    return (f"--{option}", value) if ours == OURS and value else ()


def _of_variants(name: str, says: str, scenario: str, link: str, values: Sequence[int]) -> Sweep:
    return Sweep(name, says, tuple(Point(value, scenario, link, (variant(name, value),)) for value in values))


SWEEPS = {
    sweep.name: sweep
    for sweep in (
        Sweep(
            "layers",
            "6,000 files in so many layers, loopback",
            tuple(Point(n, f"layers-{n}", "loopback", (OURS, "podman")) for n in SWEEP_LAYERS),
        ),
        Sweep(
            "files",
            "one layer of so many files, loopback",
            tuple(Point(n, f"files-{n}", "loopback", (OURS, "podman")) for n in SWEEP_FILES),
        ),
        _of_variants("connections", "one layer, 8 MB/s per connection, so many", "one-layer", "8M", (1, 2, 4, 8, 16)),
        _of_variants("workers", "five fat layers, loopback, so many workers", "fat-layers", "loopback", (1, 2, 3, 4)),
    )
}


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


def cases_of_sweep(sweep: Sweep) -> Iterator[Case]:
    """The cases that a series is made of."""
    for point in sweep.points:
        yield Case(point.scenario, point.link, tuple(name for name in point.peers if name != OURS))


def merged(cases: Iterable[Case]) -> list[Case]:
    """One case for each scenario and link, with the peers of all."""
    peers: dict[tuple[str, str], dict[str, None]] = {}
    for case in cases:
        peers.setdefault((case.scenario, case.link), {}).update(dict.fromkeys(case.peers))
    return [Case(scenario, link, tuple(names)) for (scenario, link), names in peers.items()]
