"""The programs that are compared: how each is started on a store, or a layout, that nobody has used before."""

from __future__ import annotations

import compileall
import os
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.measure import Job
from bench.scenarios import LAYOUT, STORE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = "asyncpull"
_ENVIRONMENT = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
PEERS = ("podman", "skopeo", "ctr", "ctr-tuned", "crane")
TUNED = {"max_concurrent_downloads": 10, "concurrent_layer_fetch_buffer": 8 << 20}
"""What makes containerd fetch a layer by several requests for parts of it; by default it makes one."""
_START_SECONDS = 30


class Peer(Protocol):
    """A program that pulls images."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def goals(self) -> frozenset[str]:
        """Where it can bring images."""
        ...

    def job(self, directory: Path, references: Sequence[str], goal: str = STORE) -> AbstractContextManager[Job]:
        """Prepare to bring ``references`` into a new store, or new layouts, below ``directory``.

        Daemons run in the block.
        """
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """A program that ends when it has pulled.

    ``words`` pull one image and ``several``, where the program can do that, many of them at once; else it runs once for
    each. ``copy`` copies an image into a layout. Empty is what it cannot do. ``{store}`` is filled in, ``{number}`` of
    the image, and the word ``{reference}``, repeated for all references.
    """

    name: str
    version: str
    prefix: tuple[str, ...]
    words: tuple[str, ...]
    several: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()

    @property
    def goals(self) -> frozenset[str]:
        return frozenset(goal for goal, words in ((STORE, self.words), (LAYOUT, self.copy)) if words)

    @contextmanager
    def job(self, directory: Path, references: Sequence[str], goal: str = STORE) -> Iterator[Job]:
        words = self.copy if goal == LAYOUT else self.words
        if goal == STORE and self.several and len(references) > 1:
            command = _fill(self.several, directory, references)
        else:
            each = [_fill(words, directory, [reference], number) for number, reference in enumerate(references)]
            command = one_after_another(each)
        yield Job([*self.prefix, *command], os.environ | _ENVIRONMENT, directory / "output")


def _fill(words: Sequence[str], directory: Path, references: Sequence[str], number: int = 0) -> list[str]:
    filled: list[str] = []
    for word in words:
        repeated = references if "{reference}" in word else references[:1]
        filled += [word.format(store=directory, reference=reference, number=number) for reference in repeated]
    return filled


@dataclass(frozen=True, slots=True)
class Containerd:
    """containerd, which is a daemon, and its client ctr. ``transfer`` goes to the daemon's part that pulls."""

    name: str
    version: str
    prefix: tuple[str, ...]
    transfer: Mapping[str, int] = field(default_factory=dict)
    goals = frozenset((STORE,))

    @contextmanager
    def job(self, directory: Path, references: Sequence[str], goal: str = STORE) -> Iterator[Job]:
        socket = directory / "s"
        configuration = directory / "config.toml"
        configuration.write_text(
            "version = 2\n"
            f'root = "{directory}/root"\nstate = "{directory}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            f'[grpc]\naddress = "{socket}"\n'
            '[plugins."io.containerd.transfer.v1.local"]\n'
            + "".join(f"{key} = {value}\n" for key, value in self.transfer.items())
        )
        with (directory / "daemon.log").open("wb") as log:
            command = [*self.prefix, "containerd", "-c", str(configuration)]
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        client = ["ctr", "-a", str(socket)]
        try:
            _wait_until_it_answers([*self.prefix, *client, "version"], daemon, directory / "daemon.log")
            words = one_after_another([[*client, "images", "pull", "--plain-http", each] for each in references])
            yield Job([*self.prefix, *words], os.environ | _ENVIRONMENT, directory / "output", [daemon.pid])
        finally:
            daemon.terminate()
            daemon.wait()


def one_after_another(commands: Sequence[Sequence[str]]) -> list[str]:
    """Return a command that runs all of ``commands``, up to the first that fails."""
    if len(commands) == 1:
        return list(commands[0])
    return ["sh", "-ec", "\n".join(map(shlex.join, commands))]


