"""What a command costs: time by the clock and of the processors, bytes written, memory of all its processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.memory import use_and_free

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SAMPLE_SECONDS = 0.02
_CACHES = Path("/proc/sys/vm/drop_caches")
_TREE = re.compile(rb"diff|fs|rootfs(-[0-9]+)?|[0-9]+-addition")
"""What stores call the directory of a layer's files; the last while it is not committed, by podman and by us."""
_DEPTH = 9
_TICKS = os.sysconf("SC_CLK_TCK")


class RunFailedError(Exception):
    """A command that is measured ended with an error."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds by the clock, seconds of processor time in user mode and in the kernel, and bytes written.

    Those are the bytes that the processes gave to file systems on disks, whether or not they stayed there.
    """

    wall: float
    user: float
    system: float
    written: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen in a run whose time is not taken.

    ``peak`` is the largest sum, in bytes, of the proportional set sizes of all processes; ``first_byte`` is how many
    seconds it took until some extracted file had content, to the next 20 ms, None where that was not seen.
    """

    peak: int
    first_byte: float | None


@dataclass(frozen=True, slots=True)
class _Spent:
    """Up to some moment: seconds in user mode and in the kernel, and bytes written."""

    user: float = 0.0
    system: float = 0.0
    written: int = 0

    def __add__(self, other: _Spent) -> _Spent:
        return _Spent(self.user + other.user, self.system + other.system, self.written + other.written)

    def __sub__(self, other: _Spent) -> _Spent:
        return _Spent(self.user - other.user, self.system - other.system, self.written - other.written)


@dataclass(frozen=True, slots=True)
class Job:
    """A command to be measured.

    ``daemons`` are processes that work for the command without being its children; what they and theirs spend while it
    runs is added to its own. What the command prints goes to ``output``; with ``itself`` that is, in its last line, the
    Usage as JSON, because what is measured is only a part of what it does. Files appear below ``directory``. ``cold``
    drops what the kernel has cached of any file beforehand, which takes root. ``memory`` is how many bytes it fills,
    the caches of its files included.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    output: Path
    daemons: Collection[int] = ()
    directory: Path | None = None
    itself: bool = False
    cold: bool = False
    memory: int = 0

    def behind(self, words: Sequence[str]) -> Job:
        """The same job, with ``words`` before its command."""
        return replace(self, command=[*words, *self.command])


def measure_time(job: Job) -> Usage:
    """Run a job once. What its children spend counts as far as they ended and were waited for, as all peers do.

    Before the clock starts dirty pages of earlier runs are written out, and the memory it fills was used. Raises
    RunFailedError.
    """
    _prepare(job)
    before = _spent(job.daemons)
    started = time.perf_counter()
    process = _start(job)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    _verify(job, process)
    if job.itself:
        return Usage(**json.loads(job.output.read_text().splitlines()[-1]))
    # The kernel adds what a child has written to its parent, here us, when it is waited for.
    spent = _spent(job.daemons) - before + _Spent(usage.ru_utime, usage.ru_stime)
    return Usage(wall, spent.user, spent.system, spent.written)


def observe(job: Job) -> Observation:
    """Run a job once and look at it meanwhile, which slows it down: do not take the time of the same run.

    Raises RunFailedError.
    """
    _prepare(job)
    started = time.perf_counter()
    process = _start(job)
    peak, first_byte = 0, None
    while process.poll() is None:
        if first_byte is None and job.directory is not None and _has_content(os.fsencode(job.directory)):
            first_byte = time.perf_counter() - started
        peak = max(peak, sum(map(_proportional_set_size, family([process.pid, *job.daemons]))))
        time.sleep(SAMPLE_SECONDS)
    _verify(job, process)
    return Observation(peak, first_byte)


def _prepare(job: Job) -> None:
    os.sync()
    if job.cold:
        _CACHES.write_text("3\n")
    use_and_free(job.memory)


def _has_content(directory: bytes, depth: int = 0, *, within: bool = False) -> bool:
    """Whether there is a regular file that is not empty in some layer's tree below ``directory``."""
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return False  # not there yet, or renamed meanwhile
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                tree = within or bool(_TREE.fullmatch(entry.name))
                if depth < _DEPTH and _has_content(entry.path, depth + 1, within=tree):
                    return True
            elif within and entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size:
                return True
        except OSError:
            continue
    return False


def _start(job: Job) -> subprocess.Popen[bytes]:
    with job.output.open("wb") as output:
        return subprocess.Popen(
            job.command, env=dict(job.environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def _verify(job: Job, process: subprocess.Popen[bytes]) -> None:
    if process.returncode != 0:
        said = job.output.read_text(errors="replace")[-2000:]
        raise RunFailedError(f"{' '.join(job.command)} ended with {process.returncode}: {said}")


def _spent(daemons: Collection[int]) -> _Spent:
    """What the daemons and theirs have spent; and what the children of this process have written."""
    total = _Spent(written=_written("self"))
    for process in family(daemons):
        total += _spent_by(process)
    return total


def _spent_by(process: int) -> _Spent:
    """Return what a process and the children that it waited for have spent, from /proc/PID/stat and io."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        written = _written(process)
    except FileNotFoundError:
        return _Spent()  # ended meanwhile; its parent has it now
    user, system, child_user, child_system = (int(field) / _TICKS for field in fields[11:15])
    return _Spent(user + child_user, system + child_system, written)


def _written(process: int | str) -> int:
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def family(roots: Collection[int]) -> list[int]:
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
