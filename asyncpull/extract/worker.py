"""A worker process: takes jobs from its socket, one after another, and does them.

Forked from the nursery. Two threads do a layer:

- the *listener* receives jobs and the advance of a blob's front, and ends the process when the loop process is gone;
- the *main* thread reads the blob along its front, inflates and hashes it, walks the tar stream and makes files, piece
  by piece, each while it is in the cache of its core. Where another worker makes them (see ``partner``), it hands the
  members on.

Where a large layer is alone, with cores to spare, two more take a part of that, because the libraries that hash and
inflate let go of the interpreter lock while they work. That takes more time of the processors, but less of the clock.
So they do where another worker makes the files, and waits:

- the *reader* reads and inflates, into a short queue;
- the *hasher* hashes the blob and the tar stream, beside it.

Another one has the disk begin with large files (see ``writeback``).

It imports no HTTP client and no event loop: starting it costs what Python costs.
"""

from __future__ import annotations

import errno
import os
import queue
import shutil
import threading
import traceback
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import (
    AsyncpullError,
    DiffIDMismatchError,
    DigestMismatchError,
    LayerError,
    NoSpaceError,
    StoreError,
    StoreWriteError,
    WorkerError,
)
from asyncpull.extract.apply import ApplyOptions, apply_layer, read_layer
from asyncpull.extract.implied import adopt_implied, implied_directories
from asyncpull.extract.partner import DistantMaker, make_for_another
from asyncpull.extract.protocol import (
    AdoptJob,
    Advanced,
    ApplyJob,
    CopyJob,
    Decoder,
    Extracted,
    Failed,
    Front,
    Job,
    MakeJob,
    ReapplyJob,
    encode,
    receive,
)
from asyncpull.layer.codec import Inflater
from asyncpull.layer.split import Contents, read_split
from asyncpull.tarstream import rebuild_layer
from asyncpull.tree.copy import copy_base, copy_tree

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from hashlib import _Hash as Hash

    from asyncpull.spec.digest import Digest

# One read of the blob; what comes out of it is cut by the inflater. In one thread so little that it and what comes out
# stay in the cache; between threads, which have to be woken for each, more is better.
_READ = 1 << 18
_READ_BESIDE = 1 << 20
_QUEUED = 4
# How many bytes of the blob go by between two messages about it.
_REPORT = 1 << 20
# So much of a blob, or less, is not worth starting two threads.
_SMALL = 4 << 20


class BlobFront:
    """How far a blob may be read, and whether it is the only one: set by the listener, awaited by the reader."""

    def __init__(self) -> None:
        self._position = 0
        self._changed = threading.Condition()
        self._stopped = False
        self.is_alone = False

    def start(self, front: Front) -> None:
        """Begin a new blob."""
        with self._changed:
            self._position, self.is_alone, self._stopped = front.position, front.is_alone, False

    def advance(self, front: Front) -> None:
        """The front has moved, or the others are done."""
        with self._changed:
            self._position = max(self._position, front.position)
            self.is_alone = front.is_alone
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody wants the rest: whoever waits gets what is there."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait_beyond(self, position: int) -> int:
        """The front, as soon as it lies beyond ``position``."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._position > position)
            return self._position


class Hasher:
    """Hashes a blob and its tar stream: at once, or beside the reader and a few pieces behind it at most."""

    def __init__(self, blob: Digest, diff_id: Digest) -> None:
        self._blob, self._tar = blob.hasher(), diff_id.hasher()
        self._pieces: queue.Queue[tuple[Hash, bytes] | None] = queue.Queue(_QUEUED)
        self._thread: threading.Thread | None = None

    def step_aside(self) -> None:
        """Go on in a thread."""
        self._thread = threading.Thread(target=self._run, name="hasher", daemon=True)
        self._thread.start()

    def take_blob(self, piece: bytes) -> None:
        """Hash the next piece of the blob."""
        self._take(self._blob, piece)

    def take_tar(self, piece: bytes) -> None:
        """Hash the next piece of the tar stream."""
        self._take(self._tar, piece)

    def finish(self) -> tuple[str, str]:
        """The hexadecimal digests of the blob and of the tar stream, once there are no more pieces."""
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None
        return self._blob.hexdigest(), self._tar.hexdigest()

    def _take(self, target: Hash, piece: bytes) -> None:
        if self._thread is None:
            target.update(piece)
        else:
            self._pieces.put((target, piece))

    def _run(self) -> None:
        while (item := self._pieces.get()) is not None:
            target, piece = item
            target.update(piece)


class Ahead:
    """An iterator over what another one gives, which runs in a thread, a few pieces ahead."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._source = pieces
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="blob-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Ahead:
        return self

    def __next__(self) -> bytes:
        if self._thread is not None:
            piece = self._pieces.get()
            if piece is not None:
                return piece
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        raise failure or StopIteration

    def _run(self) -> None:
        try:
            for piece in self._source:
                self._pieces.put(piece)
        except Exception as error:  # carried to the other thread, which raises it
            self._failure = error
        finally:
            self._pieces.put(None)


