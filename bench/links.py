"""The ways between the registry and who pulls: all lead through nginx, whose log tells what was sent.

nginx reads blobs from the disk itself, as many registries have a file store do; docker-registry behind it takes the
uploads and serves the manifests. So the server takes as little as possible of the processors that it shares with those
who are measured, and the same for all of them. Bad links have our own proxy before nginx, which does take a part.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.namespace import shaped_network
from bench.proxy import Faults, proxy
from tests.support.nginx import Answer, Nginx, Options, answers_at_once, nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.docker_registry import Registry

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Link:
    """``rate`` is in bytes per second and connection; ``total`` is that of all together, in tc's words."""

    name: str
    says: str
    rate: int | None = None
    total: str | None = None
    faults: Faults | None = None

    @property
    def breaks(self) -> bool:
        """Whether a peer may fail here through no fault of the harness; that is a result then."""
        return self.faults is not None and bool(self.faults.cut_one_in or self.faults.refuse_one_in)


LINKS = {
    link.name: link
    for link in (
        Link("loopback", "loopback"),
        Link("8M", "8 MB/s per connection", rate=8 * MB),
        Link("30M", "30 MB/s per connection", rate=30 * MB),
        Link("100Mbit", "100 Mbit/s in total", total="100mbit"),
        Link("1Gbit", "1 Gbit/s in total", total="1gbit"),
        Link("latency", "50 ms round trip", faults=Faults(round_trip=0.05)),
        Link("cuts", "50 ms, one connection in three cut", faults=Faults(round_trip=0.05, cut_one_in=3)),
        Link("429", "50 ms, every fifth request refused", faults=Faults(round_trip=0.05, refuse_one_in=5)),
    )
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one run had from the registry: requests, bytes of blobs, and the most blobs or parts of them at one time."""

    requests: int
    blob_bytes: int
    at_once: int


@dataclass(slots=True)
class Meter:
    """A link that is open. ``entrance`` goes before the commands of those who pull over it."""

    link: Link
    server: Nginx
    entrance: tuple[str, ...] = ()
    seen: int = 0
    """How many lines of the log earlier runs have read."""

    @contextmanager
    def running(self) -> Iterator[str]:
        """Give the address of the registry for one run; what is bad about the link begins anew with each."""
        if self.link.faults is None:
            yield self.server.address
        else:
            with proxy(self.server.address, self.link.faults) as address:
                yield address

    def traffic(self) -> Traffic:
        """Return what was sent since the last call; waits until every connection is closed."""
        answers = self.server.drained_answers()
        new, self.seen = answers[self.seen :], len(answers)
        return summary(new)


def summary(answers: Sequence[Answer]) -> Traffic:
    """Return what a run had, from the lines of the log."""
    blobs = [each for each in answers if "/blobs/" in each.request and each.body > 0]
    return Traffic(len(answers), sum(each.body for each in blobs), answers_at_once(blobs))


@contextmanager
def open_link(link: Link, directory: Path, registry: Registry) -> Iterator[Meter]:
    """Run the server of a link with its files in ``directory``."""
    with ExitStack() as stack:
        network = stack.enter_context(shaped_network("bench", link.total)) if link.total else None
        host = network.address if network else "127.0.0.1"
        options = Options(limit_rate=link.rate, blobs_from_disk=True, host=host)
        server = stack.enter_context(nginx(directory, registry, options))
        yield Meter(link, server, network.entrance if network else ())