def find_peers(prefix: tuple[str, ...]) -> list[Peer]:
    """Return asyncpull and every peer that can be run behind ``prefix``.

    Ours is compiled first, as pip does for everybody who installs it: not every environment lets the first run do that.
    """
    compileall.compile_dir(REPOSITORY / "asyncpull", quiet=1)
    store = ("--root", "{store}/root", "--runroot", "{store}/run", "--storage-driver", "overlay")
    ours = (sys.executable, "-m", "asyncpull")
    options = (*ours, *store, "--tls-verify=false", "--progress", "none")
    pull: tuple[str, ...] = (*options, "pull", "{reference}")
    prefetch = (*options, "prefetch", "{reference}")
    cache = ("--blob-info-cache", "{store}/blob-info.sqlite")
    ours_copy = (*options, "copy", *cache, "docker://{reference}", "oci:{store}/layout-{number}:latest")
    found: list[Peer] = [Command(OURS, _version((), *ours, "--version"), (), pull, prefetch, ours_copy)]
    if _has(prefix, "podman"):
        pull = ("podman", *store, "--tmpdir", "{store}/tmp", "pull", "-q", "--tls-verify=false", "{reference}")
        found.append(Command("podman", _version(prefix, "podman", "--version"), prefix, pull, pull))
    if _has(prefix, "skopeo"):
        copy = ("skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "docker://{reference}")
        into_store = (*copy, "containers-storage:[overlay@{store}/root+{store}/run]{reference}")
        into_layout = (*copy, "oci:{store}/layout-{number}:latest")
        version = _version(prefix, "skopeo", "--version")
        found.append(Command("skopeo", version, prefix, into_store, copy=into_layout))
    if _has(prefix, "crane"):
        crane = ("crane", "pull", "--insecure", "--format=oci", "{reference}", "{store}/layout-{number}")
        version = _version(prefix, "dpkg-query", "-Wf", "${Version}", "crane")
        found.append(Command("crane", version, prefix, (), copy=crane))
    if _has(prefix, "ctr") and _has(prefix, "containerd"):
        version = _version(prefix, "containerd", "--version")
        found += [Containerd("ctr", version, prefix), Containerd("ctr-tuned", version, prefix, TUNED)]
    return found


@contextmanager
def peer_prefix() -> Iterator[tuple[str, ...]]:
    """Give what to put before a peer's command.

    A holder is started with the prefix in ASYNCPULL_PEER_NS, or in a mount namespace with this machine's own tools,
    and the processes that are measured enter its mount namespace: what the prefix prepares is no part of a pull, and
    what the peers mount goes with the holder.
    """
    words = shlex.split(os.environ.get("ASYNCPULL_PEER_NS", "unshare -m --propagation private"))
    holder = subprocess.Popen([*words, "sh", "-c", "echo ready; exec sleep 86400"], stdout=subprocess.PIPE)
    try:
        if holder.stdout is None or not holder.stdout.readline():
            raise RuntimeError(f"{shlex.join(words)} did not start a command")
        yield ("nsenter", "-t", str(holder.pid), "-m")
    finally:
        holder.terminate()
        holder.wait()


def work_directory() -> Path:
    """Return where stores can lie so that peers see them under the same path."""
    share = os.environ.get("ASYNCPULL_PEER_SHARE")
    return Path(share) / "bench" if share else REPOSITORY / "bench" / ".work"


def _has(prefix: tuple[str, ...], tool: str) -> bool:
    return subprocess.run([*prefix, "sh", "-c", f"command -v {tool}"], capture_output=True, check=False).returncode == 0


def _version(prefix: tuple[str, ...], *command: str) -> str:
    """Return the version that a program tells: the first word of what it prints that begins with a digit."""
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    words = done.stdout.replace(",", " ").split()
    return next((word for word in words if word.lstrip("v")[:1].isdigit()), done.stdout.strip())


def _wait_until_it_answers(command: list[str], daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while subprocess.run(command, capture_output=True, check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{daemon.args!r} did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
