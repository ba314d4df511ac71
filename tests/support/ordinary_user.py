"""Commands run by an ordinary user, started by root, with what /etc/subuid and /etc/subgid grant to that user."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.support.command import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UID = 1000

_BECOME = f"setpriv --reuid {UID} --regid {UID} --clear-groups"


def passage(wanted: Iterable[Path]) -> str:
    """A script for a mount namespace of its own, after which everybody can get to the directories that are wanted.

    Above them there may be one like ``/root``, which others may not enter. Over that comes an empty directory that they
    may enter, and in it what is wanted, under its name; nothing else that is in there can be seen then.
    """
    lines = []
    for number, (closed, inside) in enumerate(_behind_closed(wanted).items()):
        kept = f"$kept/{number}"
        lines += [f"mkdir {kept}", f"mount --bind {closed} {kept}", f"mount -t tmpfs -o mode=755 passage {closed}"]
        for path in inside:
            target = shlex.quote(str(path))
            lines += [
                f"mkdir -p {target}",
                f"mount --bind {kept}/{shlex.quote(str(path.relative_to(closed)))} {target}",
            ]
    if not lines:
        return "true"
    return " && ".join(["kept=$(mktemp -d)", "mount -t tmpfs passage $kept", *lines, "umount -l $kept", "rmdir $kept"])


def _behind_closed(wanted: Iterable[Path]) -> dict[Path, list[Path]]:
    """Those that others cannot get to, by the first directory above them that is closed."""
    behind: dict[Path, list[Path]] = {}
    for path in sorted(set(wanted)):
        closed = next((each for each in reversed(path.parents) if not each.stat().st_mode & stat.S_IXOTH), None)
        if closed is not None and not any(other in path.parents for other in behind.get(closed, [])):
            behind.setdefault(closed, []).append(path)
    return behind


class OrdinaryUser:
    """A user whose home is ``home``; ``grants`` is what both files say, in place only for the commands run here.

    Skips the test where such a user cannot start a Python with our packages.
    """

    def __init__(self, home: Path, grants: str = "") -> None:
        self.home = home
        home.chmod(0o755)
        for above in home.parents:  # pytest's own directories: pytest-of-root/pytest-0/popen-gw0
            if above.name.startswith(("pytest-", "popen-")):
                above.chmod(0o755)
        os.chown(home, UID, UID)
        self._grants = home / "granted"
        self._grants.write_text(grants)
        # Distributions let everybody use FUSE; where a machine does not, the commands run here may all the same.
        self._fuse = home / "fuse"
        python = Path(sys.executable).resolve().parents[1]
        self._prepare = passage((PROJECT, Path(sys.prefix), Path(sys.base_prefix), python, home))
        self._prepare += f" && mount --bind {self._grants} /etc/subuid && mount --bind {self._grants} /etc/subgid"
        if Path("/dev/fuse").exists():
            os.mknod(self._fuse, 0o020666, os.stat("/dev/fuse").st_rdev)
            self._fuse.chmod(0o666)
            self._prepare += f" && mount --bind {self._fuse} /dev/fuse"
        self._packages = os.pathsep.join([str(PROJECT), str(Path(click.__file__).parents[1])])
        self.python = self._find_python()

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The user's environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "runtime"),
            "PYTHONPATH": self._packages,
            **(more or {}),
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this user, to its end."""
        # The shell in between makes sure that setpriv's own privileges are gone when the command is looked up.
        return self.run_as_root("sh", "-c", f"""exec {_BECOME} sh -c 'exec "$@"' sh "$@" """, "sh", *command)

    def run_as_root(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command that becomes this user by itself, in this user's environment."""
        script = f"""
            {self._prepare} || exit 99
            exec "$@" """
        return subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *command],
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    def asyncpull(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run our command as this user."""
        return self.run(self.python, "-m", "asyncpull", *arguments)

    def _find_python(self) -> str:
        needed = "import asyncpull.cli, aiohttp, isal, orjson, uvloop"
        for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
            if self.run(python, "-c", needed).returncode == 0:
                return python
        pytest.skip("an ordinary user cannot start a Python that has our packages")
