"""The ceiling of memory: measured, as the kernel counts it, with a disk that takes nothing for a while."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.command import Command

MIB = 1 << 20
# 64 blobs that come as fast as they are taken, onto a disk that stops; then it goes on, and all must arrive.
SCRIPT = """
import asyncio, json, sys, threading
from contextlib import asynccontextmanager
from pathlib import Path
from asyncpull.budget import Bandwidth, Memory
from asyncpull.fetch.blob import BlobDownload, Listener, StallLimits
from asyncpull.journal import JournaledFile
from asyncpull.retry import RetryPolicy
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.source import BlobResponse
from asyncpull.spool import Spool

MIB = 1 << 20
BLOBS, SIZE, CHUNK = 64, 4 * MIB, 256 << 10
goes_on = threading.Event()

class StoppedDisk(JournaledFile):
    def store(self, *arguments):
        goes_on.wait()
        return super().store(*arguments)

class Fast:
    registry, origins = "fast", ("fast",)
    @asynccontextmanager
    async def open_blob(self, descriptor, offset=0, end=None, *, origin=None):
        async def chunks():
            for start in range(offset, end or SIZE, CHUNK):
                await asyncio.sleep(0)
                yield bytes(min(CHUNK, (end or SIZE) - start))
        yield BlobResponse(offset, end, SIZE, chunks(), "fast")

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

async def one(number, memory, root):
    descriptor = Descriptor("", Digest.of(b"%d" % number), SIZE)
    (root / str(number)).mkdir()
    with StoppedDisk(root / str(number)) as file:
        async with Spool(file, descriptor.digest, SIZE, memory) as spool:
            await BlobDownload(
                descriptor, Fast(), spool, retry=RetryPolicy(), stall=StallLimits(), bandwidth=Bandwidth(None),
                listener=Listener(),
            ).run()
            assert spool.is_complete

async def main(root, ceiling):
    memory = Memory(ceiling)
    before = peak()
    tasks = [asyncio.create_task(one(number, memory, root)) for number in range(BLOBS)]
    held = -1
    while held != memory.held or held < ceiling - CHUNK:
        held = memory.held
        await asyncio.sleep(0.2)
    full = peak() - before
    goes_on.set()
    await asyncio.gather(*tasks)
    print(json.dumps({"full": full, "after": peak() - before, "held": memory.held, "peak": memory.peak}))

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def test_64_blobs_and_a_disk_that_stops_stay_below_the_ceiling(tmp_path: object) -> None:
    ceiling, in_hand = 16 * MIB, 64 * (512 << 10)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(ceiling)],
        env=Command.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    measured = json.loads(ended.stdout)
    assert measured["peak"] <= ceiling
    assert measured["held"] == 0
    assert measured["full"] <= measured["after"] <= ceiling + in_hand, measured
