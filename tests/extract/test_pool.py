"""Workers seen from the event loop: real processes, real layers, and what is left when they fail or are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    DiffIDMismatchError,
    DigestMismatchError,
    MalformedLayerError,
    StoreWriteError,
    UnsupportedMemberError,
    WorkerError,
)
from asyncpull.extract.confinement import Reach
from asyncpull.extract.pool import WorkerPool
from asyncpull.extract.processes import BlobFront
from asyncpull.extract.protocol import AdoptJob, ApplyJob, CopyJob, Extracted
from asyncpull.layer.codec import Compression
from asyncpull.layer.split import read_split, rebuild
from asyncpull.spec.digest import Digest
from asyncpull.tree.marks import Marks
from tests.support.pulls import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = {"uid": os.geteuid(), "gid": os.getegid()}


def tar(files: dict[str, bytes]) -> bytes:
    """A tar stream with these files, owned by whoever runs the test."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o644, 1_000_000_000
            info.uid, info.gid = OWNER["uid"], OWNER["gid"]
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def within(directory: Path) -> Reach:
    """What a worker may touch that works in one directory."""
    return Reach((str(directory),))


class Layer:
    """A blob in a file, and the staging it goes to."""

    def __init__(self, directory: Path, stream: bytes, blob: bytes | None = None, *, is_alone: bool = False) -> None:
        directory.mkdir()
        self.is_alone = is_alone
        self.stream, self.blob = stream, gzip.compress(stream) if blob is None else blob
        self.diff, self.tar_split = directory / "diff", directory / "split.gz"
        self.diff.mkdir()
        (directory / "blob").write_bytes(self.blob)
        self.fd = os.open(directory / "blob", os.O_RDONLY)

    @property
    def job(self) -> ApplyJob:
        return ApplyJob(
            blob=Digest.of(self.blob),
            size=len(self.blob),
            diff_id=Digest.of(self.stream),
            diff=str(self.diff),
            tar_split=str(self.tar_split),
            front=len(self.blob),
            marks=Marks.USER if os.geteuid() else Marks.TRUSTED,
            in_userns=os.geteuid() != 0,
            is_alone=self.is_alone,
        )


LARGE = os.urandom(5 << 20)
"""Enough for a worker to have it read, inflated and hashed in threads of their own, where the layer is alone."""


@pytest.fixture(params=[False, True], ids=["in one thread", "in three"])
def layer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Layer]:
    made = Layer(tmp_path / "layer", tar({"a/b": b"content" * 5000, "c": b"", "d": LARGE}), is_alone=request.param)
    yield made
    os.close(made.fd)


async def test_extracts_and_verifies(layer: Layer, tmp_path: Path) -> None:
    positions: list[int] = []
    async with WorkerPool(within(tmp_path), 1) as pool:
        result = await pool.run(layer.job, (layer.fd,), on_advance=positions.append)
    assert isinstance(result, Extracted)
    assert result.diff_size == len(layer.stream)
    assert result.compression == Compression.GZIP
    assert result.implied == (b"a",)
    assert (result.uidset, result.gidset) == ((OWNER["uid"],), (OWNER["gid"],))
    assert positions == sorted(positions)
    assert positions[-1] == len(layer.blob)
    assert (layer.diff / "a/b").read_bytes() == b"content" * 5000
    with layer.tar_split.open("rb") as split:
        again = b"".join(rebuild(read_split(split), lambda name: (layer.diff / os.fsdecode(name)).open("rb")))
    assert hashlib.sha256(again).hexdigest() == layer.job.diff_id.encoded


async def test_reads_along_the_front(layer: Layer, tmp_path: Path) -> None:
    """The worker gets the blob's front in steps, and is never ahead of it."""
    front = BlobFront(len(layer.blob))
    positions: list[int] = []
    async with WorkerPool(within(tmp_path), 1) as pool:
        task = asyncio.create_task(pool.run(replace(layer.job, front=0), (layer.fd,), front, positions.append))
        for position in range(0, len(layer.blob), 300_000):
            front.advance(position)
            await asyncio.sleep(0)
            assert all(seen <= max(position, 0) for seen in positions)
        assert not task.done()
        front.advance(len(layer.blob))
        assert isinstance(await task, Extracted)


async def test_a_worker_takes_one_job_after_another(layer: Layer, tmp_path: Path) -> None:
    others = [Layer(tmp_path / str(n), tar({f"f{n}": b"x"})) for n in range(5)]
    async with WorkerPool(within(tmp_path), 2) as pool:
        pool.prepare(9)
        await asyncio.gather(*(pool.run(other.job, (other.fd,)) for other in others))
    for n, other in enumerate(others):
        assert (other.diff / f"f{n}").read_bytes() == b"x"
        os.close(other.fd)


