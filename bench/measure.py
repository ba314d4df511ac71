"""What a command costs: time by the clock, time of the processors, and memory of all its processes together."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SAMPLE_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


class RunFailedError(Exception):
    """A command that is measured ended with an error."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds by the clock, and seconds of processor time in user mode and in the kernel."""

    wall: float
    user: float
    system: float


@dataclass(frozen=True, slots=True)
class _CpuTime:
    user: float
    system: float

    def __add__(self, other: _CpuTime) -> _CpuTime:
        return _CpuTime(self.user + other.user, self.system + other.system)

    def __sub__(self, other: _CpuTime) -> _CpuTime:
        return _CpuTime(self.user - other.user, self.system - other.system)


@dataclass(frozen=True, slots=True)
class Job:
    """A command to be measured.

    ``daemons`` are processes that work for the command without being its children; what they and theirs spend while it
    runs is added to its own. What the command prints goes to ``output``.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    output: Path
    daemons: Collection[int] = ()


def measure_time(job: Job) -> Usage:
    """Run a job once. The time of its children counts as far as they ended and were waited for, as all peers do.

    Dirty pages of earlier runs are written out before the clock starts. Raises RunFailedError.
    """
    os.sync()
    before = _cpu_times(job.daemons)
    started = time.perf_counter()
    process = _start(job)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    _verify(job, process)
    spent = _cpu_times(job.daemons) - before + _CpuTime(usage.ru_utime, usage.ru_stime)
    return Usage(wall, spent.user, spent.system)


def measure_memory(job: Job) -> int:
    """Run a job once and return the largest sum, in bytes, of the proportional set sizes of all its processes.

    Reading the sizes slows the processes down: do not take the time of the same run. Raises RunFailedError.
    """
    os.sync()
    process = _start(job)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_proportional_set_size, _family([process.pid, *job.daemons]))))
        time.sleep(SAMPLE_SECONDS)
    _verify(job, process)
    return peak


def _start(job: Job) -> subprocess.Popen[bytes]:
    with job.output.open("wb") as output:
        return subprocess.Popen(
            job.command, env=dict(job.environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def _verify(job: Job, process: subprocess.Popen[bytes]) -> None:
    if process.returncode != 0:
        said = job.output.read_text(errors="replace")[-2000:]
        raise RunFailedError(f"{' '.join(job.command)} ended with {process.returncode}: {said}")


def _cpu_times(processes: Collection[int]) -> _CpuTime:
    total = _CpuTime(0.0, 0.0)
    for process in _family(processes):
        total += _cpu_time(process)
    return total


def _cpu_time(process: int) -> _CpuTime:
    """Return what a process and the children that it waited for have spent, from /proc/PID/stat."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    user, system, child_user, child_system = (int(field) / _TICKS for field in fields[11:15])
    return _CpuTime(user + child_user, system + child_system)


def _family(roots: Collection[int]) -> list[int]:
    """Return processes with all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue  # ended meanwhile
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found: list[int] = []
    queue = list(dict.fromkeys(roots))
    while queue:
        process = queue.pop()
        if process not in found:
            found.append(process)
            queue += children.get(process, [])
    return found


def _proportional_set_size(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # ended meanwhile
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
