"""Spools: who holds one, what is written when, and what is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import NoSpaceError, StoreWriteError
from asyncpull.ranges import Range
from asyncpull.spec.digest import Digest
from asyncpull.spool import BATCH_BYTES, PENDING_LIMIT, open_spool, recorded_bytes, remove_spool, spool_directory
from tests.support.images import noise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.spool import Spool

DATA = noise(5, 3_000_000)
DIGEST = Digest.of(DATA)


async def write(root: Path, *parts: tuple[int, int]) -> None:
    async with open_spool(root, DIGEST, len(DATA)) as spool:
        for start, end in parts:
            async with spool.writer(start) as writer:
                await writer.write(DATA[start:end])


async def test_what_is_written_is_here_the_next_time(tmp_path: Path) -> None:
    root = tmp_path / "made" / "spool"
    await write(root, (0, 10), (20, 30))
    async with open_spool(root, DIGEST, len(DATA)) as spool:
        assert (spool.front, spool.resumed, spool.is_complete) == (10, 20, False)
        assert list(spool.missing()) == [Range(10, 20), Range(30, len(DATA))]
        assert "20/3000000 in 2 ranges" in repr(spool)
        async with spool.writer(10) as writer:
            await writer.write(DATA[10:20])
            await writer.write(DATA[20:])
        assert (spool.front, spool.is_complete, spool.resumed) == (len(DATA), True, 20)
        assert spool.path.read_bytes() == DATA
    assert {path.stat().st_mode & 0o777 for path in (root, spool_directory(root, DIGEST))} == {0o700}


async def test_who_sent_how_much_and_how_much_is_recorded(tmp_path: Path) -> None:
    assert recorded_bytes(tmp_path, DIGEST, len(DATA)) == 0
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        for start, origin in ((0, "one"), (10, "two"), (20, "one"), (2_000_000, "")):
            async with spool.writer(start, origin) as writer:
                await writer.write(DATA[start : start + 10])
        assert recorded_bytes(tmp_path, DIGEST, len(DATA)) == 40
    assert recorded_bytes(tmp_path, DIGEST, 1000) == 30
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        assert dict(spool.origins) == {"one": 20, "two": 10}
        await spool.reset()
        assert (dict(spool.origins), spool.resumed) == ({}, 0)
    assert recorded_bytes(tmp_path, DIGEST, len(DATA)) == 0


async def test_a_spool_with_nothing_in_it_is_removed(tmp_path: Path) -> None:
    async with open_spool(tmp_path, DIGEST, len(DATA)):
        assert spool_directory(tmp_path, DIGEST).is_dir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        async with open_spool(tmp_path, DIGEST, len(DATA)):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


async def test_many_small_writes_are_few_records(tmp_path: Path) -> None:
    advances: list[int] = []
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        spool.on_advance = lambda: advances.append(spool.front)
        async with spool.writer(0) as writer:
            for start in range(0, len(DATA), 1000):
                await writer.write(DATA[start : start + 1000])
                assert writer.position - spool.front < 2 * PENDING_LIMIT + 1000
        assert spool.path.read_bytes() == DATA
    assert advances == sorted(advances)
    assert advances[-1] == len(DATA)
    assert len(advances) <= len(DATA) // BATCH_BYTES + 2


async def test_a_few_bytes_do_not_wait_for_more(tmp_path: Path) -> None:
    advanced = asyncio.Event()
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        spool.on_advance = advanced.set
        async with spool.writer(0) as writer:
            await writer.write(DATA[:10])
            await advanced.wait()
            assert spool.front == 10


async def test_several_writers_at_once(tmp_path: Path) -> None:
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:

        async def part(start: int, end: int) -> None:
            async with spool.writer(start) as writer:
                for position in range(start, end, 70_000):
                    await writer.write(DATA[position : min(position + 70_000, end)])

        await asyncio.gather(*(part(start, start + 500_000) for start in range(0, len(DATA), 500_000)))
        assert spool.is_complete
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        assert spool.is_complete
        assert spool.path.read_bytes() == DATA


async def test_leaving_a_writer_by_an_error_keeps_what_it_was_given(tmp_path: Path) -> None:
    async def failing(spool: Spool) -> None:
        async with spool.writer(0) as writer:
            await writer.write(DATA[:10])
            raise ZeroDivisionError

    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        with pytest.raises(ZeroDivisionError):
            await failing(spool)
        assert spool.front == 10


async def test_leaving_a_writer_by_cancellation_keeps_what_it_was_given(tmp_path: Path) -> None:
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:

        async def endless() -> None:
            async with spool.writer(0) as writer:
                await writer.write(DATA[:10])
                await asyncio.Event().wait()

        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert spool.front == 10


async def test_reset_forgets(tmp_path: Path) -> None:
    await write(tmp_path, (0, 1000))
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        await spool.reset()
        assert (spool.front, spool.resumed) == (0, 0)
    assert list(tmp_path.iterdir()) == []


async def test_one_holds_it_and_the_other_waits(tmp_path: Path) -> None:
    order: list[str] = []
    opened, close = asyncio.Event(), asyncio.Event()

    async def holder() -> None:
        async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
            opened.set()
            await close.wait()
            async with spool.writer(0) as writer:
                await writer.write(DATA)
            order.append("written")

    async def waiter() -> None:
        async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
            order.append(f"complete {spool.is_complete}")

    first = asyncio.create_task(holder())
    await opened.wait()
    second, third = asyncio.create_task(waiter()), asyncio.create_task(waiter())
    await asyncio.sleep(0)
    third.cancel()
    assert not await remove_spool(tmp_path, DIGEST)
    close.set()
    await asyncio.gather(first, second)
    with pytest.raises(asyncio.CancelledError):
        await third
    assert order == ["written", "complete True"]
    # The waiter that was cancelled gives the lock back as soon as it gets it, which may be just now.
    while not await remove_spool(tmp_path, DIGEST):
        await asyncio.sleep(0)
    assert list(tmp_path.iterdir()) == []
    assert await remove_spool(tmp_path, DIGEST)


async def test_a_cancelled_removal_leaves_nothing_to_its_thread(tmp_path: Path) -> None:
    """When the cancellation comes out, the spool is gone or whole, and stays that."""
    loop, directory = asyncio.get_running_loop(), spool_directory(tmp_path, DIGEST)
    loop.set_default_executor(ThreadPoolExecutor(1))  # so that whatever is asked of it next is done after the removal
    for number in range(100):
        directory.mkdir()
        for name in ("blob", "journal"):
            (directory / name).touch()
        removal = asyncio.create_task(remove_spool(tmp_path, DIGEST))
        for _ in range(1 + number % 4):
            await asyncio.sleep(0)
        removal.cancel()
        await asyncio.wait((removal,))
        left = sorted(os.listdir(directory)) if directory.exists() else []
        assert left in ([], ["blob", "journal"])
        await asyncio.to_thread(lambda: None)
        assert directory.exists() == bool(left)
        assert await remove_spool(tmp_path, DIGEST)


async def test_whoever_waited_for_what_was_removed_makes_it_anew(tmp_path: Path) -> None:
    fronts: list[int] = []
    close = asyncio.Event()

    async def holder() -> None:
        async with open_spool(tmp_path, DIGEST, len(DATA)):
            await close.wait()  # leaves nothing in it, so it removes it with its lock

    async def waiter() -> None:
        async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
            async with spool.writer(0) as writer:
                await writer.write(DATA[:10])
            fronts.append(spool.front)

    first = asyncio.create_task(holder())
    while not spool_directory(tmp_path, DIGEST).exists():
        await asyncio.sleep(0)
    others = [asyncio.create_task(waiter()) for _ in range(5)]
    await asyncio.sleep(0)
    close.set()
    await asyncio.gather(first, *others)
    assert fronts == [10] * 5
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        assert spool.front == 10


async def test_cancelled_while_the_journal_is_read(tmp_path: Path) -> None:
    await write(tmp_path, (0, len(DATA)))
    for steps in range(8):

        async def opening() -> None:
            async with open_spool(tmp_path, DIGEST, len(DATA)):
                await asyncio.Event().wait()

        task = asyncio.create_task(opening())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with open_spool(tmp_path, DIGEST, len(DATA)) as spool:
        assert spool.is_complete
    for thread in threading.enumerate():
        if thread.name.startswith("spool-"):
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    target = tmp_path / "tiny"
    target.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(target)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


@pytest.mark.root
async def test_a_full_disk_keeps_what_fitted(tiny_disk: Path) -> None:
    async def fill() -> None:
        async with open_spool(tiny_disk, DIGEST, len(DATA)) as spool, spool.writer(0) as writer:
            for start in range(0, len(DATA), 100_000):
                await writer.write(DATA[start : start + 100_000])
                while spool.front < writer.position:
                    await asyncio.sleep(0)
                    await writer.write(b"")

    with pytest.raises(NoSpaceError) as caught:
        await fill()
    assert caught.value.hint is not None
    async with open_spool(tiny_disk, DIGEST, len(DATA)) as spool:
        assert 500_000 < spool.front < (1 << 20)
        assert spool.path.read_bytes()[: spool.front] == DATA[: spool.front]


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError):
        async with open_spool(tmp_path / "file" / "spool", DIGEST, 1):
            pass
