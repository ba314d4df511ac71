"""What is done while a lock is held, told by a trace of the system calls and not by a clock.

Many pulls commit into one store while readers list it, and strace writes down who had which lock when. A hold of the
locks is one commit, no more, and while a reader queues at most one writer gets the lock before it: so it waits for
the commit that has the lock when it comes, and perhaps for one more.

A line is written when a call has returned, or when it begins if another one is written before; between the two lies the
moment when it happens. So what comes first in the trace may have happened second; but not where one call begins only
after another has returned, and on that stands what is asserted here (``turnstile`` says which call that is).
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Command
from tests.support.images import image
from tests.support.pulls import layer
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

WRITERS, READERS = 6, 4

PROGRAM = """
import asyncio, sys
from pathlib import Path
from asyncpull.limits import Limits
from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.store.store import Store

async def read(store, pulls):
    while not all(pull.done() for pull in pulls):
        await store.layers()
        await store.images()

async def main(root, run_root, references, readers):
    async with (
        Store.open(root=Path(root), run_root=Path(run_root)) as store,
        Puller(store, access=RegistryAccess(tls_verify=False), limits=Limits(workers=2)) as puller,
    ):
        pulls = [asyncio.create_task(puller.pull(reference)) for reference in references]
        await asyncio.gather(*pulls, *(read(store, pulls) for _ in range(readers)))

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[4:], int(sys.argv[3])))
"""

_CALL = re.compile(
    r"^(?P<thread>\d+) +(?:(?P<name>\w+)\((?P<arguments>.*?)|<\.\.\. (?P<resumed>\w+) resumed>.*?)"
    r"(?P<end> <unfinished \.\.\.>|\) += (?P<result>-?\d+).*)$"
)
_TURN = re.compile(
    r"(?P<fd>\d+)<[^>]*/asyncpull/turnstile>, F_OFD_SETLKW?, "
    r"\{l_type=F_(?P<kind>\w+)LCK, l_whence=SEEK_SET, l_start=(?P<byte>[01]),"  # the first lock, of layers
)
_LOCK = re.compile(r"(?P<fd>\d+)<(?P<path>[^>]*/(?P<file>\w+\.lock))>, F_OFD_SETLKW?, \{l_type=F_(?P<kind>\w+)LCK")


@dataclass(slots=True)
class Hold:
    """One hold of a lock: what was renamed into place meanwhile."""

    file: str
    exclusive: bool
    renamed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Wait:
    """A reader that queued for the lock of layers: the exclusive holds of it that began meanwhile."""

    meanwhile: list[Hold] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """All holds, all waits in the queue, and what was renamed without a lock."""

    holds: list[Hold] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    unlocked: list[str] = field(default_factory=list)


def read_trace(text: str) -> Trace:
    """Put the lines of strace together."""
    trace = Trace()
    held: dict[str, Hold] = {}
    queueing: dict[str, Wait] = {}
    pending: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        thread = call["thread"]
        name, arguments = (call["name"], call["arguments"]) if call["name"] else pending.pop(thread, ("", ""))
        lock = _LOCK.match(arguments) if name == "fcntl" else None
        turn = _TURN.match(arguments) if name == "fcntl" else None
        if turn is not None and turn["kind"] == "UN":
            queueing.pop(turn["fd"], None)
        if call["result"] is None:
            pending[thread] = (name, arguments)
            if lock is None or lock["kind"] != "UN":
                continue
        elif int(call["result"]) != 0:
            continue
        if turn is not None:
            if (turn["kind"], turn["byte"]) == ("RD", "1"):
                queueing[turn["fd"]] = Wait()
                trace.waits.append(queueing[turn["fd"]])
        elif lock is not None:
            if lock["kind"] == "UN":
                held.pop(lock["fd"], None)
            elif call["result"] is not None:
                held[lock["fd"]] = Hold(lock["file"], lock["kind"] == "WR")
                trace.holds.append(held[lock["fd"]])
                if lock["file"] == "layers.lock" and lock["kind"] == "WR":
                    for wait in queueing.values():
                        wait.meanwhile.append(held[lock["fd"]])
        elif name.startswith("rename"):
            target = arguments.rpartition('"')[0].rpartition("/")[2]
            writers = [hold for hold in held.values() if hold.exclusive]
            for hold in writers:
                hold.renamed.append(target)
            if not writers:
                trace.unlocked.append(target)
    return trace


def test_reads_a_trace() -> None:
    trace = read_trace(
        """\
