"""Peers that are a daemon and its client: containerd with ctr, dockerd with docker; each run has a daemon of its own.

What the daemon spends while the client runs counts; its start does not. ``docker pull`` ends when the daemon is done.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.measure import measure_time
from bench.namespace import SERVERS
from bench.orders import ENVIRONMENT, job_of, one_after_another
from bench.scenarios import AGAIN, STORE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.measure import Job
    from bench.orders import Order

TUNED = {"max_concurrent_downloads": 10, "concurrent_layer_fetch_buffer": 8 << 20}
"""What makes containerd fetch a layer by several requests for parts of it; by default it makes one."""
_START_SECONDS = 60
_STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Kind:
    """How a daemon is configured, started, known to be ready, and told to pull. ``{place}`` is its own directory."""

    configuration: str
    daemon: tuple[str, ...]
    ready: tuple[str, ...]
    pull: tuple[str, ...]


CONTAINERD = Kind(
    'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\n'
    'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
    '[grpc]\naddress = "{place}/s"\n'
    '[plugins."io.containerd.transfer.v1.local"]\n',
    ("containerd", "-c", "{place}/configuration"),
    ("ctr", "-a", "{place}/s", "version"),
    ("ctr", "-a", "{place}/s", "images", "pull", "--plain-http"),
)
DOCKERD = Kind(
    "{{}}",
    (
        *("dockerd", "--config-file", "{place}/configuration", "--data-root", "{place}/root"),
        *("--exec-root", "{place}/exec", "-p", "{place}/pid", "-H", "unix://{place}/s"),
        *("--iptables=false", "--ip6tables=false", "--bridge=none", "--insecure-registry", SERVERS),
    ),
    ("docker", "-H", "unix://{place}/s", "version"),
    ("docker", "-H", "unix://{place}/s", "pull", "-q"),
)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon of some kind with its client. ``transfer`` goes to the part of containerd that pulls."""

    name: str
    version: str
    prefix: tuple[str, ...]
    kind: Kind
    transfer: Mapping[str, int] = field(default_factory=dict)
    goals = frozenset((STORE, AGAIN))

    @contextmanager
    def job(self, order: Order) -> Iterator[Job]:
        place = order.directory
        log = place / "daemon.log"
        settings = "".join(f"{key} = {value}\n" for key, value in self.transfer.items())
        (place / "configuration").write_text(self.kind.configuration.format(place=place) + settings)
        with log.open("wb") as out:
            command = [*order.entrance, *self._command(self.kind.daemon, place)]
            daemon = subprocess.Popen(
                command, env=os.environ | ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            _wait_until_it_answers(self._command(self.kind.ready, place), daemon, log)
            if order.before:
                measure_time(self._job(order, order.before, daemon.pid))
            yield self._job(order, order.references, daemon.pid)
        finally:
            daemon.terminate()
            try:
                daemon.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _job(self, order: Order, references: tuple[str, ...], daemon: int) -> Job:
        pull = self._words(self.kind.pull, order.directory)
        command = [*self.prefix, *one_after_another([[*pull, each] for each in references])]
        return job_of(order, command, [daemon])

    def _command(self, words: tuple[str, ...], place: Path) -> list[str]:
        return [*self.prefix, *self._words(words, place)]

    def _words(self, words: tuple[str, ...], place: Path) -> list[str]:
        return [word.format(place=place) for word in words]


def _wait_until_it_answers(command: list[str], daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while subprocess.run(command, capture_output=True, check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{daemon.args!r} did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