class BlobReader:
    """Reads a blob along its front, inflates and hashes it; iterate for the tar stream.

    All that is done by who iterates, until help is wanted: because the layer is alone, if nothing else is said. Bytes
    that were damaged on the way are not the publisher's fault. So an error of the compressed stream is kept until the
    whole blob was hashed, and raised only if its digest is right.
    """

    def __init__(self, fd: int, job: ApplyJob, front: BlobFront, sock: socket.socket) -> None:
        self._fd, self._job, self._front, self._sock = fd, job, front, sock
        self._hasher = Hasher(job.blob, job.diff_id)
        self.inflater = Inflater(job.ceilings)
        self.wants_help: Callable[[], bool] = lambda: front.is_alone
        self._position = 0
        self._is_beside = False
        self._inflating = True
        self._malformed: LayerError | None = None
        self._tar: Iterator[bytes] = self._inflated()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            if not self._is_beside and self._job.size - self._position > _SMALL and self.wants_help():
                self._step_aside()
            piece = next(self._tar, None)
            if piece is None:
                break
            yield piece
        self.finish()

    def _step_aside(self) -> None:
        """Go on in two threads."""
        self._is_beside = True
        self._hasher.step_aside()
        self._tar = Ahead(self._tar)

    def finish(self) -> None:
        """Hash the rest of the blob. Raises DigestMismatchError, or else what was wrong with the stream."""
        self._inflating = False
        for _ in self._tar:
            pass
        actual, _ = self._hasher.finish()
        if actual != self._job.blob.encoded:
            expected = self._job.blob
            raise DigestMismatchError(f"blob {expected}", str(expected), f"{expected.algorithm}:{actual}")
        if self._malformed is not None:
            raise self._malformed

    def verify_diff_id(self) -> None:
        """Raise DiffIDMismatchError unless the tar stream, which must have ended, is the promised one."""
        expected, (_, actual) = self._job.diff_id, self._hasher.finish()
        if actual != expected.encoded:
            raise DiffIDMismatchError(f"layer {self._job.blob}", str(expected), f"{expected.algorithm}:{actual}")

    def abandon(self) -> None:
        """Stop reading, wherever it is."""
        self._front.stop()
        with suppress(Exception):  # something else has ended this already
            self.finish()

    def _inflated(self) -> Iterator[bytes]:
        """The tar stream, as far as it is wanted and the compressed one is good; the whole blob is hashed anyway."""
        for piece in self._blob_pieces():
            self._hasher.take_blob(piece)
            try:
                for tar in self.inflater.feed(piece) if self._inflating else ():
                    self._hasher.take_tar(tar)
                    yield tar
                    if not self._inflating:
                        break
            except LayerError as error:
                self._inflating, self._malformed = False, error
        try:
            if self._inflating:
                self.inflater.close()
        except LayerError as error:
            self._malformed = error

    def _blob_pieces(self) -> Iterator[bytes]:
        reported = front = 0
        while (position := self._position) < self._job.size:
            if front <= position:
                front = self._front.wait_beyond(position)
                if front <= position:
                    return
            at_once = _READ_BESIDE if self._is_beside else _READ
            piece = os.pread(self._fd, min(at_once, front - position), position)
            if not piece:
                raise WorkerError(f"the spool of {self._job.blob} ends at {position}, before its front {front}")
            self._position += len(piece)
            yield piece
            if self._position - reported >= _REPORT or self._position == self._job.size:
                reported = self._position
                self._sock.sendall(encode(Advanced(reported)))


def extract(job: ApplyJob, fds: list[int], front: BlobFront, sock: socket.socket) -> Extracted:
    """Do an ApplyJob: the gate between bytes and store. Returns only if digest, size and diff ID are right."""
    reader = BlobReader(fds[0], job, front, sock)
    options = ApplyOptions(
        job.marks, in_userns=job.in_userns, ignore_chown_errors=job.ignore_chown_errors, ceilings=job.ceilings
    )
    try:
        if job.base is not None:
            copy_base(Path(job.base), Path(job.diff), in_userns=job.in_userns)
        with open(job.tar_split, "xb") as tar_split:
            if job.has_partner:
                with DistantMaker(*fds[-2:]) as maker:
                    reader.wants_help = lambda: maker.is_waiting
                    applied = read_layer(reader, maker, tar_split.write, options.ceilings)
            else:
                applied = apply_layer(reader, Path(job.diff), tar_split.write, options)
    except LayerError:
        reader.finish()
        raise
    except BaseException:
        reader.abandon()
        raise
    reader.finish()
    reader.verify_diff_id()
    return Extracted(
        diff_size=applied.diff_size,
        compression=int(reader.inflater.compression),
        uidset=applied.uidset,
        gidset=applied.gidset,
        implied=applied.implied,
    )


