"""Two workers of a pool that do one layer; that trees are the same, the other tests of this directory show."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    CeilingError,
    DiffIDMismatchError,
    DigestMismatchError,
    MalformedLayerError,
    UnsupportedMemberError,
    WorkerError,
)
from asyncpull.extract.partner import DistantMaker
from asyncpull.extract.pool import WorkerPool
from asyncpull.extract.processes import BlobFront
from asyncpull.extract.protocol import SLOT_BYTES, SLOTS, Extracted, Taken, encode, open_memory
from asyncpull.layer.ceilings import Ceilings
from tests.extract.test_pool import Layer, children, tar, within, workers, workers_are
from tests.support.pulls import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asyncpull.extract.protocol import ApplyJob

# More than fits into the memory of two partners, in files smaller and larger than a slot of it.
FILES = {f"d{n % 50}/f{n}": random.Random(n).randbytes(n * 7 % 9000) for n in range(1200)} | {
    "large": os.urandom(3_000_000),
    "empty": b"",
}
STREAM = tar(FILES)
BLOB = gzip.compress(STREAM, 1)


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[Layer]:
    made = Layer(tmp_path / "layer", STREAM, BLOB)
    yield made
    os.close(made.fd)


async def apply(
    pool: WorkerPool, layer: Layer, front: int | None = None, others: float = 0, job: ApplyJob | None = None
) -> object:
    """Have a pool do a layer of which so much is here; ``others`` beside it are so many times as large."""
    moving = BlobFront(len(layer.blob))
    moving.advance(len(layer.blob) if front is None else front)
    beside = int((1 + others) * len(layer.blob))
    return await pool.apply(job or layer.job, (layer.fd,), moving, lambda position: None, beside=beside)


async def test_two_do_one_layer(layer: Layer, tmp_path: Path) -> None:
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        result = await apply(pool, layer)
        assert len(workers()) == 2
    assert isinstance(result, Extracted)
    assert result.diff_size == len(layer.stream)
    assert result.implied == tuple(sorted({os.fsencode(name.partition("/")[0]) for name in FILES if "/" in name}))
    assert {name: (layer.diff / name).read_bytes() for name in FILES} == FILES
    assert {path.stat().st_mtime for path in layer.diff.rglob("*") if path.is_file()} == {1_000_000_000}
    await workers_are(set())


@pytest.mark.parametrize(("cores", "limit", "others"), [(1, None, 0), (2, 1, 0), (2, 2, 0), (2, None, 1), (4, None, 3)])
async def test_one_does_it_where_the_cores_have_other_things_to_do(
    layer: Layer, tmp_path: Path, cores: int, limit: int | None, others: float
) -> None:
    async with WorkerPool(within(tmp_path), limit, cores=cores) as pool:
        assert isinstance(await apply(pool, layer, others=others), Extracted)
        assert len(workers()) == 1


@pytest.mark.parametrize(("cores", "others"), [(2, 0.9), (4, 2.9)])
async def test_two_do_the_one_that_everybody_would_wait_for(
    layer: Layer, tmp_path: Path, cores: int, others: float
) -> None:
    async with WorkerPool(within(tmp_path), cores=cores) as pool:
        assert isinstance(await apply(pool, layer, others=others), Extracted)
        assert len(workers()) == 2


async def test_the_second_layer_of_several_finds_the_cores_busy(layer: Layer, tmp_path: Path) -> None:
    other = Layer(tmp_path / "other", tar({"f": b"x"}))
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        both = await asyncio.gather(apply(pool, layer), apply(pool, other))
        assert all(isinstance(each, Extracted) for each in both)
        assert len(workers()) == 3
    os.close(other.fd)


async def test_damaged_bytes_are_a_wrong_digest(layer: Layer, tmp_path: Path) -> None:
    damaged = bytearray(layer.blob)
    damaged[len(damaged) // 2] ^= 0x40
    (layer.diff.parent / "blob").write_bytes(damaged)
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        with pytest.raises(DigestMismatchError):
            await apply(pool, layer)
    await workers_are(set())


async def test_what_is_refused_where_files_are_made_does_not_hide_a_wrong_digest(tmp_path: Path) -> None:
    hostile = Layer(tmp_path / "layer", tar({"f": b"x", "../../x": b"x"} | FILES))
    (hostile.diff.parent / "blob").write_bytes(hostile.blob[:-9] + b"!" + hostile.blob[-8:])
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        with pytest.raises(DigestMismatchError):
            await apply(pool, hostile)
    os.close(hostile.fd)


@pytest.mark.parametrize(
    ("stream", "blob", "error"),
    [
        (STREAM, BLOB[:-2000], MalformedLayerError),
        (STREAM[:300], None, MalformedLayerError),
        (tar({"f": b"x", "../../etc/x": b"x"} | FILES), None, UnsupportedMemberError),
        (tar({"f": b"x", "n" * 300: b"x"}), None, UnsupportedMemberError),
    ],
)
async def test_what_is_refused_is_refused_and_the_pool_goes_on(
    tmp_path: Path, stream: bytes, blob: bytes | None, error: type[Exception]
) -> None:
    hostile = Layer(tmp_path / "layer", stream, blob)
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        with pytest.raises(error):
            await apply(pool, hostile)
        good = Layer(tmp_path / "good", STREAM, BLOB)
        assert isinstance(await apply(pool, good), Extracted)
        os.close(good.fd)
    os.close(hostile.fd)
    await workers_are(set())


async def test_one_who_is_far_ahead_hears_of_a_refusal(tmp_path: Path) -> None:
    """More is said than the socket between the two has room for, and nobody reads it any more."""
    names = {f"{'long' * 40}{n}": b"" for n in range(20_000)}
    hostile = Layer(tmp_path / "layer", tar({"n" * 300: b""} | names))
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        with pytest.raises(UnsupportedMemberError):
            await asyncio.wait_for(apply(pool, hostile), 30)
    os.close(hostile.fd)


async def test_ceilings_hold(layer: Layer, tmp_path: Path) -> None:
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        with pytest.raises(CeilingError):
            await apply(pool, layer, job=replace(layer.job, ceilings=Ceilings(members=100)))


async def test_wrong_diff_id(layer: Layer, tmp_path: Path) -> None:
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        with pytest.raises(DiffIDMismatchError):
            await apply(pool, layer, job=replace(layer.job, diff_id=layer.job.blob))


async def begun(layer: Layer) -> None:
    """Wait until some of the tree is made."""
    while not (layer.diff / "d1").exists():
        await asyncio.sleep(0.005)


async def test_a_cancellation_leaves_neither(layer: Layer, tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        task = asyncio.create_task(apply(pool, layer, len(layer.blob) // 2))
        await begun(layer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await workers_are(set())
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("which", [min, max])
async def test_when_one_dies_the_other_is_done_too(
    layer: Layer, tmp_path: Path, which: Callable[[set[int]], int]
) -> None:
    """The other is ended with it, or has heard of it first and ended its job: then it is there for the next one."""
    other = Layer(tmp_path / "other", STREAM, BLOB)
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        task = asyncio.create_task(apply(pool, layer, len(layer.blob) // 2))
        await begun(layer)
        killed = which(workers())
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(WorkerError, match="died"):
            await asyncio.wait_for(task, 20)
        assert isinstance(await apply(pool, other), Extracted)
        assert len(children(os.getpid())) == 1
        assert killed not in workers()
        async with asyncio.timeout(PATIENCE):
            while len(workers()) != 2:  # one that was ended vanishes a moment later
                await asyncio.sleep(0.005)
    await workers_are(set())
    os.close(other.fd)


async def test_nobody_waits_for_the_one_who_is_stopped(layer: Layer, tmp_path: Path) -> None:
    """The one who makes files may be held up for long; the one who reads waits for it and for no more memory."""
    async with WorkerPool(within(tmp_path), cores=2) as pool:
        task = asyncio.create_task(apply(pool, layer, len(layer.blob) // 4))
        await begun(layer)
        maker = min(workers())
        os.kill(maker, signal.SIGSTOP)
        await asyncio.sleep(0.3)
        assert not task.done()
        os.kill(maker, signal.SIGCONT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await workers_are(set())


@pytest.mark.parametrize(("taken_at_once", "waits"), [(SLOTS, True), (1, False)])
def test_it_is_known_who_waits_for_whom(taken_at_once: int, waits: bool) -> None:
    """Who has done all of it whenever room is asked for waits for more; who gives back slot by slot does not."""
    memory = open_memory()
    ours, theirs = socket.socketpair()
    with ours, theirs, DistantMaker(memory, ours.fileno()) as maker:
        os.close(memory)
        piece = memoryview(bytes(SLOT_BYTES))
        maker.write(piece)
        for number in range(1, 16 * SLOTS):
            if number >= SLOTS and (number - SLOTS) % taken_at_once == 0:
                for slot in range(taken_at_once):
                    theirs.sendall(encode(Taken((number + slot) % SLOTS)))
            maker.write(piece)
        assert maker.is_waiting is waits
