"""Other container tools that tests run: Debian's from the PATH, and newer ones through a command prefix.

The environment names the newer ones: ``ASYNCPULL_PEER`` is put before a command to run it where they are installed (a
chroot, say), ``ASYNCPULL_PEER_NS`` does that in a mount namespace in which containers can be started, and
``ASYNCPULL_PEER_SHARE`` is a folder with the same path inside and outside.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = 240
"""Seconds after which a command of a peer or of ours is taken for hung."""

# Containers need a cgroup file system of version 2; a private mount namespace can have one whatever the machine has.
_OWN_CGROUPS = 'umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'
_QUIET = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}


class CommandError(AssertionError):
    """A command ended otherwise than the test expects."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A place where podman, skopeo and buildah are installed."""

    name: str
    prefix: tuple[str, ...]
    namespace: tuple[str, ...]
    """Before a command that needs a mount namespace of its own: ``podman run``, or commands that share mounts."""
    share: Path | None
    """Where files have to lie to be seen by the peer under the same path; None: anywhere."""

    def has(self, tool: str) -> bool:
        """Tell whether ``tool`` can be run."""
        return self._call(self.prefix, ("sh", "-c", 'command -v "$1"', "sh", tool)).returncode == 0

    def run(self, *command: str | Path, expect: int = 0) -> str:
        """Run a command and return its standard output; an exit code other than ``expect`` raises CommandError."""
        return checked(self._call(self.prefix, command), expect).stdout

    def run_both(self, *command: str | Path, expect: int = 0) -> str:
        """Run a command and return its standard output followed by its standard error."""
        done = checked(self._call(self.prefix, command), expect)
        return done.stdout + done.stderr

    def run_in_namespace(self, *command: str | Path, expect: int = 0) -> str:
        """Run a command in a mount namespace of its own, which ends with it, in which containers can be started."""
        return checked(self._call(self.namespace, command), expect).stdout

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command without waiting for it."""
        words = [*self.prefix, *map(str, command)]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | _QUIET
        )

    def python_inside(self) -> tuple[str, ...]:
        """Return a command for this very Python that works inside ``namespace`` too, with its libraries and ours.

        There the peer's own root directory is in force; ours is reached through this process's entry in /proc, and our
        own loader finds our own libraries. Only for commands that start no further Python.
        """
        if not self.prefix:
            return ("env", f"PYTHONPATH={REPOSITORY}", sys.executable)
        root = f"/proc/{os.getpid()}/root"
        libraries = [Path(sys.base_prefix, "lib"), Path("/lib", sysconfig.get_config_var("MULTIARCH"))]
        loader = Path("/lib64/ld-linux-x86-64.so.2").resolve()
        return (
            "env",
            f"PYTHONHOME={root}{sys.base_prefix}",
            f"PYTHONPATH={root}{REPOSITORY}:{root}{sysconfig.get_path('purelib')}",
            f"{root}{loader}",
            "--inhibit-cache",
            "--library-path",
            ":".join(f"{root}{path.resolve()}" for path in libraries),
            f"{root}{Path(sys.executable).resolve()}",
        )

    def _call(self, prefix: tuple[str, ...], command: tuple[str | Path, ...]) -> subprocess.CompletedProcess[str]:
        words = [*prefix, *map(str, command)]
        return subprocess.run(
            words, capture_output=True, text=True, timeout=TIMEOUT, env=os.environ | _QUIET, check=False
        )


def debian_peer() -> Peer | None:
    """Return Debian's tools, if podman is on the PATH."""
    if shutil.which("podman") is None:
        return None
    namespace = ("unshare", "-m", "--propagation", "private", "sh", "-c", _OWN_CGROUPS, "sh")
    return Peer("debian", (), namespace, None)


def newest_peer() -> Peer | None:
    """Return the newest tools, if the environment names them."""
    prefix, namespace, share = (os.environ.get(f"ASYNCPULL_PEER{part}") for part in ("", "_NS", "_SHARE"))
    if not prefix or not namespace or not share:
        return None
    return Peer("newest", tuple(shlex.split(prefix)), tuple(shlex.split(namespace)), Path(share))


def checked(done: subprocess.CompletedProcess[str], expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Return ``done`` if it ended with the exit code that is expected, else raise CommandError with what it said."""
    if done.returncode != expect:
        said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}".strip()
        raise CommandError(f"{shlex.join(done.args)} ended with {done.returncode}, not {expect}:\n{said}")
    return done
