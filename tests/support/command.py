"""The real command, in a process of its own, on a store of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What stdout holds, which must be one JSON document; what is in it, the test asserts."""
        return json.loads(self.out)

    def events(self) -> list[dict[str, Any]]:
        """What stderr holds with ``--progress json``."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]


@dataclass(frozen=True, slots=True)
class Command:
    """``asyncpull`` with roots below ``directory``."""

    directory: Path

    @property
    def root(self) -> Path:
        """The graph root."""
        return self.directory / "storage"

    @property
    def run_root(self) -> Path:
        """The run root."""
        return self.directory / "run"

    @property
    def arguments(self) -> list[str]:
        """The interpreter, the command, and its roots."""
        return [sys.executable, "-m", "asyncpull", "--root", str(self.root), "--runroot", str(self.run_root)]

    def __call__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
        """Run to the end; stdin is empty, and neither output is a terminal."""
        ended = subprocess.run(
            [*self.arguments, *arguments],
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start and go on."""
        return subprocess.Popen(
            [*self.arguments, *arguments],
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @staticmethod
    def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of the test, in which the project is found from everywhere."""
        return {**os.environ, "PYTHONPATH": str(PROJECT), **(more or {})}
