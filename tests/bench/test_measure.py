"""What a command costs includes its children and the daemons that work for it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.measure import Job, RunFailedError, Usage, measure_time, observe

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    assert observe(_job(tmp_path, [sys.executable, "-c", both])).peak > 40_000_000


def test_what_is_written_counts(tmp_path: Path) -> None:
    if not _counts_writes(tmp_path):
        pytest.skip("a file system of memory")
    write = f"open({str(tmp_path / 'file')!r}, 'wb').write(bytes(5_000_000))"
    in_a_child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {write!r}], check=True)"

    written = measure_time(_job(tmp_path, [sys.executable, "-c", in_a_child])).written

    assert 5_000_000 <= written < 5_500_000


def _counts_writes(directory: Path) -> bool:
    kind = subprocess.run(["stat", "-fc", "%T", directory], capture_output=True, text=True, check=True).stdout
    return kind.strip() != "tmpfs"


def test_as_much_memory_as_a_job_fills_was_used_before(tmp_path: Path) -> None:
    wanted, before = 64 << 20, _pages_used()
    job = replace(_job(tmp_path, ["true"]), memory=wanted)

    measure_time(job)

    assert _pages_used() - before >= wanted // mmap.PAGESIZE


def _pages_used() -> int:
    """How many pages were handed out since the machine was started."""
    counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return sum(int(value) for name, value in counters.items() if name.startswith("pgalloc_"))


def test_a_program_can_tell_what_a_part_of_it_cost(tmp_path: Path) -> None:
    said = 'echo working; echo \'{"wall": 0.25, "user": 0.125, "system": 0.5}\''
    job = replace(_job(tmp_path, ["sh", "-c", said]), itself=True)

    assert measure_time(job) == Usage(0.25, 0.125, 0.5)


def test_the_first_file_of_a_layer_that_has_content_is_seen(tmp_path: Path) -> None:
    script = "mkdir -p root/overlay/x/diff/etc; echo >root/lock; sleep 0.3; : >root/overlay/x/diff/etc/empty; sleep 0.3"
    write = "; echo 1 >root/overlay/x/diff/etc/full; sleep 0.3"
    for words, seen in ((script, False), (script + write, True)):
        job = replace(_job(tmp_path, ["sh", "-ec", f"cd {tmp_path}; {words}"]), directory=tmp_path)
        first = observe(job).first_byte
        assert (first is not None and first >= 0.6) if seen else first is None


@pytest.mark.parametrize("measure", [measure_time, observe])
def test_a_failure_is_told_with_what_was_said(tmp_path: Path, measure: object) -> None:
    assert callable(measure)
    with pytest.raises(RunFailedError, match="no such image"):
        measure(_job(tmp_path, ["sh", "-c", "echo no such image; exit 3"]))
