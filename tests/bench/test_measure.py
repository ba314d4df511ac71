"""What a command costs includes its children and the daemons that work for it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.measure import Job, RunFailedError, measure_memory, measure_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPIN = "import time\nwhile time.process_time() < 0.2: pass"
IN_A_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN!r}], check=True)"


def _job(tmp_path: Path, command: Sequence[str], daemons: Sequence[int] = ()) -> Job:
    return Job(command, os.environ, tmp_path / "output", daemons)


def test_time_of_children_counts(tmp_path: Path) -> None:
    usage = measure_time(_job(tmp_path, [sys.executable, "-c", IN_A_CHILD]))

    assert usage.user + usage.system >= 0.2
    assert usage.wall > 0


def test_time_of_daemons_counts(tmp_path: Path) -> None:
    asked, done = tmp_path / "asked", tmp_path / "done"
    os.mkfifo(asked)
    os.mkfifo(done)
    serve = f"open({str(asked)!r}).read()\n{SPIN.replace('0.2', '0.4')}\nopen({str(done)!r}, 'w').close()\ninput()"
    with subprocess.Popen([sys.executable, "-c", serve], stdin=subprocess.PIPE) as daemon:
        client = ["sh", "-c", 'echo >"$0"; cat "$1"', str(asked), str(done)]
        usage = measure_time(_job(tmp_path, client, [daemon.pid]))
        daemon.communicate(b"\n")

    assert usage.user + usage.system >= 0.2


def test_memory_of_all_processes_counts(tmp_path: Path) -> None:
    child = "import time; kept = bytearray(b'x') * 40_000_000; time.sleep(0.5)"
    both = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}]).wait()"

    assert measure_memory(_job(tmp_path, [sys.executable, "-c", both])) > 40_000_000


@pytest.mark.parametrize("measure", [measure_time, measure_memory])
def test_a_failure_is_told_with_what_was_said(tmp_path: Path, measure: object) -> None:
    assert callable(measure)
    with pytest.raises(RunFailedError, match="no such image"):
        measure(_job(tmp_path, ["sh", "-c", "echo no such image; exit 3"]))
