"""The programs that are compared: how each is started on a store, or a layout, that nobody has used before.

What is installed is found: on this machine, or behind the command prefix in ASYNCPULL_PEER_NS, where the newest are.
The folder in ASYNCPULL_PEER_SHARE is under the same path inside and outside; stores lie there then.
"""

from __future__ import annotations

import compileall
import os
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.daemons import CONTAINERD, DOCKERD, TUNED, Daemon
from bench.embedded import EMBEDDED
from bench.floors import FLOORS, find_floors
from bench.orders import OURS, Command, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = ("podman", "skopeo", "buildah", "ctr", "ctr-tuned", "docker", "crane", "umoci", *FLOORS)
_STORE = ("--root", "{store}/root", "--runroot", "{store}/run", "--storage-driver", "overlay")
_SKOPEO = ("skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "docker://{reference}")
_LAYOUT = "oci:{store}/layout-{number}:latest"


def ours(python: str = sys.executable, name: str = OURS, *, limits: tuple[str, ...] = ()) -> Command:
    """asyncpull as it is installed for ``python``; with ``limits``, options of bench.embedded, run as a library."""
    command = (python, "-P", "-m", "asyncpull")
    options = (*command, *_STORE, "--tls-verify=false", "--progress", "none")
    embedded = (*EMBEDDED, *limits, "{store}/root", "{store}/run")
    return Command(
        name,
        _version((), *command, "--version"),
        (),
        pull=(*embedded, "{reference}") if limits else (*options, "pull", "{reference}"),
        several=() if limits else (*options, "prefetch", "{reference}"),
        copy=(*options, "copy", "--blob-info-cache", "{store}/blobs.sqlite", "docker://{reference}", _LAYOUT),
        again=(*EMBEDDED, "--again", "{store}/root", "{store}/run", "{reference}"),
    )


def find_peers(prefix: tuple[str, ...]) -> list[Peer]:
    """Return asyncpull and every peer that can be run behind ``prefix``, and the floors that can be run here.

    Ours is compiled first, as pip does for everybody who installs it: not every environment lets the first run do that.
    """
    compileall.compile_dir(REPOSITORY / "asyncpull", quiet=1)
    found: list[Peer] = [ours(), *_of_containers_storage(prefix), *_of_layouts(prefix)]
    if _has(prefix, "ctr") and _has(prefix, "containerd"):
        version = _version(prefix, "containerd", "--version")
        found.append(Daemon("ctr", version, prefix, CONTAINERD))
        found.append(Daemon("ctr-tuned", version, prefix, CONTAINERD, TUNED))
    if _has(prefix, "docker") and _has(prefix, "dockerd"):
        found.append(Daemon("docker", _version(prefix, "dockerd", "--version"), prefix, DOCKERD))
    return [*found, *find_floors()]


def _of_containers_storage(prefix: tuple[str, ...]) -> Iterator[Peer]:
    if _has(prefix, "podman"):
        pull: tuple[str, ...] = (
            "podman",
            *_STORE,
            "--tmpdir",
            "{store}/tmp",
            "pull",
            "-q",
            "--tls-verify=false",
            "{reference}",
        )
        yield Command("podman", _version(prefix, "podman", "--version"), prefix, pull, several=pull)
    if _has(prefix, "skopeo"):
        into_store = (*_SKOPEO, "containers-storage:[overlay@{store}/root+{store}/run]{reference}")
        version = _version(prefix, "skopeo", "--version")
        yield Command("skopeo", version, prefix, into_store, copy=(*_SKOPEO, _LAYOUT))
    if _has(prefix, "buildah"):
        pull = ("buildah", *_STORE, "pull", "-q", "--tls-verify=false", "{reference}")
        yield Command("buildah", _version(prefix, "buildah", "--version"), prefix, pull)


def _of_layouts(prefix: tuple[str, ...]) -> Iterator[Peer]:
    """Those without a store: crane exports what a container would see; umoci unpacks what skopeo copied."""
    if _has(prefix, "crane"):
        export = 'set -o pipefail; mkdir "$2"; crane export --insecure "$1" - | tar -xf - -C "$2"'
        pull: tuple[str, ...] = ("bash", "-ec", export, "crane", "{reference}", "{store}/rootfs-{number}")
        copy = ("crane", "pull", "--insecure", "--format=oci", "{reference}", "{store}/layout-{number}")
        yield Command("crane", _version(prefix, "dpkg-query", "-Wf", "${Version}", "crane"), prefix, pull, copy=copy)
    if _has(prefix, "umoci") and _has(prefix, "skopeo"):
        unpack = shlex.join(_SKOPEO[:-1]) + ' "docker://$1" "oci:$2:latest"; umoci unpack --image "$2:latest" "$3"'
        pull = ("sh", "-ec", unpack, "umoci", "{reference}", "{store}/layout-{number}", "{store}/bundle-{number}")
        yield Command("umoci", _version(prefix, "umoci", "--version"), prefix, pull)


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
