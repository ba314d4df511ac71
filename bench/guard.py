"""Compares this revision with another one, and fails where it costs more: ``scripts/bench --guard BASE``.

What is judged is what a change of the program changes and a busy machine does not: system calls for each file and bytes
written, and user CPU time with much patience, because that varies by a quarter from run to run. Never the wall.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.cases import Case
from bench.filesystems import Directories
from bench.images import build_workload, push_image
from bench.links import LINKS, open_link
from bench.orders import OURS
from bench.peers import REPOSITORY, ours
from bench.rounds import Session
from bench.scenarios import SCENARIOS
from tests.support.docker_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.results import Result

BASE = "base"
SCENARIO = "guard"
PAIRS = 7
"""The fewest pairs of runs that user CPU time is judged by."""
COUNTED = 3
"""Runs whose system calls are counted: the least of a few, for some calls only wait."""
USER_TOLERANCE = 1.15
COUNT_TOLERANCE = 1.03
"""By how much a figure that is stable may be larger: calls and writes that depend on how bytes happen to arrive."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure of both revisions, and whether the new one may have it."""

    what: str
    base: float
    new: float
    ratio: float
    tolerance: float

    @property
    def is_worse(self) -> bool:
        return self.ratio > self.tolerance

    def __str__(self) -> str:
        word = "WORSE" if self.is_worse else "fine"
        return f"{self.what}: {self.base:,.2f} -> {self.new:,.2f}, x{self.ratio:.3f} (up to x{self.tolerance}): {word}"


def judge(base: Result, new: Result, files: int) -> list[Verdict]:
    """Compare the runs of two revisions with ``files`` in a store after each.

    Raises ValueError for fewer than ``PAIRS`` pairs, or where system calls were not counted.
    """
    pairs = [(one, other) for one, other in zip(base.times, new.times, strict=True) if one and other]
    if len(pairs) < PAIRS:
        raise ValueError(f"{len(pairs)} pairs of runs: user CPU time is judged by {PAIRS} at least")
    if not base.calls or not new.calls:
        raise ValueError("system calls were not counted: neither perf nor strace works here")
    calls = min(base.calls) / files, min(new.calls) / files
    written = median(one.written for one, _ in pairs), median(other.written for _, other in pairs)
    user = median(one.user for one, _ in pairs), median(other.user for _, other in pairs)
    per_pair = median(other.user / one.user for one, other in pairs)
    return [
        Verdict("system calls per file", *calls, calls[1] / calls[0], COUNT_TOLERANCE),
        Verdict("MB written", written[0] / 1e6, written[1] / 1e6, written[1] / written[0], COUNT_TOLERANCE),
        Verdict("seconds of user CPU, per pair", *user, per_pair, USER_TOLERANCE),
    ]


def guard(base: str, rounds: int, work: Path, sources: Path) -> None:
    """Measure both revisions, taking turns, and end with exit code 1 if this one is worse."""
    with _checked_out(base) as python:
        verdicts = compare(python, max(rounds, PAIRS), work, sources)
    if any(verdict.is_worse for verdict in verdicts):
        raise SystemExit(1)


def compare(python: str, rounds: int, work: Path, sources: Path) -> list[Verdict]:
    """Run the asyncpull of another interpreter and ours on the same images; say what that comes to, and return it."""
    workload = build_workload(SCENARIOS[SCENARIO], sources)
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        runs = Path(stack.enter_context(TemporaryDirectory(prefix="g", dir=work)))
        registry = stack.enter_context(docker_registry(sources / "registry"))
        references = {SCENARIO: [push_image(image, registry) for image in workload.images]}
        meter = stack.enter_context(open_link(LINKS["loopback"], runs / "link", registry))
        session = Session(
            Directories(runs),
            [ours(python, BASE), ours()],
            [Case(SCENARIO, "loopback", (BASE,))],
            {SCENARIO: workload},
            references,
            {"loopback": meter},
        )
        results = {result.peer: result for result in session.measure(rounds, COUNTED)}
        verdicts = judge(results[BASE], results[OURS], workload.files)
        print("\n".join(map(str, verdicts)), flush=True)  # deleting what the runs have left takes a while
    return verdicts


@contextmanager
def _checked_out(revision: str) -> Iterator[str]:
    """Install a revision into a temporary work tree with a virtual environment of its own; gives its interpreter."""
    with TemporaryDirectory() as directory:
        tree = Path(directory) / "base"
        _run("git", "-C", REPOSITORY, "worktree", "add", "--detach", tree, revision)
        try:
            _run(tree / "scripts" / "venv", "", ".venv", sys.executable)
            python = tree / ".venv" / "bin" / "python"
            _run(python, "-m", "compileall", "-q", tree / "asyncpull")
            yield str(python)
        finally:
            shutil.rmtree(tree)
            _run("git", "-C", REPOSITORY, "worktree", "prune")


def _run(*command: str | Path) -> None:
    words: Sequence[str] = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()[-2000:]}")
