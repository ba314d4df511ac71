"""The runs of a session: the peers take turns, A B C A B C, in rounds; only runs of the same round are compared."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.embedded import TRACE
from bench.measure import RunFailedError, measure_time, observe
from bench.orders import OURS, Order, job_of
from bench.results import Result
from bench.scenarios import SCENARIOS, STORE
from bench.syscalls import counting
from bench.timeline import timeline_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.cases import Case
    from bench.filesystems import Ground
    from bench.images import Workload
    from bench.links import Meter
    from bench.measure import Job
    from bench.orders import Peer
    from bench.timeline import Timeline

_PROGRAMS = 256 << 20
"""How many bytes of memory those who pull take for themselves, about."""


@dataclass(frozen=True, slots=True)
class Session:
    """Everything that runs need: ``references`` are repositories with tags, by scenario, as the registry has them."""

    ground: Ground
    peers: Sequence[Peer]
    cases: Sequence[Case]
    workloads: Mapping[str, Workload]
    references: Mapping[str, Sequence[str]]
    meters: Mapping[str, Meter]

    def turns(self, case: Case) -> list[Peer]:
        """Who takes part in a case, in order."""
        wanted, goal = {OURS, *case.peers}, SCENARIOS[case.scenario].goal
        return [peer for peer in self.peers if peer.name in wanted and goal in peer.goals]

    def measure(self, rounds: int, observed: int) -> list[Result]:
        """Run everything: so many rounds whose time is taken, and further ones that are looked at meanwhile.

        Raises RunFailedError, but for runs over a link that breaks things: that is a result there.
        """
        results = {
            (case, peer.name): Result(case.scenario, case.link, peer.name)
            for case in self.cases
            for peer in self.turns(case)
        }
        for number in range(rounds + observed):
            for case in self.cases:
                for peer in self.turns(case):
                    self._run(case, peer, results[case, peer.name], timed=number < rounds)
                print(f"round {number + 1} of {rounds + observed}: {case.scenario}@{case.link}", flush=True)
        return list(results.values())

    def trace(self) -> Iterator[Timeline]:
        """Pull the images of every case into a store once more, by the library, and tell what happened when."""
        for case in self.cases:
            if SCENARIOS[case.scenario].goal != STORE or self.meters[case.link].link.breaks:
                continue
            with self._order(case) as order:
                roots = [str(order.directory / name) for name in ("root", "run")]
                job = job_of(order, [*TRACE, *roots, *order.references])
                measure_time(job)
                yield timeline_of(case.scenario, case.link, job.output.read_text())
            self.meters[case.link].traffic()

    def _run(self, case: Case, peer: Peer, result: Result, *, timed: bool) -> None:
        meter = self.meters[case.link]
        try:
            with self._order(case) as order, peer.job(order) as job:
                if order.before:
                    meter.traffic()
                if timed:
                    result.times.append(measure_time(job))
                else:
                    _observe(job, order.directory, result)
        except RunFailedError as error:
            if not meter.link.breaks:
                raise
            result.failures.append(str(error))
            if timed:
                result.times.append(None)
        result.traffic.append(meter.traffic())

    @contextmanager
    def _order(self, case: Case) -> Iterator[Order]:
        scenario, meter = SCENARIOS[case.scenario], self.meters[case.link]
        with self.ground.place() as directory, meter.running() as address:
            workload = self.workloads[case.scenario]
            references = tuple(f"{address}/{reference}" for reference in self.references[case.scenario])
            pulled = references[scenario.pulled]
            yield Order(
                directory,
                pulled,
                scenario.goal,
                references[: scenario.present],
                workload.images[scenario.pulled],
                tuple(f"http://{address}/v2/{each[len(address) + 1 :].rpartition(':')[0]}" for each in pulled),
                meter.entrance,
                scenario.cold,
                workload.blob_size + workload.unpacked_size + _PROGRAMS,
            )


def _observe(job: Job, directory: Path, result: Result) -> None:
    if job.itself:
        return  # all that could be seen is what it does besides
    with counting(job, directory) as count:
        result.observations.append(observe(count.job))
    if count.calls is not None:
        result.calls.append(count.calls)
