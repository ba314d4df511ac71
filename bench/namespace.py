"""A network namespace for those who pull, behind a link of a certain rate in all: veth, and tbf at the server's end."""

from __future__ import annotations

import itertools
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS = "198.18.77.0/24"
"""Of the block that RFC 2544 sets aside for benchmarks of networks; nothing of it leaves this machine."""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Network:
    """``address`` is what a server listens on; ``entrance`` goes before the commands of its clients."""

    address: str
    entrance: tuple[str, ...]


@contextmanager
def shaped_network(name: str, rate: str) -> Iterator[Network]:
    """Make a namespace whose only way out has ``rate``, in tc's words (``100mbit``), towards the clients.

    Takes root. What is sent towards the server, requests, is not slowed down. A process may have 64, of various rates.
    """
    if os.geteuid() != 0:
        raise SystemExit("a link with a rate in all is made of network namespaces, which takes root")
    number = next(_numbers)
    inside, outside = f"{name}-{os.getpid()}-{number}", f"b{os.getpid()}s{number}"
    server, client = (f"198.18.77.{4 * number + host}" for host in (1, 2))
    _run("ip", "netns", "add", inside)
    try:
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside)
        _run("ip", "address", "add", f"{server}/30", "dev", outside)
        _run("ip", "link", "set", outside, "up")
        _run("ip", "-n", inside, "address", "add", f"{client}/30", "dev", "eth0")
        _run("ip", "-n", inside, "link", "set", "eth0", "up")
        _run("ip", "-n", inside, "link", "set", "lo", "up")
        # A burst of 2 ms at 1 Gbit/s: tbf is woken by a timer, and what it saves up meanwhile must fit.
        _run("tc", "qdisc", "add", "dev", outside, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
        yield Network(server, ("nsenter", f"--net=/run/netns/{inside}"))
    finally:
        _run("ip", "netns", "delete", inside)  # and the pair with it


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
