"""The ways between the registry and who pulls: all lead through nginx, whose log tells what was sent.

nginx reads blobs from the disk itself, as many registries have a file store do; docker-registry behind it takes the
uploads and serves the manifests. So the server takes as little as possible of the processors that it shares with those
who are measured, and the same for all of them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.nginx import Answer, Nginx, Options, answers_at_once, nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.docker_registry import Registry

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Link:
    """``rate`` is in bytes per second and connection; None: as fast as the loopback interface is."""

    name: str
    rate: int | None


LINKS = {link.name: link for link in (Link("loopback", None), Link("8M", 8 * MB), Link("30M", 30 * MB))}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one run had from the registry: requests, bytes of blobs, and the most blobs or parts of them at one time."""

    requests: int
    blob_bytes: int
    at_once: int


@dataclass(slots=True)
class Meter:
    """Reads the log of a link from run to run."""

    server: Nginx
    seen: int = 0
    """How many lines of the log earlier runs have read."""

    @property
    def address(self) -> str:
        return self.server.address

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
    with nginx(directory, registry, Options(limit_rate=link.rate, blobs_from_disk=True)) as server:
        yield Meter(server)
