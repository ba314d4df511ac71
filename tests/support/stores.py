"""A store that asyncpull and another container tool use side by side, through their commands."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import TYPE_CHECKING

from tests.support.peers import REPOSITORY, TIMEOUT, checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.peers import Peer

Record = dict[str, object]

LOST_STAGING = re.compile(r"(temp-dir-[0-9]+|unpacking failed).*: no such file or directory")
"""What a podman (5.8.6) says to whom another podman took a temporary directory away. It opens its lock file, locks it
and does not look whether it is still there, while another that loads the layers may lock and remove it in between; the
next one then removes the directory too. Of sixty rounds of twelve podmans and nobody else, four ended like that."""


@dataclass(frozen=True, slots=True)
class SharedStore:
    """One graph root and run root; ``options`` are global ones that both sides are to have besides."""

    peer: Peer
    directory: Path
    driver: str = "overlay"
    options: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def run_root(self) -> Path:
        return self.directory / "run"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The global options that name this store, the same ones for asyncpull, podman and buildah."""
        roots = ("--root", str(self.root), "--runroot", str(self.run_root))
        return (*roots, "--storage-driver", self.driver, *self.options)

    @property
    def podman_command(self) -> tuple[str, ...]:
        return ("podman", *self.arguments, "--tmpdir", str(self.directory / "libpod"))

    @property
    def asyncpull_command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "asyncpull", *self.arguments, "--tls-verify=false", "--progress", "none")

    def run_side_by_side(self, script: str, *, podman_options: Sequence[str] = ()) -> str:
        """Run a shell script where both see the same mounts, and return what it printed.

        In it ``ours`` is asyncpull and ``theirs`` is podman; any command that fails ends it with an error.
        """
        ours = shlex.join([*self.peer.python_inside(), "-m", "asyncpull", *self.arguments])
        theirs = shlex.join([*self.podman_command, *podman_options])
        functions = f'ours() {{ {ours} "$@"; }}\ntheirs() {{ {theirs} "$@"; }}\n'
        return self.peer.run_in_namespace("sh", "-euc", functions + script)

    def asyncpull(self, *arguments: str | Path, expect: int = 0) -> str:
        """Run asyncpull on this store and return its standard output."""
        return checked(self.run_asyncpull(*arguments), expect).stdout.strip()

    def run_asyncpull(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run asyncpull on this store, however it ends."""
        words = [*self.asyncpull_command, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, cwd=REPOSITORY, check=False)

    def start_asyncpull(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start asyncpull on this store without waiting for it, in a process group of its own."""
        return subprocess.Popen(
            [*self.asyncpull_command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,
        )

    def pull(self, reference: str) -> str:
        """Pull with asyncpull; return the image ID."""
        return self.asyncpull("pull", reference)

    def podman(self, *arguments: str | Path, expect: int = 0) -> str:
        """Run podman on this store and return its standard output."""
        return self.peer.run(*self.podman_command, *arguments, expect=expect).strip()

    def podman_pull(self, reference: str) -> str:
        """Pull with podman; return the image ID."""
        return self.podman("pull", "-q", "--tls-verify=false", reference)

    def podman_run(self, image: str, *command: str) -> str:
        """Run a command in a new container of an image and return its standard output."""
        # Podman would ask for more than a machine may allow that cannot raise its own limits.
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
        options = ("--rm", "--pull=never", "--network", "none", "--cgroups=disabled", *limits)
        return self.peer.run_in_namespace(*self.podman_command, "run", *options, image, *command).strip()

    @property
    def can_check(self) -> bool:
        """Whether the peer is a podman that has ``system check`` (5.0 and later)."""
        return self.peer.name == "newest"

    def check(self, *options: str) -> None:
        """Let podman check every layer and image in full, where it can, and look for leftovers of pulls."""
        if self.can_check:
            said = self.podman("system", "check", *options)
            if said:
                raise AssertionError(f"podman system check found: {said}")
        if leftovers := self.leftovers():
            raise AssertionError(f"left over: {leftovers}")

    def leftovers(self) -> list[str]:
        """Return what pulls have left in the places for temporary things, and half-written files, by relative path."""
        half_written = self.root.glob(f"{self.driver}*/.tmp-*")
        return sorted([*self.abandoned(), *(str(path.relative_to(self.root)) for path in half_written)])

    def abandoned(self) -> list[str]:
        """Return what is left in the places for temporary directories, which every program clears away."""
        places = [self.root / self.driver / "tempdirs", self.root / f"{self.driver}-layers" / "tmp"]
        found = [path for place in places if place.is_dir() for path in place.iterdir()]
        return sorted(str(path.relative_to(self.root)) for path in found)

    def spooled(self) -> list[str]:
        """Return the names of the blobs that an interrupted pull has kept for the next one."""
        spool = self.root / "asyncpull" / "spool"
        return sorted(path.name for path in spool.iterdir()) if spool.is_dir() else []

    def image_records(self) -> list[Record]:
        return self._records("images")

    def layer_records(self) -> list[Record]:
        return self._records("layers")

    def layer_ids(self, image_id: str) -> list[str]:
        """Return the layer IDs of an image, bottom first."""
        parents = {str(layer["id"]): layer.get("parent") for layer in self.layer_records()}
        top = next(record.get("layer") for record in self.image_records() if record["id"] == image_id)
        chain = []
        while top:
            chain.append(str(top))
            top = parents[str(top)]
        return chain[::-1]

    def diff(self, layer_id: str) -> Path:
        """Return the directory that holds what a layer changed, in stores of complete trees among everything else."""
        match self.driver:
            case "vfs":
                return self.root / "vfs" / "dir" / layer_id
            case "btrfs":
                return self.root / "btrfs" / "subvolumes" / layer_id
        return self.root / "overlay" / layer_id / "diff"

    def _records(self, kind: str) -> list[Record]:
        path = self.root / f"{self.driver}-{kind}" / f"{kind}.json"
        records: list[Record] = json.loads(path.read_bytes() or b"[]") if path.exists() else []
        return records


@contextmanager
def workplace(peer: Peer) -> Iterator[Path]:
    """Give a directory that the peer sees too, and remove it afterwards with everything mounted below it.

    Its path is short, because podman refuses run roots of more than 50 characters.
    """
    parent = peer.share or Path(gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(mkdtemp(prefix="t-", dir=parent))
    try:
        yield directory
    finally:
        for mount_point in mounted_below(directory):
            subprocess.run(["umount", "-l", mount_point], check=False, capture_output=True)
        _remove(directory)


def _remove(directory: Path) -> None:
    """Remove a directory into which a podman that cleans up after a container may still write for a moment."""
    for attempt in range(20):
        try:
            shutil.rmtree(directory)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == 19:
                raise
            time.sleep(0.1)
        else:
            return


def mounted_below(directory: Path) -> list[str]:
    """Return the mount points below ``directory``, seen from here or through a peer's root, innermost first."""
    with open("/proc/self/mountinfo") as lines:
        points = [os.fsdecode(os.fsencode(line.split(" ")[4]).decode("unicode_escape").encode()) for line in lines]
    return [point for point in reversed(points) if f"{directory}/" in point]
