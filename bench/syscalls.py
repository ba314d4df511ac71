"""How many system calls a job makes: counted by the kernel for perf where that is allowed, else by strace."""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from bench.measure import family

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.measure import Job

_EVENT = "raw_syscalls:sys_enter"
_PERF = ("perf", "stat", "-x,", "-e", _EVENT)
_STRACE = ("strace", "-f", "-qq", "-c", "-U", "calls,name")


@cache
def counter() -> str | None:
    """The program that counts here: perf, which costs next to nothing, or strace; None if neither works."""
    for program, words in (("perf", _PERF), ("strace", _STRACE)):
        try:
            if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
                return program
        except FileNotFoundError:
            continue
    return None


@dataclass(slots=True)
class Count:
    """The job that is to be run instead of the one given, and afterwards ``calls``: those of all its processes."""

    job: Job
    calls: int | None = None


@contextmanager
def counting(job: Job, directory: Path) -> Iterator[Count]:
    """Count the system calls of what is run in the block, its daemons' too; files go to ``directory``."""
    program = counter()
    if program is None:
        yield Count(job)
        return
    words = _PERF if program == "perf" else _STRACE
    own, others = directory / "calls", directory / "calls-of-daemons"
    count = Count(job.behind([*words, "-o", str(own), *(["--"] if program == "perf" else [])]))
    watched = [str(process) for process in family(job.daemons)]
    watcher = None
    if watched:
        attach = ["-p", ",".join(watched)]
        watcher = subprocess.Popen([*words, "-o", str(others), *attach], stderr=subprocess.DEVNULL)
    try:
        yield count
    finally:
        if watcher is not None:
            watcher.send_signal(2)  # both tell what they have counted when they are interrupted
            watcher.wait()
    read = calls_of_perf if program == "perf" else calls_of_strace
    count.calls = read(own.read_text()) + (read(others.read_text()) if watched else 0)


def calls_of_perf(said: str) -> int:
    """The count in what ``perf stat -x,`` writes: its lines begin with a number."""
    return sum(int(line.split(",")[0]) for line in said.splitlines() if line.split(",")[0].isdigit())


def calls_of_strace(said: str) -> int:
    """The sum that ``strace -c`` writes in its last line."""
    return int(next(found[1] for found in re.finditer(r"^\s*(\d+) total$", said, re.MULTILINE)))
