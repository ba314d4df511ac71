"""The processes of a pool, seen from the event loop: the nursery, and each worker with the front of the blob it reads.

Workers are forked from the nursery, which is started by ``subprocess.Popen``; all are spoken to over socket pairs, so
that any thread and any event loop will do, and no child watcher is needed.

The end of its socket ends a worker wherever it is. The other way round, the end of a worker's stream says that the
process is gone with all its threads, since only then the kernel closes its descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pickle
import socket
import subprocess
import sys
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import WorkerError
from asyncpull.extract.confinement import worker_environment
from asyncpull.extract.protocol import Advanced, AnswerDecoder, ApplyJob, Front, Job, encode, send_job
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpull.extract.confinement import Confinement, Reach
    from asyncpull.extract.protocol import Decoder

_RECEIVE = 1 << 16
# A worker hears of the front no sooner again, in seconds: over a fast line it is behind, and only disturbed by that.
_FEED_PAUSE = 0.01
_NURSERY = Path(__file__).with_name("__main__.py")


def _python_path() -> str:
    """Where a worker looks for modules: where this process does, in whatever way it came to that.

    So a worker finds this package even if the program put it on the path itself, and need not work out the path again
    (``-S``: no site module, no .pth files), which is a good part of a start.
    """
    package_parent = str(Path(__file__).parents[2])
    return os.pathsep.join((package_parent, *filter(None, sys.path)))


class BlobFront:
    """How far a blob has arrived, in bytes; set by the download, awaited by whoever feeds the worker.

    ``is_alone`` says that no other layer keeps a core busy.
    """

    def __init__(self, size: int) -> None:
        self.size, self.position = size, 0
        self.is_alone = False
        self._moved, self._completed = asyncio.Event(), asyncio.Event()
        if not size:
            self._completed.set()

    @property
    def is_complete(self) -> bool:
        """Whether all of the blob is here."""
        return self._completed.is_set()

    def advance(self, position: int) -> None:
        """``position`` bytes are here, from the first one on."""
        if position > self.position:
            self.position = position
            self._moved.set()
            if position >= self.size:
                self._completed.set()

    async def begun(self) -> None:
        """Wait until there is something to read."""
        while self.position == 0 and self.size:
            await self._moved.wait()

    def leave_alone(self) -> None:
        """The other layers are done."""
        if not self.is_alone:
            self.is_alone = True
            self._moved.set()

    def now(self) -> Front:
        """What is to be told to the worker."""
        self._moved.clear()
        return Front(self.position, self.is_alone)

    async def moved(self) -> Front:
        """Wait until there is more to be told than what was last returned, and return that."""
        await self._moved.wait()
        return self.now()

    async def completed(self, seconds: float) -> None:
        """Wait until all of the blob is here, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._completed.wait()


class Nursery:
    """The process that workers are forked from, and our end of its socket."""

    def __init__(self, reach: Reach) -> None:
        """Start it; its workers may touch what is in ``reach``. Raises WorkerError."""
        self._sock, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-S", "-P", str(_NURSERY), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**worker_environment(os.environ), "PYTHONPATH": _python_path()},
                    start_new_session=True,
                )
                self._sock.send(pickle.dumps(reach))
            except OSError as error:
                self._sock.close()
                raise WorkerError(f"cannot start a worker process: {error}") from error

    def new_worker(self) -> Worker:
        """Have a worker forked, which will read what is sent to it. Raises WorkerError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._sock, [b"+"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise WorkerError(f"cannot start a worker process: {error}") from error
        ours.setblocking(False)
        return Worker(ours)

    @functools.cached_property
    def confinement(self) -> Confinement:
        """How its workers are confined; waits until it is up. Raises WorkerError if it died before that."""
        data = self._sock.recv(_RECEIVE)
        if not data:
            raise WorkerError("a worker process cannot start", "what it printed says why")
        confinement: Confinement = pickle.loads(data)  # said before there was any worker
        return confinement

    def close(self) -> None:
        """Let the nursery go, when the sockets of its workers are closed, and wait until all have ended."""
        self._sock.close()
        self._process.wait()


@dataclass(eq=False, slots=True)
class Worker:
    """Our end of a worker's socket."""

    sock: socket.socket
    decoder: Decoder = field(default_factory=AnswerDecoder)

    async def do(
        self,
        job: Job,
        fds: Sequence[int],
        front: BlobFront | None,
        on_advance: Callable[[int], None],
        given: socket.socket | None = None,
    ) -> object:
        """Send a job and wait for its result, which may be Failed. Raises WorkerError if the worker dies.

        ``given`` is a socket among ``fds`` that shall be the worker's alone: it is closed here.
        """
        loop = asyncio.get_running_loop()
        rest = send_job(self.sock, job, list(fds))
        if given is not None:
            given.close()
        await loop.sock_sendall(self.sock, rest)
        feeder = None
        if isinstance(job, ApplyJob) and front is not None:
            feeder = loop.create_task(self._feed(front))
        try:
            return await self._result(on_advance)
        finally:
            if feeder is not None:
                feeder.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await feeder

    async def _feed(self, front: BlobFront) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(self.sock, encode(await front.moved()))
            await front.completed(_FEED_PAUSE)

    async def _result(self, on_advance: Callable[[int], None]) -> object:
        while data := await self._receive():
            for message in self.decoder.feed(data):
                if not isinstance(message, Advanced):
                    return message
                on_advance(message.position)
        raise WorkerError("a worker process died", "the kernel's log tells whether memory ran out")

    async def _receive(self) -> bytes:
        """The next bytes; none when the process is gone."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.sock, _RECEIVE)
        except OSError:
            return b""

    async def end(self) -> None:
        """End the process, whatever it does, and return when it is gone, even when cancelled meanwhile."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        try:
            await finish(asyncio.ensure_future(self._drain()))
        finally:
            self.sock.close()

    async def _drain(self) -> None:
        while await self._receive():
            pass
