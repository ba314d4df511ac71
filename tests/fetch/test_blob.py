"""One blob over several connections; what one connection meets is in test_fetcher.py."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.budget import Bandwidth
from asyncpull.errors import SizeMismatchError, TemporaryError
from asyncpull.fetch.blob import BlobDownload, Listener
from asyncpull.http import HttpTimeouts
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.spool import open_spool
from asyncpull.stall import StallLimits, StallWatch
from tests.support.images import noise
from tests.support.registry_faults import cut, hold, status, surplus, without_ranges
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.spool import Spool
    from tests.support.registry_faults import Fault

MIB = 1 << 20
DATA = noise(6, 14 * MIB + 12345)
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        simulator.add_blob(DATA)
        yield simulator


@asynccontextmanager
async def download(registry: RegistrySimulator, root: Path) -> AsyncIterator[tuple[BlobDownload, Spool]]:
    retry = RetryPolicy(attempts=3, first_seconds=0.0)
    access = RegistryAccess(tls_verify=False)
    async with (
        RegistryClient(access, timeouts=HttpTimeouts(5, 5, 5), retry=retry, environ={"HOME": "/nowhere"}) as client,
        open_spool(root / "spool", BLOB.digest, BLOB.size) as spool,
    ):
        source = RegistrySource(client, parse_reference(f"{registry.address}/a/b:t"))
        yield (
            BlobDownload(
                BLOB,
                source,
                spool,
                retry=retry,
                stall=StallLimits(),
                bandwidth=Bandwidth(None),
                listener=Listener(),
            ),
            spool,
        )
        assert [task for task in asyncio.all_tasks() if "connection" in task.get_name()] == []


async def widened(registry: RegistrySimulator, blob: BlobDownload, connections: int, *faults: Fault) -> None:
    """Run the download; when its first connection has 1 MiB, let it have more, and the registry do this to them."""
    gate = asyncio.Event()
    registry.on("/blobs/", hold(gate, MIB))
    if faults:
        registry.on("/blobs/", *faults, skip=1, times=connections - 1)
    task = asyncio.create_task(blob.run())
    while blob.remaining > 13 * MIB + 12345 and not task.done():
        await asyncio.sleep(0)
    blob.use(connections)
    assert blob.connections == connections
    await registry.until_asked("/blobs/", 2)
    gate.set()
    await task


async def test_several_connections_take_pieces(registry: RegistrySimulator, tmp_path: Path) -> None:
    async with download(registry, tmp_path) as (blob, spool):
        await widened(registry, blob, 3)
        assert spool.path.read_bytes() == DATA
        assert (blob.remaining, blob.connections) == (0, 0)
    ranges = [request.headers.get("range") for request in registry.asked("/blobs/")]
    assert ranges[0] is None
    assert len(ranges) > 3
    assert all(item is not None for item in ranges[1:])


@pytest.mark.parametrize("faults", [(status(429),), (status(503),), (cut(1000),), (cut(MIB // 2, reset=True),)])
async def test_a_connection_that_fails_is_made_up_for(
    registry: RegistrySimulator, tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    async with download(registry, tmp_path) as (blob, spool):
        await widened(registry, blob, 6, *faults)
        assert spool.path.read_bytes() == DATA
        blob.use(6)
        assert blob.connections == 0


async def test_without_ranges_the_first_goes_on_alone(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", without_ranges, times=None)
    async with download(registry, tmp_path) as (blob, spool):
        await widened(registry, blob, 4)
        assert spool.path.read_bytes() == DATA


async def test_what_is_permanent_ends_all_connections(registry: RegistrySimulator, tmp_path: Path) -> None:
    async with download(registry, tmp_path) as (blob, spool):
        with pytest.raises(SizeMismatchError):
            await widened(registry, blob, 4, surplus())
        assert spool.front >= MIB


async def test_cancelling_ends_all_connections(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", hold(asyncio.Event(), MIB), times=None)
    async with download(registry, tmp_path) as (blob, spool):
        task = asyncio.create_task(blob.run())
        while blob.remaining > 13 * MIB + 12345:
            await asyncio.sleep(0)
        blob.use(4)
        await registry.until_asked("/blobs/", 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert blob.connections == 0
        assert spool.front >= MIB


@pytest.mark.parametrize(
    ("moves", "fails"),
    [
        ([(50, 1.0)] * 30, True),
        ([(100, 1.0)] * 30, False),
        ([(0, 29.0), (0, 0.9)], False),
        ([(0, 29.0), (0, 1.0)], True),
        ([(3000, 29.0), (0, 29.0), (0, 30.0)], True),
        ([(3000, 29.0), (0, 1.0), (3000, 29.0), (0, 1.0)], False),
        ([(0, 0.0)] * 100, False),
    ],
)
def test_the_stall_watch(moves: list[tuple[int, float]], fails: bool) -> None:
    watch = StallWatch(StallLimits(seconds=30.0, bytes=3000))

    def move() -> None:
        for count, waited in moves:
            watch.moved(count, waited)

    if fails:
        with pytest.raises(TemporaryError):
            move()
    else:
        move()
