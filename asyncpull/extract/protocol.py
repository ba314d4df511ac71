"""What the loop process and a worker say to each other.

One socket pair per worker. A message is four bytes of length, big endian, and a pickled value of one of the classes
below; both ends are this package, started by the same user. But a worker may have been taken over: of what it says,
nothing is made that is not one of its answers (``AnswerDecoder``). File descriptors travel beside the message that
needs them (SCM_RIGHTS). The conversation::

    loop                    worker
    a job, with its fds  ->
    Front*               ->           only while the job is an ApplyJob
                         <-  Advanced*
                         <-  the job's result, or Failed

Two workers that do one layer talk to each other over a socket pair of their own, in the same way::

    who reads the stream    who makes the tree
    Batch*               ->           with contents in one of the slots of the memory they share
                         <-  Taken*   the slot is free again
    Finish               ->
                         <-  Made, or at any time Failed

The end of the stream means that the other side is gone: a worker then exits at once, and with it go the descriptors
of the temporary directories' locks, so that the next program to open the store clears them away.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
from typing import TYPE_CHECKING, Final

from asyncpull import errors
from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, WorkerError
from asyncpull.layer.ceilings import USUAL, Ceilings
from asyncpull.spec.digest import Digest  # noqa: TC001 - what is in a job must be known before a worker is confined
from asyncpull.tree.marks import Marks  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Mapping

SLOTS: Final = 6
SLOT_BYTES: Final = 1 << 20
"""What two partners share: so many slots of so many bytes."""
_LENGTH = struct.Struct(">I")
_MAX_FDS = 8
_PIECE = 1 << 16
_LONGEST_ANSWER = 256 << 20  # a million directories, with long names, that an archive only implies


@dataclass(frozen=True, slots=True)
class ApplyJob:
    """Apply the blob behind the first descriptor to ``diff``, and write its tar-split to ``tar_split``.

    ``front`` is how many bytes of the blob may be read already, of ``size`` in all. The other descriptors are the
    locks of the temporary directories; the worker only keeps them open. ``base`` is a complete tree to be copied into
    ``diff`` first. The layer is to stay below ``ceilings``. Where ``has_partner``, the last two descriptors are the
    memory and the socket that it shares with the worker who does the MakeJob. ``is_alone`` is as for Front. Its result
    is Extracted.
    """

    blob: Digest
    size: int
    diff_id: Digest
    diff: str
    tar_split: str
    front: int
    marks: Marks
    in_userns: bool
    ignore_chown_errors: bool = False
    base: str | None = None
    ceilings: Ceilings = USUAL
    has_partner: bool = False
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class MakeJob:
    """Make the tree of the layer that another worker reads, as that one's ApplyJob says.

    The first two descriptors are the memory and the socket that it shares with that worker. The result is None: how it
    went, the other one is told.
    """

    diff: str
    marks: Marks
    in_userns: bool
    ignore_chown_errors: bool
    ceilings: Ceilings


@dataclass(frozen=True, slots=True)
class CopyJob:
    """Copy the layer at ``source_diff`` and its tar-split. Its result is the tuple of directories it only implies."""

    source_diff: str
    source_tar_split: str
    diff: str
    tar_split: str
    in_userns: bool


@dataclass(frozen=True, slots=True)
class ReapplyJob:
    """Apply the archive of the layer at ``source_diff``, made again from its tar-split, on the complete tree ``base``.

    For complete trees, of which no one layer can be copied. The result is None, if and only if the archive was that of
    ``diff_id``.
    """

    source_diff: str
    source_tar_split: str
    diff_id: Digest
    base: str | None
    diff: str
    tar_split: str
    marks: Marks
    in_userns: bool
    ignore_chown_errors: bool = False


@dataclass(frozen=True, slots=True)
class AdoptJob:
    """Give the directories that layers only imply what they have in the nearest layer below.

    ``diffs`` are the diff directories of a stack, the base layer first; ``implied`` lists the directories by index
    into it. The result is None.
    """

    diffs: tuple[str, ...]
    implied: Mapping[int, tuple[bytes, ...]]
    marks: Marks
    in_userns: bool


@dataclass(frozen=True, slots=True)
class Front:
    """``position`` bytes of the blob may be read; where the layer ``is_alone``, no other keeps a core busy."""

    position: int
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class Advanced:
    """``position`` bytes of the blob have been read."""

    position: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """A verified and staged layer: blob digest, size and diff ID are all equal to what was promised.

    ``compression`` is the number that containers/storage gives it. ``implied`` are the directories that the archive
    only implies, from the top down.
    """

    diff_size: int
    compression: int
    uidset: tuple[int, ...]
    gidset: tuple[int, ...]
    implied: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended in an error."""

    error: AsyncpullError