async def finished(pool: WorkerPool, layers: dict[str, Layer]) -> list[str]:
    """The names of ``layers``, which wait for a worker in this order, in the order in which they are done."""
    order: list[str] = []

    async def run(name: str) -> None:
        front = BlobFront(len(layers[name].blob))
        front.advance(front.size)
        await pool.run(layers[name].job, (layers[name].fd,), front)
        order.append(name)

    await asyncio.gather(*map(run, layers))
    return order


@pytest.mark.parametrize("cores", [1, 2])
async def test_a_large_layer_keeps_its_core(tmp_path: Path, cores: int) -> None:
    """Small ones do not share it with workers of their own, but wait for it, or for another one; not so the last."""
    streams = {"large": tar({"f": bytes(256 << 20)})} | {f"small {n}": tar({"f": b"x"}) for n in range(4)}
    layers = {name: Layer(tmp_path / name, stream, stream) for name, stream in streams.items()}
    async with WorkerPool(within(tmp_path), 3, cores=cores) as pool:
        pool.prepare(5)
        order = await finished(pool, layers)
        assert len(workers()) == cores + 1
    assert order.index("large") == (0 if cores == 1 else 4)
    assert set(order) == set(layers)
    for each in layers.values():
        os.close(each.fd)


async def test_blobs_that_do_not_come_at_once_have_a_worker_each(tmp_path: Path) -> None:
    layers = [Layer(tmp_path / f"{n}", tar({"f": b"x"})) for n in range(3)]
    fronts = [BlobFront(len(layer.blob)) for layer in layers]
    async with WorkerPool(within(tmp_path), 3, cores=1) as pool:
        tasks = [
            asyncio.create_task(pool.run(replace(layer.job, front=0), (layer.fd,), front))
            for layer, front in zip(layers, fronts, strict=True)
        ]
        async with asyncio.timeout(PATIENCE):
            for expected in (1, 3):
                while len(workers()) != expected:
                    await asyncio.sleep(0.005)
        for front in fronts:
            front.advance(front.size)
        assert all(isinstance(result, Extracted) for result in await asyncio.gather(*tasks))
    for each in layers:
        os.close(each.fd)


async def test_a_worker_that_waits_for_its_blob_keeps_no_other_from_beginning(layer: Layer, tmp_path: Path) -> None:
    small = {f"small {n}": Layer(tmp_path / f"small {n}", tar({"f": b"x"})) for n in range(4)}
    front = BlobFront(len(layer.blob))
    async with WorkerPool(within(tmp_path), 2, cores=1) as pool:
        waiting = asyncio.create_task(pool.run(replace(layer.job, front=0), (layer.fd,), front))
        await asyncio.sleep(0)
        assert set(await finished(pool, small)) == set(small)
        assert not waiting.done()
        front.advance(len(layer.blob))
        assert isinstance(await waiting, Extracted)
    for each in small.values():
        os.close(each.fd)


async def test_the_last_layer_is_helped_by_threads_from_where_it_is(tmp_path: Path) -> None:
    """It was begun in one thread, for there was another layer; when that is done, its worker has two more at once."""
    content = LARGE * 4
    large, small = Layer(tmp_path / "large", tar({"f": content})), Layer(tmp_path / "small", tar({"f": b"x"}))
    fronts = [BlobFront(len(each.blob)) for each in (large, small)]
    fronts[0].advance(5 << 20)
    read: list[int] = []
    async with WorkerPool(within(tmp_path), 2, cores=2) as pool:
        both = len(large.blob) + len(small.blob)
        task = asyncio.create_task(pool.apply(large.job, (large.fd,), fronts[0], read.append, beside=2 * both))
        async with asyncio.timeout(PATIENCE):
            while not read or read[-1] < 5 << 20:
                await asyncio.sleep(0.005)
        (worker,) = workers()
        before = threads_of(worker)
        fronts[1].advance(len(small.blob))
        await pool.apply(small.job, (small.fd,), fronts[1], lambda position: None, beside=2 * both)
        fronts[0].advance(6 << 20)  # it looks up when it goes on
        async with asyncio.timeout(PATIENCE):
            while threads_of(worker) != before + 2:
                await asyncio.sleep(0.005)
        fronts[0].advance(len(large.blob))
        assert isinstance(await task, Extracted)
    assert (large.diff / "f").read_bytes() == content
    for each in (large, small):
        os.close(each.fd)


