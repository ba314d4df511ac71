"""One layer by two processes: one reads its stream, the other makes its tree.

Half of the time that a layer of many small files takes goes into the kernel, and a third into Python, one after the
other, because the interpreter has one lock. Here one worker inflates, hashes, parses and writes the tar-split, and
hands the members on to another. That does with them what it would do with its own, in the same order: nothing about a
layer is decided anew.

Contents go through memory that both have mapped, in slots that go round: as many batches as there are slots are on
their way at most. Whatever goes wrong while the tree is made is raised by the one who reads, as if it had made it
itself, since only that one can tell whether the blob is what it should be.
"""

from __future__ import annotations

import marshal
import mmap
import os
import socket
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncpull.errors import WorkerError
from asyncpull.extract.apply import ApplyOptions, Judge, tree_maker
from asyncpull.extract.protocol import SLOT_BYTES, SLOTS, Batch, Failed, Finish, Made, PickyDecoder, Taken, encode
from asyncpull.layer.header import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from asyncpull.errors import AsyncpullError
    from asyncpull.extract.directories import Owner
    from asyncpull.extract.extractor import Extractor
    from asyncpull.extract.protocol import MakeJob

_MOST_ITEMS: Final = 1000
_RECEIVE: Final = 1 << 16


class DistantMaker:
    """The one who makes the tree, for the one who reads: a Maker, and a context manager.

    Its methods raise what goes wrong there, as soon as it is known here: LayerError, StoreError; WorkerError if that
    process has died.
    """

    def __init__(self, memory_fd: int, sock_fd: int) -> None:
        self._memory = mmap.mmap(memory_fd, SLOTS * SLOT_BYTES)
        self._sock = socket.socket(fileno=os.dup(sock_fd))
        self._decoder = PickyDecoder(Taken, Made, Failed)
        self._free = deque(range(SLOTS))
        self._items: list[tuple[object, ...] | int] = []
        self._slot = -1  # the one that is being filled, and how far it is
        self._filled = 0
        self._is_made = False
        self.owners: set[Owner] = set()
        self.implied: set[bytes] = set()
        self.entries = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        self._memory.close()

    def begin(self, member: Member) -> None:
        """Hand ``member`` on."""
        self.entries += 1
        if self._slot < 0:
            self._slot = self._free_slot()
        self._items.append(
            (
                member.name,
                member.kind,
                member.mode,
                member.uid,
                member.gid,
                member.size,
                member.mtime_ns,
                member.atime_ns,
                member.link_name,
                member.dev_major,
                member.dev_minor,
                member.xattrs,
                member.position,
            )
        )
        if len(self._items) >= _MOST_ITEMS:
            self._send()

    def write(self, contents: memoryview) -> None:
        """Hand the next piece of contents on."""
        if self._slot < 0:
            self._slot = self._free_slot()
        left, room = len(contents), SLOT_BYTES - self._filled
        while left > room:
            if room:
                self._put(contents[:room], room)
            self._send()
            contents, left = contents[room:], left - room
            self._slot, room = self._free_slot(), SLOT_BYTES
        self._put(contents, left)

    def _put(self, contents: memoryview, size: int) -> None:
        start = self._slot * SLOT_BYTES + self._filled
        self._memory[start : start + size] = contents
        self._filled += size
        self._items.append(size)

    def finish(self) -> None:
        """Wait until the tree is complete."""
        self._send()
        self._say(Finish())
        while not self._is_made:
            self._listen()

    def explain(self, error: OSError | ValueError | OverflowError) -> AsyncpullError:
        """Nothing is refused here."""
        return WorkerError(f"cannot hand a member on: {error}")

    def _free_slot(self) -> int:
        while not self._free:
            self._listen()
        return self._free.popleft()

    def _send(self) -> None:
        if self._slot < 0:
            return
        batch = Batch(self._slot, marshal.dumps(self._items))
        self._items.clear()
        self._slot, self._filled = -1, 0
        self._say(batch)

    def _say(self, message: Batch | Finish) -> None:
        try:
            self._sock.sendall(encode(message))
        except OSError:
            while True:  # it has said why, or it has died
                self._listen()

    def _listen(self) -> None:
        """Take what the other one has to say, waiting for it."""
        try:
            data = self._sock.recv(_RECEIVE)
        except OSError:
            data = b""
        if not data:
            raise WorkerError("the process that makes the files of a layer died")
        for message in self._decoder.feed(data):
            if isinstance(message, Failed):
                raise message.error
            if isinstance(message, Taken):
                self._free.append(message.slot)
            elif isinstance(message, Made):
                self.owners, self.implied, self._is_made = set(message.owners), set(message.implied), True


def make_for_another(
    job: MakeJob, memory_fd: int, sock_fd: int, explain: Callable[[Exception], AsyncpullError]
) -> None:
    """Make the tree of the layer that the process at the other end of the socket reads.

    What goes wrong, it is told, by ``explain`` as an error of this package. Returns also if it has given up, or died.
    """
    options = ApplyOptions(
        job.marks, in_userns=job.in_userns, ignore_chown_errors=job.ignore_chown_errors, ceilings=job.ceilings
    )
    with socket.socket(fileno=os.dup(sock_fd)) as sock:
        try:
            made = _make(Path(job.diff), options, mmap.mmap(memory_fd, SLOTS * SLOT_BYTES), sock)
            answer = encode(made) if made else b""
        except Exception as error:  # is not kept: where it was raised, the memory is in use
            answer = encode(Failed(explain(error)))
        with suppress(OSError):  # the other one has given up, or died
            sock.sendall(answer)


def _make(root: Path, options: ApplyOptions, memory: mmap.mmap, sock: socket.socket) -> Made | None:
    """Do what is said until there is no more; None if the other end was closed before that."""
    decoder, judge = PickyDecoder(Batch, Finish), Judge(options.ceilings)
    with tree_maker(root, options) as maker:
        while data := sock.recv(_RECEIVE):
            for message in decoder.feed(data):
                if isinstance(message, Batch):
                    judge.look_at_the_clock()
                    _do(message, memory, maker)
                    sock.sendall(encode(Taken(message.slot)))
                elif isinstance(message, Finish):
                    with _explained(maker):
                        maker.finish()
                    return Made(frozenset(maker.owners), frozenset(maker.implied))
    return None


def _do(batch: Batch, memory: mmap.mmap, maker: Extractor) -> None:
    """Do what the members of a batch say."""
    contents, at = memoryview(memory), batch.slot * SLOT_BYTES
    with _explained(maker):
        for item in marshal.loads(batch.items):
            if type(item) is int:
                maker.write(contents[at : at + item])
                at += item
            else:
                maker.begin(Member(*item))


@contextmanager
def _explained(maker: Extractor) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, OverflowError) as error:
        raise maker.explain(error) from error
