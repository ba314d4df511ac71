"""One layer by two processes: one reads its stream, the other makes its tree.

Half of the time that a layer of many small files takes goes into the kernel, and a third into Python, one after the
other, because the interpreter has one lock. Here one worker inflates, hashes, parses and writes the tar-split, and
hands the members on to another. That does with them what it would do with its own, in the same order: nothing about a
layer is decided anew.

Contents go through memory that both have mapped, in slots that go round: each batch has one, and as many are on their
way as there are slots at most. Whatever goes wrong while the tree is made is raised by the one who reads, as if it had
made it itself, since only that one can tell whether the blob is what it should be.
"""

from __future__ import annotations

import marshal
import mmap
import os
import socket
from collections import deque
from contextlib import contextmanager, suppress
from operator import attrgetter
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

# Members of one batch.
_MOST: Final = 500
_fields_of: Final = attrgetter(*Member.__match_args__)
_RECEIVE: Final = 1 << 16
# So many times in a row the other one must have been found waiting: some of these are by chance, or a large file.
_WAITS: Final = 12


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
        # The batch that is being filled: its members, its slot, and where in the memory the next contents go.
        self._members: list[tuple[object, ...]] = []
        self._slot = self._at = self._end = 0
        self._waits = 0
        self._take_slot()
        self._is_made = False
        self.owners: set[Owner] = set()
        self.implied: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        self._memory.close()

    def begin(self, member: Member, contents: memoryview) -> None:
        """Hand on ``member`` and the first of its contents."""
        members = self._members
        members.append(_fields_of(member))
        if contents:
            self.write(contents)
        if len(members) >= _MOST:
            self._hand_over()

    def write(self, contents: memoryview) -> None:
        """Hand on more contents of that member."""
        start = self._at
        end = start + len(contents)
        while end > self._end:
            room = self._end - start
            self._memory[start : self._end] = contents[:room]
            self._at = self._end
            self._hand_over()
            contents = contents[room:]
            start = self._at
            end = start + len(contents)
        self._memory[start:end] = contents
        self._at = end

    @property
    def is_waiting(self) -> bool:
        """Whether it was done with most of what it had, the last times that it was asked for room: it waits for us."""
        return self._waits >= _WAITS

    def finish(self) -> None:
        """Wait until the tree is complete."""
        self._send()
        self._say(Finish())
        while not self._is_made:
            self._listen()

    def explain(self, error: OSError | ValueError | OverflowError) -> AsyncpullError:
        """Nothing is refused here."""
        return WorkerError(f"cannot hand a member on: {error}")

    def _take_slot(self) -> None:
        if not self._free:
            while not self._free:
                self._listen()
            self._waits = self._waits + 1 if len(self._free) > SLOTS // 2 else 0
        self._slot = self._free.popleft()
        self._at = self._slot * SLOT_BYTES
        self._end = self._at + SLOT_BYTES

    def _hand_over(self) -> None:
        """Let the other one do what has been gathered, and begin another batch."""
        self._send()
        self._take_slot()

    def _send(self) -> None:
        filled = self._at - self._slot * SLOT_BYTES
        self._say(Batch(self._slot, filled, marshal.dumps(self._members)))
        self._members.clear()

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
    decoder, judge, missing = PickyDecoder(Batch, Finish), Judge(options.ceilings), 0
    with tree_maker(root, options) as maker:
        while data := sock.recv(_RECEIVE):
            for message in decoder.feed(data):
                if isinstance(message, Batch):
                    judge.look_at_the_clock()
                    with _explained(maker):
                        missing = _do(message, memory, maker, missing)
                    sock.sendall(encode(Taken(message.slot)))
                elif isinstance(message, Finish):
                    with _explained(maker):
                        maker.finish()
                    return Made(frozenset(maker.owners), frozenset(maker.implied))
    return None


def _do(batch: Batch, memory: mmap.mmap, maker: Extractor, missing: int) -> int:
    """Do what a batch says; it begins with ``missing`` bytes of the member before it.

    Returns how many bytes of its own last member are in the next batch.
    """
    start = batch.slot * SLOT_BYTES
    contents = memoryview(memory)[start : start + batch.filled]
    at = min(missing, batch.filled)
    if at:
        maker.write(contents[:at])
        missing -= at
    for fields in marshal.loads(batch.members):
        member = Member(*fields)
        end = at + member.size
        maker.begin(member, contents[at:end])
        at, missing = end, end - batch.filled
    return max(missing, 0)


@contextmanager
def _explained(maker: Extractor) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, OverflowError) as error:
        raise maker.explain(error) from error