def copy(job: CopyJob) -> tuple[bytes, ...]:
    """Do a CopyJob; the names in the tar-split tell which directories the archive only implies."""
    tar_split = Path(job.source_tar_split)
    copy_tree(Path(job.source_diff), Path(job.diff), in_userns=job.in_userns)
    shutil.copyfile(tar_split, job.tar_split)
    with tar_split.open("rb") as file:
        names = [entry.name for entry in read_split(file) if isinstance(entry, Contents)]
    return implied_directories(Path(job.diff), names)


def reapply(job: ReapplyJob) -> None:
    """Do a ReapplyJob. Raises DiffIDMismatchError for a layer that is not what it was."""
    hasher = job.diff_id.hasher()

    def hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            hasher.update(piece)
            yield piece

    if job.base is not None:
        copy_base(Path(job.base), Path(job.diff), in_userns=job.in_userns)
    options = ApplyOptions(job.marks, in_userns=job.in_userns, ignore_chown_errors=job.ignore_chown_errors)
    stream = rebuild_layer(Path(job.source_tar_split), [Path(job.source_diff)])
    with open(job.tar_split, "xb") as tar_split, closing(stream):
        apply_layer(hashed(stream), Path(job.diff), tar_split.write, options)
    if hasher.hexdigest() != job.diff_id.encoded:
        actual = f"{job.diff_id.algorithm}:{hasher.hexdigest()}"
        raise DiffIDMismatchError(f"layer at {job.source_diff}", str(job.diff_id), actual)


def adopt(job: AdoptJob) -> None:
    """Do an AdoptJob from the base layer up, because a layer may take what the one below it has just been given."""
    diffs = [Path(diff) for diff in job.diffs]
    for index in sorted(job.implied):
        adopt_implied(diffs[index], job.implied[index], diffs[:index][::-1], marks=job.marks, in_userns=job.in_userns)


def run_job(job: Job, fds: list[int], front: BlobFront, sock: socket.socket) -> object:
    """Do any job; every error comes back as one of this package."""
    try:
        if isinstance(job, ApplyJob):
            return extract(job, fds, front, sock)
        if isinstance(job, MakeJob):
            make_for_another(job, fds[0], fds[1], lambda error: _our_error(error, job))
            return None
        if isinstance(job, CopyJob):
            return copy(job)
        if isinstance(job, ReapplyJob):
            reapply(job)
            return None
        adopt(job)
        return None
    except Exception as error:
        return Failed(_our_error(error, job))


def _our_error(error: Exception, job: Job) -> AsyncpullError:
    """What ended a job, as an error of this package."""
    if isinstance(error, AsyncpullError):
        return error
    if isinstance(error, OSError):
        return _store_error(error, job)
    return WorkerError(f"{type(job).__name__}: {type(error).__name__}: {error}")


def _store_error(error: OSError, job: Job) -> StoreError:
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else getattr(job, "diff", None)
    message = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(message, path, "free some space, or choose another graph root with --root")
    return StoreWriteError(message, path)


def serve(sock: socket.socket) -> None:
    """Do the jobs that come over ``sock``, for as long as the process lives; it ends with the socket."""
    jobs: queue.SimpleQueue[tuple[Job, list[int]]] = queue.SimpleQueue()
    front = BlobFront()
    threading.Thread(target=_listen, args=(sock, jobs, front), name="listener", daemon=True).start()
    while True:
        job, fds = jobs.get()
        result = run_job(job, fds, front, sock)
        for fd in fds:
            os.close(fd)
        sock.sendall(encode(result))


def _listen(sock: socket.socket, jobs: queue.SimpleQueue[tuple[Job, list[int]]], front: BlobFront) -> None:
    """Take messages; the process ends with them, for whatever reason: the main thread could wait for ever."""
    status = 1
    try:
        _take_messages(sock, jobs, front)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _take_messages(sock: socket.socket, jobs: queue.SimpleQueue[tuple[Job, list[int]]], front: BlobFront) -> None:
    decoder = Decoder()
    fds: list[int] = []
    while True:
        try:
            data, received = receive(sock)
        except OSError:
            return
        if not data:
            return
        fds += received
        for message in decoder.feed(data):
            if isinstance(message, Front):
                front.advance(message)
            else:
                if isinstance(message, ApplyJob):
                    # Here, so that no later Front can come before it.
                    front.start(Front(message.front, message.is_alone))
                jobs.put((message, fds))  # type: ignore[arg-type]
                fds = []
