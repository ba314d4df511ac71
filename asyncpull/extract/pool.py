"""The pool of worker processes, seen from the event loop.

A worker does one job at a time. Jobs wait for a free worker, those whose blob is complete first, then the largest.
They also wait while each core has a worker with something to do: more would only share the cores, each with memory of
its own, and the largest layer, on which everything waits in the end, would get the less. Not counted is who follows a
blob that has not come after a moment: most of the time it waits. When a job ends and one alone is left that waits, that
begins, so that no core is idle in the end before it must be.

How workers are started and spoken to: ``processes``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from asyncpull.dataclass import dataclass
from asyncpull.errors import WorkerError
from asyncpull.extract.processes import Nursery
from asyncpull.extract.protocol import ApplyJob, Failed, Job, MakeJob, open_memory
from asyncpull.log import Log
from asyncpull.waiting import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from asyncpull.extract.confinement import Confinement, Reach
    from asyncpull.extract.processes import BlobFront, Worker

# Over a fast line, blobs have come in so many seconds.
_MOMENT = 1.0

_log = Log(__name__)


@dataclass(eq=False, slots=True)
class Turn:
    """A job that waits for a worker."""

    job: Job
    front: BlobFront | None
    worker: asyncio.Future[Worker]

    @property
    def urgency(self) -> tuple[bool, int]:
        """Complete blobs first, then the largest."""
        size = self.job.size if isinstance(self.job, ApplyJob) else 0
        return (self.front is None or self.front.is_complete, size)


@dataclass(eq=False, slots=True)
class Shift:
    """A job at work; one that reads a blob follows its ``front``. ``is_new`` for a moment."""

    front: BlobFront | None
    has_partner: bool = False
    is_new: bool = True

    @property
    def takes_a_core(self) -> bool:
        """Whether the worker is taken to have something to do all the time; of two partners one is counted."""
        return not self.has_partner and (self.front is None or self.front.is_complete or self.is_new)


class WorkerPool:
    """At most ``limit`` workers, started when they are needed; an async context manager that leaves none behind.

    They can touch the files in ``reach`` and no others; its directories must be there when the first one is started.
    There are so many ``cores`` to be kept busy, those of this machine if that is not given.
    """

    def __init__(self, reach: Reach, limit: int | None = None, *, cores: int | None = None) -> None:
        self._reach = reach
        self._cores = cores or os.cpu_count() or 1
        self._limit = limit or self._cores + 2
        self._nursery: Nursery | None = None
        self._idle: list[Worker] = []
        self._running: dict[Worker, Shift] = {}
        self._has_told = False
        self._turns: list[Turn] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._idle:
            worker.sock.close()  # the end of its stream tells it to exit
        self._idle.clear()
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    @property
    def _count(self) -> int:
        """How many workers there are."""
        return len(self._idle) + len(self._running)

    @property
    def _bytes_at_hand(self) -> int:
        """The size of all blobs that are worked on or wait for a worker."""
        jobs: list[Shift | Turn] = [*self._running.values(), *self._turns]
        return sum(job.front.size for job in jobs if job.front is not None)

    @property
    def _has_worker(self) -> bool:
        """Whether a worker is free, or can be started."""
        return bool(self._idle) or self._count < self._limit

    @property
    def _has_core(self) -> bool:
        """Whether a core is left to another job."""
        return sum(shift.takes_a_core for shift in self._running.values()) < self._cores

    async def confinement(self) -> Confinement:
        """How the workers of this pool are confined on this machine. Raises WorkerError."""
        nursery = self._nursery = self._nursery or Nursery(self._reach)
        return await asyncio.to_thread(lambda: nursery.confinement)

    def prepare(self, jobs: int) -> None:
        """Start workers for so many jobs to come, so that they are up when the first bytes are."""
        while self._count < min(jobs, self._cores, self._limit):
            self._idle.append(self._start())

    async def run(
        self,
        job: Job,
        fds: Sequence[int] = (),
        front: BlobFront | None = None,
        on_advance: Callable[[int], None] = lambda position: None,
    ) -> object:
        """Do ``job`` in a worker and return its result; ``fds`` are shared with the worker for as long as it takes.

        Raises what the job raises, and WorkerError. When cancelled, the worker is gone before this returns.
        """
        return await self._do(await self._acquire(job, front), job, fds, front, on_advance)

    async def apply(
        self,
        job: ApplyJob,
        fds: Sequence[int],
        front: BlobFront,
        on_advance: Callable[[int], None],
        *,
        beside: int,
    ) -> object:
        """Do ``job`` as ``run`` does, with two workers where one would keep everybody waiting.

        That is a layer which is more than its core's share of all there is to do: of the ``beside`` bytes of blobs
        that are to be applied with it, this one counted, or of what the pool knows of. One worker at least is left to
        others, for the blob may be long in coming. Who does such a layer without another has threads to help from the
        beginning, and who does any other as soon as there are fewer layers than cores.
        """
        share = max(beside, self._bytes_at_hand + job.size) / self._cores
        if job.size <= share:
            return await self.run(job, fds, front, on_advance)
        front.leave_alone()
        if len(self._running) + 2 > self._limit - 1:
            return await self.run(job, fds, front, on_advance)
        try:
            memory = open_memory()
        except OSError:  # not every kernel has such files
            return await self.run(job, fds, front, on_advance)
        ends: tuple[socket.socket, ...] = ()
        try:
            ends = socket.socketpair()
            make = MakeJob(job.diff, job.marks, job.in_userns, job.ignore_chown_errors, job.ceilings)
            # Both at once and without waiting: whoever had one and waited for the other could wait for ever.
            maker = self._take(None)
            try:
                reader = self._take(front, has_partner=True)
            except BaseException:
                self._give_back(maker)
                raise
            # Each end is that of one worker alone, so that it closes with what that one does.
            results = await run_all(
                (
                    self._do(maker, make, (memory, ends[0].fileno(), *fds[1:]), given=ends[0]),
                    self._do(
                        reader,
                        replace(job, has_partner=True),
                        (*fds, memory, ends[1].fileno()),
                        front,
                        on_advance,
                        given=ends[1],
                    ),
                )
            )
        finally:
            os.close(memory)
            for end in ends:
                end.close()
        return results[1]

    async def _do(
        self,
        worker: Worker,
        job: Job,
        fds: Sequence[int],
        front: BlobFront | None = None,
        on_advance: Callable[[int], None] = lambda position: None,
        given: socket.socket | None = None,
    ) -> object:
        """Do ``job`` in ``worker``, which is free again after that, or gone; ``given`` as for ``Worker.do``."""
        try:
            if isinstance(job, ApplyJob) and front is not None:
                now = front.now()
                job = replace(job, front=now.position, is_alone=now.is_alone)
            result = await worker.do(job, fds, front, on_advance, given)
        except BaseException:
            try:
                await worker.end()
            finally:
                del self._running[worker]
                self._begin_waiting()
            raise
        self._give_back(worker)
        self._tell_of_confinement()
        if isinstance(result, Failed):
            raise result.error
        return result

    async def _acquire(self, job: Job, front: BlobFront | None) -> Worker:
        if self._has_worker and self._has_core:
            return self._take(front)
        turn = Turn(job, front, asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        try:
            return await turn.worker
        except asyncio.CancelledError:
            if turn in self._turns:
                self._turns.remove(turn)
            elif not turn.worker.cancelled() and turn.worker.exception() is None:
                self._give_back(turn.worker.result())
            raise

    def _take(self, front: BlobFront | None, *, has_partner: bool = False) -> Worker:
        """A free worker for a job that reads along ``front``. Raises WorkerError."""
        worker = self._idle.pop() if self._idle else self._start()
        self._running[worker] = shift = Shift(front, has_partner)
        asyncio.get_running_loop().call_later(_MOMENT, self._settle, shift)
        return worker

    def _settle(self, shift: Shift) -> None:
        """A job is at work for a moment."""
        shift.is_new = False
        self._begin_waiting()

    def _give_back(self, worker: Worker) -> None:
        """Let a worker that has ended its job do the next."""
        del self._running[worker]
        self._idle.append(worker)
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Give workers to jobs that wait, the most urgent first, as long as there is room; who is left is told so."""
        while self._turns and self._has_worker and (self._has_core or len(self._turns) == 1):
            turn = max(self._turns, key=lambda turn: turn.urgency)
            self._turns.remove(turn)
            if turn.worker.done():  # cancelled a moment ago
                continue
            try:
                turn.worker.set_result(self._take(turn.front))
            except WorkerError as error:
                turn.worker.set_exception(error)
        if len(self._running) < self._cores:
            for shift in self._running.values():
                if shift.front is not None:
                    shift.front.leave_alone()

    def _start(self) -> Worker:
        self._nursery = self._nursery or Nursery(self._reach)
        return self._nursery.new_worker()

    def _tell_of_confinement(self) -> None:
        """Log once what is missing of it; the nursery has said so, for a worker has answered."""
        if not self._has_told and self._nursery is not None:
            self._has_told = True
            confinement = self._nursery.confinement
            if confinement.missing:
                _log.debug("workers are confined in part", missing=confinement.missing, landlock=confinement.landlock)
