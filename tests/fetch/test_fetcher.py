"""Blobs into spools, from a registry that may do anything; every test looks at what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    NotFoundError,
    SizeMismatchError,
    StoreWriteError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.fetch.fetcher import Fetcher, NotWantedError
from asyncpull.fetch.scheduler import SchedulerLimits
from asyncpull.http import HttpTimeouts
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.spool import open_spool, spool_directory
from asyncpull.stall import StallLimits
from tests.support.docker_registry import docker_registry
from tests.support.docker_registry import is_installed as has_docker_registry
from tests.support.images import image, noise
from tests.support.registry_faults import (
    chunked,
    cut,
    drop,
    error,
    flip,
    hold,
    replaced,
    stall,
    status,
    surplus,
    truncated,
    until_close,
    without_ranges,
)
from tests.support.registry_simulator import Bearer, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncpull.fetch.fetcher import FetchingBlob
    from tests.support.registry_faults import Fault

DATA = noise(3, 900_000)
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        simulator.add_blob(DATA)
        yield simulator


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no thread outlives a test; tasks are looked at where there is a loop."""
    yield
    assert descriptors() == set()
    for thread in threading.enumerate():
        if thread.name.startswith("spool-"):
            thread.join(10)  # it was told to end, and may not have come to it
            assert not thread.is_alive()