async def test_layers_that_leave_no_core_idle_are_done_in_one_thread_each(tmp_path: Path) -> None:
    layers = [Layer(tmp_path / f"{n}", tar({"f": LARGE})) for n in range(2)]
    fronts = [BlobFront(len(each.blob)) for each in layers]
    read: list[list[int]] = [[], []]
    async with WorkerPool(within(tmp_path), 4, cores=2) as pool:
        tasks = []
        for layer, front, positions in zip(layers, fronts, read, strict=True):
            front.advance(9 << 19)
            applied = pool.apply(layer.job, (layer.fd,), front, positions.append, beside=2 * front.size)
            tasks.append(asyncio.create_task(applied))
        async with asyncio.timeout(PATIENCE):
            while not all(positions and positions[-1] >= 4 << 20 for positions in read):
                await asyncio.sleep(0.005)
        assert [threads_of(worker) for worker in workers()] == [2, 2]  # the main thread and the listener
        for front in fronts:
            front.advance(front.size)
        assert all(isinstance(result, Extracted) for result in await asyncio.gather(*tasks))
    for each in layers:
        os.close(each.fd)


async def test_damaged_bytes_are_a_wrong_digest_whatever_the_stream_says(layer: Layer, tmp_path: Path) -> None:
    damaged = bytearray(layer.blob)
    damaged[len(damaged) // 2] ^= 0x40
    path = layer.diff.parent / "blob"
    path.write_bytes(damaged)
    async with WorkerPool(within(tmp_path), 1) as pool:
        with pytest.raises(DigestMismatchError) as caught:
            await pool.run(layer.job, (layer.fd,))
    assert caught.value.expected == str(Digest.of(layer.blob))
    assert caught.value.actual == str(Digest.of(bytes(damaged)))


async def test_wrong_diff_id(layer: Layer, tmp_path: Path) -> None:
    async with WorkerPool(within(tmp_path), 1) as pool:
        with pytest.raises(DiffIDMismatchError):
            await pool.run(replace(layer.job, diff_id=Digest.of(b"another")), (layer.fd,))


@pytest.mark.parametrize(
    ("stream", "blob", "error"),
    [
        (b"", b"\x1f\x8b\x08\x00 no gzip", MalformedLayerError),
        (b"", gzip.compress(tar({"a": b"x"}))[:-20], MalformedLayerError),
        (b"x" * 1024, None, MalformedLayerError),
        (tar({"../../etc/x": b"x"}), None, UnsupportedMemberError),
        (b"", gzip.compress(tar({"large": LARGE}))[:-20], MalformedLayerError),
        (b"", gzip.compress(tar({"large": LARGE})[: 4 << 20]), MalformedLayerError),
        (b"", b"\x1f\x8b\x08\x00 no gzip" + LARGE, MalformedLayerError),
        (tar({"../../etc/x": b"x", "large": LARGE}), None, UnsupportedMemberError),
        (tar({"large": LARGE, "../../etc/x": b"x"}), None, UnsupportedMemberError),
    ],
)
@pytest.mark.parametrize("is_alone", [False, True], ids=["in one thread", "in three"])
async def test_a_right_digest_leaves_the_publisher_to_blame(
    tmp_path: Path, stream: bytes, blob: bytes | None, error: type[Exception], is_alone: bool
) -> None:
    hostile = Layer(tmp_path / "layer", stream, blob, is_alone=is_alone)
    async with WorkerPool(within(tmp_path), 1) as pool:
        with pytest.raises(error):
            await pool.run(hostile.job, (hostile.fd,))
        good = Layer(tmp_path / "good", tar({"f": b"x"}))
        assert isinstance(await pool.run(good.job, (good.fd,)), Extracted)  # the worker is none the worse
        os.close(good.fd)
    os.close(hostile.fd)


async def test_a_staging_that_cannot_be_written(layer: Layer, tmp_path: Path) -> None:
    layer.tar_split.write_bytes(b"in the way")
    async with WorkerPool(within(tmp_path), 1) as pool:
        with pytest.raises(StoreWriteError, match="File exists"):
            await pool.run(layer.job, (layer.fd,))


async def test_a_cancelled_job_leaves_no_worker(layer: Layer, tmp_path: Path) -> None:
    async with WorkerPool(within(tmp_path), 1) as pool:
        task = asyncio.create_task(pool.run(replace(layer.job, front=100), (layer.fd,), BlobFront(len(layer.blob))))
        while not layer.tar_split.exists():
            await asyncio.sleep(0.005)
        before = workers()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await workers_are(before - {max(before)})
        layer.tar_split.unlink()
        assert isinstance(await pool.run(layer.job, (layer.fd,)), Extracted)  # in a new one
    await workers_are(set())


async def test_a_waiting_job_can_be_cancelled(layer: Layer, tmp_path: Path) -> None:
    other = Layer(tmp_path / "other", tar({"f": b"x"}))
    front = BlobFront(len(layer.blob))
    async with WorkerPool(within(tmp_path), 1) as pool:
        busy = asyncio.create_task(pool.run(replace(layer.job, front=100), (layer.fd,), front))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(pool.run(other.job, (other.fd,)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        front.advance(len(layer.blob))
        assert isinstance(await busy, Extracted)
        assert isinstance(await pool.run(other.job, (other.fd,)), Extracted)
    os.close(other.fd)


async def test_a_worker_that_dies_is_an_error_and_is_replaced(layer: Layer, tmp_path: Path) -> None:
    async with WorkerPool(within(tmp_path), 1) as pool:
        task = asyncio.create_task(pool.run(replace(layer.job, front=100), (layer.fd,), BlobFront(len(layer.blob))))
        while not layer.tar_split.exists():
            await asyncio.sleep(0.005)
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(WorkerError, match="died"):
            await task
        layer.tar_split.unlink()
        assert isinstance(await pool.run(layer.job, (layer.fd,)), Extracted)
    await workers_are(set())


def test_workers_end_with_the_process_that_started_them() -> None:
    code = """if True:
        import asyncio, os, time
        from asyncpull.extract.confinement import Reach
        from asyncpull.extract.pool import WorkerPool
        from tests.extract.test_pool import workers
        async def main():
            async with WorkerPool(Reach(()), 2) as pool:
                pool.prepare(2)
                while len(workers()) < 2:
                    time.sleep(0.01)
                print(*workers(), flush=True)
                os.kill(os.getpid(), 9)
        asyncio.run(main())
    """
    root = Path(__file__).parents[2]
    parent = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in parent.stdout.split()]
    assert len(pids) == 2, parent.stderr
    for _ in range(500):
        if not any(map(is_alive, pids)):
            return
        signal.sigtimedwait([], 0.02)
    pytest.fail(f"workers {pids} outlived their parent")


async def test_copies_a_layer_and_tells_what_it_implies(layer: Layer, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    async with WorkerPool(within(tmp_path), 1) as pool:
        await pool.run(layer.job, (layer.fd,))
        job = CopyJob(
            source_diff=str(layer.diff),
            source_tar_split=str(layer.tar_split),
            diff=str(copy),
            tar_split=str(tmp_path / "copy.gz"),
            in_userns=os.geteuid() != 0,
        )
        assert await pool.run(job) == (b"a",)
    assert (copy / "d").read_bytes() == (layer.diff / "d").read_bytes()
    assert (tmp_path / "copy.gz").read_bytes() == layer.tar_split.read_bytes()


async def test_implied_directories_are_adopted_from_the_base_up(tmp_path: Path) -> None:
    """The top layer takes what the middle one has only just been given."""
    diffs = [tmp_path / name for name in ("base", "middle", "top")]
    for diff in diffs:
        (diff / "a/b").mkdir(parents=True)
    (diffs[0] / "a").chmod(0o751)
    (diffs[0] / "a/b").chmod(0o1777)
    async with WorkerPool(within(tmp_path), 1) as pool:
        implied = {1: (b"a", b"a/b"), 2: (b"a", b"a/b")}
        await pool.run(
            AdoptJob(
                tuple(map(str, diffs)),
                implied,
                marks=Marks.USER if os.geteuid() else Marks.TRUSTED,
                in_userns=os.geteuid() != 0,
            )
        )
    assert [(diff / "a").stat().st_mode & 0o7777 for diff in diffs] == [0o751] * 3
    assert [(diff / "a/b").stat().st_mode & 0o7777 for diff in diffs] == [0o1777] * 3


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


async def workers_are(expected: set[int]) -> None:
    """The last a process does is to vanish from /proc, a moment after its descriptors are closed."""
    async with asyncio.timeout(PATIENCE):
        while workers() != expected:
            await asyncio.sleep(0.005)


def workers() -> set[int]:
    """The worker processes: what the nurseries that this process has started have forked."""
    found = {worker for nursery in children(os.getpid()) for worker in children(nursery)}
    return {worker for worker in found if is_alive(worker)}  # the nursery may not have reaped it yet


def children(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
