"""Commands run by an ordinary user, started by root, with what /etc/subuid and /etc/subgid grant to that user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.support.command import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping

UID = 1000

_BECOME = f"setpriv --reuid {UID} --regid {UID} --clear-groups"


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
        self._prepare = f"mount --bind {self._grants} /etc/subuid && mount --bind {self._grants} /etc/subgid"
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
        script = f"""
            {self._prepare} || exit 99
            exec {_BECOME} sh -c 'exec "$@"' sh "$@" """
        return subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *command],
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
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
