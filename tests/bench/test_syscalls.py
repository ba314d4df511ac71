"""System calls are counted, of children and of daemons too."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench import syscalls
from bench.measure import Job, observe
from bench.syscalls import calls_of_perf, calls_of_strace, counter, counting

if TYPE_CHECKING:
    from pathlib import Path

CALLS = "import os\nfor _ in range(20_000): os.getppid()"
PERF = "# started on Sun Nov 29\n\n631,,raw_syscalls:sys_enter,4511000,100.00,,\n"
STRACE = """\
    calls syscall
--------- ----------------
       12 read
        3 close
--------- ----------------
       15 total
"""


def test_what_the_counters_write_is_read() -> None:
    assert calls_of_perf(PERF) == 631
    assert calls_of_strace(STRACE) == 15


@pytest.mark.skipif(counter() is None, reason="neither perf nor strace works here")
@pytest.mark.parametrize("program", ["perf", "strace"])
def test_calls_of_children_and_daemons_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    if program == "perf" and counter() != "perf":
        pytest.skip("perf does not work here")
    monkeypatch.setattr(syscalls, "counter", lambda: program)
    asked, done = tmp_path / "asked", tmp_path / "done"
    os.mkfifo(asked)
    os.mkfifo(done)
    serve = f"open({str(asked)!r}).read()\n{CALLS}\nopen({str(done)!r}, 'w').close()\ninput()"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {CALLS!r}], check=True)"
    with subprocess.Popen([sys.executable, "-c", serve], stdin=subprocess.PIPE) as daemon:
        words = ["sh", "-ec", 'sleep 0.5; "$1" -c "$2"; echo >"$3"; cat "$4"', "sh", sys.executable, child]
        job = Job([*words, str(asked), str(done)], os.environ, tmp_path / "output", [daemon.pid])
        with counting(job, tmp_path) as count:
            observe(count.job)
        daemon.communicate(b"\n")

    assert count.calls is not None
    assert 40_000 < count.calls < 60_000