1 fcntl(5</g/layers.lock>, F_OFD_SETLK, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=0, l_len=0}) = 0
2 fcntl(6</g/layers.lock>, F_OFD_SETLKW, {l_type=F_RDLCK, l_whence=SEEK_SET, l_start=0, l_len=0} <unfinished ...>
3 fcntl(7</g/layers.lock>, F_OFD_SETLK, {l_type=F_RDLCK, l_whence=SEEK_SET, l_start=0, l_len=0}) = -1 EAGAIN (no)
1 rename("/g/.tmp-layers.json1", "/g/layers.json") = 0
1 fcntl(5</g/layers.lock>, F_OFD_SETLK, {l_type=F_UNLCK, l_whence=SEEK_SET, l_start=0, l_len=0}) = 0
4 fcntl(8</g/layers.lock>, F_OFD_SETLK, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=0, l_len=0}) = 0
4 fcntl(8</g/layers.lock>, F_OFD_SETLK, {l_type=F_UNLCK, l_whence=SEEK_SET, l_start=0, l_len=0}) = 0
2 <... fcntl resumed>) = 0
4 rename("/g/a", "/g/b") = 0
1 fcntl(9</g/asyncpull/turnstile>, F_OFD_SETLK, {l_type=F_RDLCK, l_whence=SEEK_SET, l_start=1, l_len=1}) = 0
4 fcntl(8</g/layers.lock>, F_OFD_SETLK, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=0, l_len=0}) = 0
2 fcntl(9</g/asyncpull/turnstile>, F_OFD_SETLK, {l_type=F_UNLCK, l_whence=SEEK_SET, l_start=0, l_len=2} <unfinished ...>
4 fcntl(10</g/layers.lock>, F_OFD_SETLK, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=0, l_len=0}) = 0
2 <... fcntl resumed>) = 0
"""
    )
    assert trace.holds == [
        Hold("layers.lock", exclusive=True, renamed=["layers.json"]),
        Hold("layers.lock", exclusive=True),
        Hold("layers.lock", exclusive=False),
        *[Hold("layers.lock", exclusive=True)] * 2,
    ]
    assert trace.waits == [Wait([Hold("layers.lock", exclusive=True)])]
    assert trace.unlocked == ["b"]


async def test_a_hold_of_the_locks_is_one_commit(place: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    output, command = place / "trace", Command(place)
    async with RegistrySimulator() as registry:
        shared = layer("shared")
        references = [
            registry.add_image("a/b", str(number), image([shared, layer(f"own-{number}")])) for number in range(WRITERS)
        ]
        traced = await asyncio.create_subprocess_exec(
            *("strace", "-f", "-y", "-s", "4096", "-e", "trace=fcntl,rename,renameat,renameat2", "-o", str(output)),
            *(sys.executable, "-c", PROGRAM, str(command.root), str(command.run_root), str(READERS), *references),
            env=command.environment(),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await traced.communicate()
    assert traced.returncode == 0, said.decode()[-2000:]

    trace = read_trace(output.read_text(errors="replace"))

    commits = [hold for hold in trace.holds if hold.file == "layers.lock" and "layers.json" in hold.renamed]
    assert len(commits) == WRITERS
    for hold in commits:
        assert hold.renamed.count("layers.json") == 2  # first as incomplete, then whole
        assert hold.renamed.count("images.json") == 1
    assert not {"layers.json", "images.json"} & set(trace.unlocked)
    readings = [hold for hold in trace.holds if not hold.exclusive]
    assert len(readings) > WRITERS
    assert all(hold.renamed == [] for hold in readings)
    assert trace.waits  # more or less of them, as threads happen to run
    for wait in trace.waits:
        overtook = [hold for hold in wait.meanwhile if "layers.json" in hold.renamed]
        assert len(overtook) <= 1