@dataclass(frozen=True, slots=True)
class Batch:
    """Members of a layer, marshalled; the first ``filled`` bytes of ``slot`` are their contents, without gaps.

    What is missing of those of the last one is at the beginning of the next batch.
    """

    slot: int
    filled: int
    members: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """What was in ``slot`` is done with."""

    slot: int


@dataclass(frozen=True, slots=True)
class Finish:
    """There is no more of the layer."""


@dataclass(frozen=True, slots=True)
class Made:
    """The tree is complete; what was found on the way, as an Extractor has it."""

    owners: frozenset[tuple[int, int]]
    implied: frozenset[bytes]


Job = ApplyJob | MakeJob | CopyJob | ReapplyJob | AdoptJob


def encode(message: object) -> bytes:
    """A message as it goes over the socket."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Bytes from the socket to messages; keeps what is not a whole message yet."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[object]:
        """The messages that ``data`` completes."""
        self._pending += data
        messages: list[object] = []
        while len(self._pending) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._pending)
            end = _LENGTH.size + length
            self._check_length(length)
            if len(self._pending) < end:
                break
            messages.append(self._load(bytes(self._pending[_LENGTH.size : end])))
            del self._pending[:end]
        return messages

    def _check_length(self, length: int) -> None:
        """The loop process may say what it likes."""

    def _load(self, body: bytes) -> object:
        return pickle.loads(body)


class PickyDecoder(Decoder):
    """Messages of some ``kinds`` and no others, in which nothing is but plain values and the errors of this package.

    Its methods raise WorkerError for anything else.
    """

    def __init__(self, *kinds: type) -> None:
        super().__init__()
        self._kinds = {(kind.__module__, kind.__qualname__): kind for kind in (*kinds, *_ERRORS)}

    def _check_length(self, length: int) -> None:
        if length > _LONGEST_ANSWER:
            raise WorkerError(f"a worker process answered nonsense: a message of {length} bytes")

    def _load(self, body: bytes) -> object:
        try:
            return _PickyUnpickler(io.BytesIO(body), self._kinds).load()
        except Exception as error:
            raise WorkerError(f"a worker process answered nonsense: {error}") from error


class AnswerDecoder(PickyDecoder):
    """What a worker says to the loop process."""

    def __init__(self) -> None:
        super().__init__(Advanced, Extracted, Failed)


_ERRORS = tuple(getattr(errors, name) for name in errors.__all__)


class _PickyUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, kinds: Mapping[tuple[str, str], type]) -> None:
        super().__init__(file)
        self._kinds = kinds

    def find_class(self, module: str, name: str) -> object:
        try:
            return self._kinds[module, name]
        except KeyError as error:
            raise pickle.UnpicklingError(f"{module}.{name}") from error


def open_memory() -> int:
    """The memory of two partners: a descriptor, for each to map. Raises OSError where the kernel has none such."""
    fd = os.memfd_create("asyncpull", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, SLOTS * SLOT_BYTES)
    except BaseException:
        os.close(fd)
        raise
    return fd


def send_job(sock: socket.socket, job: Job, fds: list[int]) -> bytes:
    """Send the first bytes of ``job`` with ``fds`` beside them; returns what is left to send.

    The socket has nothing else in flight at that moment, so that a non-blocking one takes at least one byte.
    """
    data = encode(job)
    try:
        sent = socket.send_fds(sock, [data[:_PIECE]], fds) if fds else sock.send(data[:_PIECE])
    except OSError as error:
        raise WorkerError(f"a worker is gone: {error.strerror}") from error
    return data[sent:]


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next bytes and descriptors, waiting for them; no bytes at the end of the stream."""
    data, fds, _, _ = socket.recv_fds(sock, _PIECE, _MAX_FDS)
    return data, list(fds)
