"""The ceiling of memory: measured, as the kernel counts it, while a disk or all extractors take nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asyncpull.fetch.fetcher import MEMORY
from tests.support import images, pulls
from tests.support.command import Command
from tests.support.docker_registry import docker_registry, is_installed

MIB = 1 << 20
# 64 blobs that come as fast as they are taken, onto a disk that stops; then it goes on, and all must arrive.
SCRIPT = """
import asyncio, json, sys, threading
from contextlib import asynccontextmanager
from pathlib import Path
from asyncpull.budget import Bandwidth, Memory
from asyncpull.fetch.blob import BlobDownload, Listener
from asyncpull.stall import StallLimits
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


def test_64_blobs_and_a_disk_that_stops_stay_below_the_ceiling(tmp_path: Path) -> None:
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


@pytest.mark.root
@pytest.mark.skipif(not is_installed(), reason="needs docker-registry")
def test_64_layers_and_extractors_that_stop_stay_below_the_ceiling(tmp_path: Path) -> None:
    """The process that downloads has as much memory as one that has nothing to do, and at most the budget beside it."""
    made = images.image([pulls.layer(f"d{number}", 3_000_000) for number in range(64)], compression="none")
    command, size = Command(tmp_path), sum(len(blob.data) for blob in made.layers)
    with docker_registry(tmp_path / "registry") as registry:
        reference = registry.push("a/b", "1", made)
        small = registry.push("a/b", "2", images.image([pulls.layer("small", 1000)]))
        idle = _peak_of(command, "pull", "--tls-verify=false", "--quiet", small)
        process = command.start("pull", "--tls-verify=false", "--quiet", "--max-parallel-downloads", "64", reference)
        workers = _descendants_when_there(process.pid)
        try:
            for worker in workers:
                os.kill(worker, signal.SIGSTOP)
            while process.poll() is None and _received(command) < size:
                time.sleep(0.05)
            peak = _peak(process.pid)
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.decode().strip() == made.id
    print(f"peak {peak >> 20} MiB, {(peak - idle) >> 20} MiB over that of a small pull")
    assert idle < peak <= idle + MEMORY, (idle, peak)


def _peak(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _peak_of(command: Command, *arguments: str) -> int:
    """The peak of a command that is run to its end, seen shortly before it."""
    process, peak = command.start(*arguments), 0
    while process.poll() is None:
        try:
            peak = max(peak, _peak(process.pid))
        except (OSError, StopIteration):
            break
        time.sleep(0.005)
    process.communicate()
    assert process.returncode == 0
    return peak


def _descendants_when_there(process: int) -> list[int]:
    """The nursery, and the workers that it has forked, once there is one."""
    while True:
        nurseries = _children(process)
        workers = [worker for nursery in nurseries for worker in _children(nursery)]
        if workers:
            return nurseries + workers
        time.sleep(0.005)


def _children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _received(command: Command) -> int:
    return sum(path.stat().st_blocks * 512 for path in (command.root / "asyncpull/spool").glob("*/blob"))
