"""What was measured, and on what machine: written as JSON, named after the time, and read again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.images import Facts
from bench.links import Traffic
from bench.measure import Observation, Usage
from bench.orders import OURS
from bench.timeline import Span, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FORMAT = 2
"""Of the documents; those of an older program have other fields."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, the smallest and the largest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where there are no values."""
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(slots=True)
class Result:
    """All runs of one peer with one scenario over one link.

    ``times`` has a place for every round, None where the run failed; ``failures`` tells how those ended. ``calls`` are
    numbers of system calls.
    """

    scenario: str
    link: str
    peer: str
    times: list[Usage | None] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def case(self) -> tuple[str, str]:
        return self.scenario, self.link

    @property
    def done(self) -> list[Usage]:
        """What the runs that did not fail have cost."""
        return [usage for usage in self.times if usage is not None]

    @property
    def wall(self) -> Spread | None:
        return Spread.of([usage.wall for usage in self.done])

    @property
    def user(self) -> Spread | None:
        return Spread.of([usage.user for usage in self.done])

    @property
    def system(self) -> Spread | None:
        return Spread.of([usage.system for usage in self.done])

    @property
    def cpu(self) -> Spread | None:
        return Spread.of([usage.user + usage.system for usage in self.done])

    @property
    def written(self) -> float | None:
        """Bytes."""
        return median(usage.written for usage in self.done) if self.done else None

    @property
    def peak(self) -> int | None:
        """Bytes of memory."""
        return max((each.peak for each in self.observations), default=None)

    @property
    def first_byte(self) -> float | None:
        """Seconds until a file had content, by the quickest run that was observed."""
        return min((each.first_byte for each in self.observations if each.first_byte is not None), default=None)

    @property
    def egress(self) -> int | None:
        """The most bytes of blobs that a run had from the registry."""
        return max((each.blob_bytes for each in self.traffic), default=None)

    @property
    def at_once(self) -> float | None:
        return median(each.at_once for each in self.traffic) if self.traffic else None


def wall_ratios(theirs: Result, ours: Result) -> list[float]:
    """Return, round by round, how many times as long as asyncpull's a run took: what ran next to each other."""
    pairs = zip(theirs.times, ours.times, strict=True)
    return [their.wall / our.wall for their, our in pairs if their is not None and our is not None]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured. ``memory`` is in bytes; ``filesystem`` is what the stores were on."""

    cpu: str
    cores: int
    memory: int
    kernel: str
    python: str
    filesystem: str

    @classmethod
    def here(cls, filesystem: str) -> Machine:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        cpu = next(names, platform.machine())
        return cls(cpu, os.cpu_count() or 1, memory, platform.release(), platform.python_version(), filesystem)


@dataclass(slots=True)
class Document:
    """Everything about one session, or several that are shown together. ``revision`` is that of this repository."""

    date: str
    revision: str
    rounds: int
    machine: Machine
    versions: dict[str, str]
    links: dict[str, str]
    scenarios: list[Facts]
    results: list[Result]
    timelines: list[Timeline] = field(default_factory=list)

    @property
    def cases(self) -> list[tuple[str, str]]:
        """Scenario and link of each case, in the order in which they were measured."""
        return list(dict.fromkeys(result.case for result in self.results))

    def scenario(self, name: str) -> Facts:
        return next(each for each in self.scenarios if each.name == name)

    def of(self, case: tuple[str, str]) -> list[Result]:
        """The results of a case, ours first."""
        found = [result for result in self.results if result.case == case]
        return sorted(found, key=lambda result: result.peer != OURS)

    def ours(self, case: tuple[str, str]) -> Result | None:
        return self.find(case, OURS)

    def find(self, case: tuple[str, str], peer: str) -> Result | None:
        return next((result for result in self.results if (result.case, result.peer) == (case, peer)), None)


def revision() -> str:
    """What git calls the state of this repository; changes that are not committed show as ``-dirty``."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def save(document: Document, directory: Path) -> Path:
    """Write a document to a file named after its date; return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{document.date.partition('+')[0].replace(':', '')}.json"
    path.write_text(json.dumps({"format": FORMAT} | asdict(document), indent=1) + "\n")
    return path


def load(path: Path) -> Document:
    """Read what ``save`` wrote; ends the program for a document of another format."""
    fields: dict[str, Any] = json.loads(path.read_text())
    if fields.pop("format", 1) != FORMAT:
        raise SystemExit(f"{path}: written by an older program, and cannot be shown by this one")
    fields["machine"] = Machine(**fields["machine"])
    fields["scenarios"] = [
        Facts(**(each | {key: tuple(each[key]) for key in ("digests", "stand_ins")})) for each in fields["scenarios"]
    ]
    fields["results"] = [_result(each) for each in fields["results"]]
    fields["timelines"] = [
        Timeline(**(each | {"spans": tuple(Span(**span) for span in each["spans"])})) for each in fields["timelines"]
    ]
    return Document(**fields)


def _result(fields: dict[str, Any]) -> Result:
    kinds = {"observations": Observation, "traffic": Traffic}
    read = {key: [kind(**each) for each in fields[key]] for key, kind in kinds.items()}
    return Result(**(fields | read | {"times": [each and Usage(**each) for each in fields["times"]]}))


def together(documents: Iterable[Document]) -> Document:
    """Several sessions of one machine as one; of a case that was measured twice the later session counts."""
    first, *others = sorted(documents, key=lambda document: document.date)
    for other in others:
        if other.machine != first.machine:
            raise SystemExit("sessions of different machines, or file systems, are not to be shown as one")
        cases, names = set(other.cases), {each.name for each in other.scenarios}
        first.results = [each for each in first.results if each.case not in cases] + other.results
        first.scenarios = [each for each in first.scenarios if each.name not in names] + other.scenarios
        kept = [each for each in first.timelines if (each.scenario, each.link) not in cases]
        first.timelines = kept + other.timelines
        first.versions |= other.versions
        first.links |= other.links
        first.date, first.rounds = other.date, min(first.rounds, other.rounds)
        if other.revision not in first.revision.split(", "):
            first.revision += f", {other.revision}"
    return first