def descriptors() -> set[str]:
    """What files of spools are open in this process."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if "/sha256-" in target:
            found.add(target)
    return found


@asynccontextmanager
async def fetching(
    registry: RegistrySimulator,
    root: Path,
    *,
    attempts: int = 3,
    idle: float = 5.0,
    limits: SchedulerLimits | None = None,
    stall: StallLimits | None = None,
    bandwidth: float | None = None,
) -> AsyncIterator[tuple[Fetcher, RegistrySource]]:
    """A fetcher that is quick to try again, and the simulator as its source; checks that no task is left."""
    retry = RetryPolicy(attempts=attempts, first_seconds=0.0)
    timeouts = HttpTimeouts(connect=5, headers=5, idle=idle)
    access = RegistryAccess(tls_verify=False)
    async with RegistryClient(access, timeouts=timeouts, retry=retry, environ={"HOME": "/nonexistent"}) as client:
        source = RegistrySource(client, parse_reference(f"{registry.address}/a/b:t"))
        async with Fetcher(root / "spool", limits=limits, retry=retry, stall=stall, bandwidth=bandwidth) as fetcher:
            yield fetcher, source
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("fetch sha256")] == []


def content(blob: FetchingBlob) -> bytes:
    """What a reader of the descriptor sees."""
    return os.pread(blob.fd, blob.descriptor.size + 1, 0)


def kept(root: Path) -> list[str]:
    """The files of the spool."""
    directory = spool_directory(root / "spool", BLOB.digest)
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


async def fetch(fetcher: Fetcher, source: RegistrySource) -> bytes:
    async with fetcher.open(BLOB, source) as blob:
        await blob.completed()
        return content(blob)


async def test_a_blob_arrives_front_first_and_stays_until_it_is_discarded(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    fronts: list[int] = []
    async with fetching(registry, tmp_path) as (fetcher, source):
        async with fetcher.open(BLOB, source, on_front=fronts.append) as blob:
            await blob.completed()
            assert (blob.front, blob.fetched, blob.resumed, blob.is_shared) == (len(DATA), len(DATA), 0, False)
            assert content(blob) == DATA
        assert fronts == sorted(fronts)
        assert fronts[-1] == len(DATA)
        assert kept(tmp_path) == ["blob", "journal", "lock"]
        assert oct(spool_directory(tmp_path / "spool", BLOB.digest).stat().st_mode & 0o777) == "0o700"
        assert await fetcher.discard(BLOB.digest)
        assert kept(tmp_path) == []


async def test_what_is_here_is_not_asked_for_again(registry: RegistrySimulator, tmp_path: Path) -> None:
    for _ in range(2):
        async with fetching(registry, tmp_path) as (fetcher, source), fetcher.open(BLOB, source) as blob:
            await blob.completed()
            assert content(blob) == DATA
    assert blob.resumed == len(DATA)
    assert len(registry.asked("/blobs/")) == 1


async def test_a_blob_can_be_fetched_afresh(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", flip(100))
    async with fetching(registry, tmp_path) as (fetcher, source):
        assert await fetch(fetcher, source) != DATA
        async with fetcher.open(BLOB, source, afresh=True) as blob:
            await blob.completed()
            assert (content(blob), blob.resumed) == (DATA, 0)


async def test_an_empty_blob(registry: RegistrySimulator, tmp_path: Path) -> None:
    empty = Descriptor("", Digest.of(b""), 0)
    async with fetching(registry, tmp_path) as (fetcher, source), fetcher.open(empty, source) as blob:
        await blob.completed()
        assert content(blob) == b""
    assert not registry.asked("/blobs/")


@pytest.mark.parametrize(
    "fault",
    [
        cut(0),
        cut(300_000),
        status(408),
        status(425),
        status(429, Retry_After="0"),
        status(429, Retry_After="Sun, 06 Nov 1994 08:49:37 GMT"),
        error(500, "UNKNOWN", "oops"),
        status(502),
        status(503),
        status(504),
    ],
)
async def test_it_goes_on_where_it_broke_off(registry: RegistrySimulator, tmp_path: Path, fault: Fault) -> None:
    registry.on("/blobs/", fault, times=2)
    retries: list[tuple[str, float]] = []
    async with (
        fetching(registry, tmp_path) as (fetcher, source),
        fetcher.open(BLOB, source, on_retry=lambda *said: retries.append(said)) as blob,
    ):
        await blob.completed()
        assert content(blob) == DATA
    assert len(retries) == 2
    assert registry.sent("/blobs/") <= len(DATA) + 1000  # error bodies, and no byte twice
    assert len(registry.asked("/blobs/")) == 3


@pytest.mark.parametrize("fault", [cut(300_000, reset=True), drop])
async def test_a_reset_may_cost_what_was_not_read(registry: RegistrySimulator, tmp_path: Path, fault: Fault) -> None:
    registry.on("/blobs/", fault, times=2)
    async with fetching(registry, tmp_path) as (fetcher, source):
        assert await fetch(fetcher, source) == DATA


@pytest.mark.parametrize("framing", [chunked, until_close])
async def test_a_length_is_not_needed(registry: RegistrySimulator, tmp_path: Path, framing: Fault) -> None:
    registry.on("/blobs/", framing, times=None)
    registry.on("/blobs/", cut(300_000))
    async with fetching(registry, tmp_path) as (fetcher, source):
        assert await fetch(fetcher, source) == DATA
    assert registry.sent("/blobs/") == len(DATA)


@pytest.mark.parametrize("framing", [None, chunked, until_close])
async def test_without_ranges_everything_comes_again_and_only_holes_are_filled(
    registry: RegistrySimulator, tmp_path: Path, framing: Fault | None
) -> None:
    registry.on("/blobs/", without_ranges, times=None)
    if framing is not None:
        registry.on("/blobs/", framing, times=None)
    async with open_spool(tmp_path / "spool", BLOB.digest, BLOB.size) as spool:
        for start, end in [(0, 1000), (5000, 70_000), (200_000, 899_999)]:
            async with spool.writer(start) as writer:
                await writer.write(DATA[start:end])
    async with fetching(registry, tmp_path) as (fetcher, source), fetcher.open(BLOB, source) as blob:
        await blob.completed()
        assert content(blob) == DATA
        assert blob.fetched == 4000 + 130_000 + 1
    assert len(registry.asked("/blobs/")) == 1


async def test_only_holes_are_asked_for(registry: RegistrySimulator, tmp_path: Path) -> None:
    async with open_spool(tmp_path / "spool", BLOB.digest, BLOB.size) as spool, spool.writer(1000) as writer:
        await writer.write(DATA[1000:2000])
    async with fetching(registry, tmp_path) as (fetcher, source):
        assert await fetch(fetcher, source) == DATA
    ranges = [request.headers.get("range") for request in registry.asked("/blobs/")]
    assert ranges == ["bytes=0-999", "bytes=2000-"]


@pytest.mark.parametrize("faults", [(surplus(),), (surplus(), chunked), (surplus(), until_close), (truncated(1000),)])
async def test_a_blob_of_another_size_is_refused(
    registry: RegistrySimulator, tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    registry.on("/blobs/", *faults, times=None)
    async with fetching(registry, tmp_path) as (fetcher, source):
        with pytest.raises(SizeMismatchError):
            await fetch(fetcher, source)


async def test_a_bomb_is_refused_as_soon_as_it_is_too_large(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", replaced(bytes(50_000_000)), chunked)
    async with fetching(registry, tmp_path) as (fetcher, source):
        with pytest.raises(SizeMismatchError):
            await fetch(fetcher, source)
    assert (spool_directory(tmp_path / "spool", BLOB.digest) / "blob").stat().st_size <= len(DATA)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (cut(0), UnavailableError),
        (status(503), UnavailableError),
        (status(429), TemporaryError),
        (drop, UnavailableError),
    ],
)
async def test_patience_has_an_end_and_what_came_is_kept(
    registry: RegistrySimulator, tmp_path: Path, fault: Fault, kind: type[Exception]
) -> None:
    registry.on("/blobs/", cut(300_000))
    registry.on("/blobs/", fault, times=None, skip=1)
    async with fetching(registry, tmp_path) as (fetcher, source):
        with pytest.raises(kind):
            await fetch(fetcher, source)
        assert len(registry.asked("/blobs/")) >= 3
        registry.heal()
        async with fetcher.open(BLOB, source) as blob:
            await blob.completed()
            assert (content(blob), blob.resumed) == (DATA, 300_000)


async def test_a_time_beyond_all_patience_is_left_to_the_person(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", status(429, Retry_After="86400"), times=None)
    async with fetching(registry, tmp_path) as (fetcher, source):
        with pytest.raises(TemporaryError) as caught:
            await fetch(fetcher, source)
    assert caught.value.retry_after == 86400.0
    assert len(registry.asked("/blobs/")) == 1


async def test_what_nobody_wants_any_more_is_not_fetched(registry: RegistrySimulator, tmp_path: Path) -> None:
    asked: list[str] = []

    async def not_any_more() -> bool:
        asked.append("")
        return False

    async with fetching(registry, tmp_path) as (fetcher, source):
        with pytest.raises(NotWantedError):
            async with fetcher.open(BLOB, source, still_wanted=not_any_more):
                pytest.fail("there is nothing to read")
        assert kept(tmp_path) == []

        async def unwanted() -> bytes:
            async with fetcher.open(BLOB, source, still_wanted=not_any_more) as blob:
                await blob.completed()
                return content(blob)

        # One of those who asked wants it anyway.
        first, second = await asyncio.gather(unwanted(), fetch(fetcher, source))
        assert first == second == DATA
        async with fetcher.open(BLOB, source, still_wanted=not_any_more) as blob:
            await blob.completed()  # it is here
            assert content(blob) == DATA
    assert len(asked) == 2
    assert len(registry.asked("/blobs/")) == 1


async def test_who_reads_the_old_bytes_may_go_on_when_it_is_fetched_afresh(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    registry.on("/blobs/", flip(100))
    async with fetching(registry, tmp_path) as (fetcher, source), fetcher.open(BLOB, source) as old:
        await old.completed()
        before = content(old)
        async with fetcher.open(BLOB, source, afresh=True) as new:
            await new.completed()
            assert content(new) == DATA
            assert content(old) == before != DATA


async def test_bandwidth_is_a_limit_for_all_together(registry: RegistrySimulator, tmp_path: Path) -> None:
    blobs = [noise(number, 150_000) for number in range(4)]
    for data in blobs:
        registry.add_blob(data)
    descriptors = [Descriptor("", Digest.of(data), len(data)) for data in blobs]
    async with fetching(registry, tmp_path, bandwidth=1_000_000.0) as (fetcher, source):
        began = asyncio.get_running_loop().time()

        async def one(descriptor: Descriptor) -> None:
            async with fetcher.open(descriptor, source) as blob:
                await blob.completed()

        await asyncio.gather(*map(one, descriptors))
        # What a quarter of a second lets pass comes at once; a machine that is busy only makes it longer.
        assert asyncio.get_running_loop().time() - began >= 0.35 - 0.01


async def test_what_is_permanent_fails_at_once_and_leaves_nothing(registry: RegistrySimulator, tmp_path: Path) -> None:
    missing = Descriptor("", Digest.of(b"missing"), 7)
    async with fetching(registry, tmp_path) as (fetcher, source):
        with pytest.raises(NotFoundError):
            async with fetcher.open(missing, source) as blob:
                await blob.completed()
    assert len(registry.asked("/blobs/")) == 1
    assert list((tmp_path / "spool").iterdir()) == []


async def test_progress_refills_the_budget(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", cut(100_000), times=8)
    async with fetching(registry, tmp_path) as (fetcher, source):
        assert await fetch(fetcher, source) == DATA
    assert len(registry.asked("/blobs/")) == 9


async def test_without_ranges_the_same_cut_is_no_progress(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", without_ranges, cut(100_000), times=None)
    async with fetching(registry, tmp_path) as (fetcher, source):
        with pytest.raises(UnavailableError):
            await fetch(fetcher, source)
    assert len(registry.asked("/blobs/")) <= 4


async def test_a_connection_that_goes_silent_is_left(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", stall(300_000))
    async with fetching(registry, tmp_path, idle=0.2) as (fetcher, source):
        assert await fetch(fetcher, source) == DATA
    assert registry.sent("/blobs/") == len(DATA)


async def test_a_token_that_expires_between_two_requests_is_renewed(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    registry.protection = Bearer()
    gate = asyncio.Event()
    registry.on("/blobs/", hold(gate, 300_000), cut(300_000))
    async with fetching(registry, tmp_path) as (fetcher, source):
        assert await fetch(fetcher, source) == DATA
    assert len(registry.asked("/token")) == 1


# Same job once


async def test_a_blob_wanted_often_is_fetched_once(registry: RegistrySimulator, tmp_path: Path) -> None:
    async with fetching(registry, tmp_path) as (fetcher, source):
        bodies = await asyncio.gather(*(fetch(fetcher, source) for _ in range(5)))
    assert bodies == [DATA] * 5
    assert len(registry.asked("/blobs/")) == 1


async def test_whoever_joins_late_is_told_the_front(registry: RegistrySimulator, tmp_path: Path) -> None:
    gate = asyncio.Event()
    registry.on("/blobs/", hold(gate, 300_000))
    arrived = asyncio.Event()
    fronts: list[int] = []
    async with fetching(registry, tmp_path) as (fetcher, source):
        first = fetcher.open(BLOB, source, on_front=lambda front: arrived.set() if front == 300_000 else None)
        async with first as blob:
            await arrived.wait()
            async with fetcher.open(BLOB, source, on_front=fronts.append) as other:
                assert other.is_shared
                assert fronts == [300_000]
                gate.set()
                await other.completed()
            await blob.completed()
            assert content(blob) == DATA


async def test_the_first_who_wanted_it_may_leave(registry: RegistrySimulator, tmp_path: Path) -> None:
    gate = asyncio.Event()
    registry.on("/blobs/", hold(gate, 300_000))
    async with fetching(registry, tmp_path) as (fetcher, source):
        owner = asyncio.create_task(fetch(fetcher, source))
        await registry.until_asked("/blobs/")
        heir = asyncio.create_task(fetch(fetcher, source))
        await asyncio.sleep(0)
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        gate.set()
        assert await heir == DATA
    assert len(registry.asked("/blobs/")) == 1


async def test_whoever_comes_while_the_last_is_leaving_begins_anew(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", hold(asyncio.Event(), 300_000))
    async with fetching(registry, tmp_path) as (fetcher, source):
        leaver = asyncio.create_task(fetch(fetcher, source))
        await registry.until_asked("/blobs/")
        leaver.cancel()
        await asyncio.sleep(0)
        assert await fetch(fetcher, source) == DATA
        with pytest.raises(asyncio.CancelledError):
            await leaver


async def test_an_error_reaches_everybody(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", status(404), times=None)
    async with fetching(registry, tmp_path) as (fetcher, source):
        results = await asyncio.gather(*(fetch(fetcher, source) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [NotFoundError] * 3


async def test_two_fetchers_share_by_the_lock_of_the_spool(registry: RegistrySimulator, tmp_path: Path) -> None:
    gate = asyncio.Event()
    registry.on("/blobs/", hold(gate, 300_000))
    async with fetching(registry, tmp_path) as (one, source), fetching(registry, tmp_path) as (two, other):
        first = asyncio.create_task(fetch(one, source))
        await registry.until_asked("/blobs/")
        second = asyncio.create_task(fetch(two, other))
        assert not await two.discard(BLOB.digest)
        gate.set()
        assert await first == await second == DATA
    assert registry.sent("/blobs/") == len(DATA)


async def test_a_reader_keeps_what_another_discards(registry: RegistrySimulator, tmp_path: Path) -> None:
    async with fetching(registry, tmp_path) as (fetcher, source), fetcher.open(BLOB, source) as blob:
        await blob.completed()
        assert await fetcher.discard(BLOB.digest)
        assert content(blob) == DATA


async def test_what_nobody_came_back_for_is_swept_away(registry: RegistrySimulator, tmp_path: Path) -> None:
    async with fetching(registry, tmp_path) as (fetcher, source):
        assert await fetcher.sweep(0.0) == 0
        await fetch(fetcher, source)
        other = Digest.of(b"other")
        async with open_spool(tmp_path / "spool", other, 5) as received:
            async with received.writer(0) as writer:
                await writer.write(b"oth")
            for digest in (BLOB.digest, other):
                os.utime(spool_directory(tmp_path / "spool", digest) / "journal", (1e9, 1e9))
            assert await fetcher.sweep(14 * 86400.0) == 1
            assert kept(tmp_path) == []
        assert await fetcher.sweep(100 * 365 * 86400.0) == 0
        assert await fetcher.sweep(14 * 86400.0) == 1
    assert list((tmp_path / "spool").iterdir()) == []


# Turns


async def test_the_largest_goes_first_and_not_too_many_at_once(registry: RegistrySimulator, tmp_path: Path) -> None:
    blobs = [noise(number, size) for number, size in enumerate([1000, 50_000, 200, 300_000])]
    descriptors = [Descriptor("", Digest.of(data), len(data)) for data in blobs]
    for data in blobs:
        registry.add_blob(data)
    async with fetching(registry, tmp_path, limits=SchedulerLimits(parallel_downloads=1)) as (fetcher, source):

        async def one(descriptor: Descriptor) -> None:
            async with fetcher.open(descriptor, source) as blob:
                await blob.completed()

        await asyncio.gather(*map(one, descriptors))
    asked = [request.path.rpartition("/")[2] for request in registry.asked("/blobs/")]
    assert asked == [str(descriptors[number].digest) for number in (3, 1, 0, 2)]


# Cancellation and the end of the world


@pytest.mark.parametrize("steps", range(40))
async def test_cancelling_at_any_step_leaves_nothing_but_the_spool(
    registry: RegistrySimulator, tmp_path: Path, steps: int
) -> None:
    registry.on("/blobs/", hold(asyncio.Event(), 300_000), times=1)
    async with fetching(registry, tmp_path) as (fetcher, source):
        task = asyncio.create_task(fetch(fetcher, source))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert descriptors() == set()
        registry.heal()
        assert await fetch(fetcher, source) == DATA


async def test_cancelling_in_the_middle_keeps_every_byte(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", hold(asyncio.Event(), 300_001))
    arrived = asyncio.Event()
    async with fetching(registry, tmp_path) as (fetcher, source):

        async def until_cancelled() -> None:
            async with fetcher.open(BLOB, source, on_front=lambda at: arrived.set() if at > 299_000 else None) as blob:
                await blob.completed()

        task = asyncio.create_task(until_cancelled())
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await fetch(fetcher, source) == DATA
    assert registry.sent("/blobs/") <= len(DATA) + 1


async def test_closing_the_fetcher_ends_what_is_on_its_way(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", hold(asyncio.Event(), 300_000), times=None)
    async with fetching(registry, tmp_path) as (fetcher, source):
        task = asyncio.create_task(fetch(fetcher, source))
        await registry.until_asked("/blobs/")
    with pytest.raises(asyncio.CancelledError):
        await task


_KILLED = """
import asyncio, sys
from pathlib import Path
from asyncpull.fetch.fetcher import Fetcher
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference

async def main(address, digest, size, root):
    def tell(front):
        print(front, flush=True)
    async with RegistryClient(RegistryAccess(tls_verify=False)) as client, Fetcher(Path(root)) as fetcher:
        source = RegistrySource(client, parse_reference(f"{address}/a/b:t"))
        async with fetcher.open(Descriptor("", Digest.parse(digest), int(size)), source, on_front=tell) as blob:
            await blob.completed()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_process_leaves_its_lock_and_its_bytes(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("/blobs/", hold(asyncio.Event(), 700_000))
    arguments = [registry.address, str(BLOB.digest), str(BLOB.size), str(tmp_path / "spool")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED, *arguments, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    while int(await process.stdout.readline()) < 700_000:
        pass
    async with fetching(registry, tmp_path) as (fetcher, source):
        waiter = asyncio.create_task(fetch(fetcher, source))
        process.send_signal(signal.SIGKILL)
        assert await waiter == DATA
    await process.wait()
    assert registry.sent("/blobs/") == len(DATA)


async def test_a_root_that_cannot_be_written(registry: RegistrySimulator, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with fetching(registry, tmp_path / "file") as (fetcher, source):
        with pytest.raises(StoreWriteError):
            await fetch(fetcher, source)
    assert not registry.asked("/blobs/")


async def test_a_slow_connection_is_left_for_a_new_one(registry: RegistrySimulator, tmp_path: Path) -> None:
    # Any wait at all is too long, and no number of bytes enough: the watch must speak, whatever the machine does.
    impatient = StallLimits(seconds=0.0, bytes=1 << 40)
    async with fetching(registry, tmp_path, stall=impatient) as (fetcher, source):
        with pytest.raises(TemporaryError, match="bytes came in"):
            await fetch(fetcher, source)


@pytest.mark.skipif(not has_docker_registry(), reason="docker-registry is not installed")
async def test_docker_registry(tmp_path: Path) -> None:
    built = image([DATA, noise(4, 3_000_000)], compression="none")
    with docker_registry(tmp_path / "registry") as real:
        reference = parse_reference(real.push("a/b", "t", built))
        async with RegistryClient(RegistryAccess(tls_verify=False)) as client, Fetcher(tmp_path / "spool") as fetcher:
            source = RegistrySource(client, reference)

            async def one(layer: bytes) -> None:
                descriptor = Descriptor("", Digest.of(layer), len(layer))
                async with (
                    open_spool(tmp_path / "spool", descriptor.digest, descriptor.size) as spool,
                    spool.writer(70_000) as writer,
                ):
                    await writer.write(layer[70_000:80_000])
                async with fetcher.open(descriptor, source) as blob:
                    await blob.completed()
                    assert content(blob) == layer

            await asyncio.gather(*(one(blob.data) for blob in built.layers))
