"""Mounts that end with their program: by itself, or by whoever opens the store next."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.errors import MountError
from asyncpull.store.leases import Lease, abandoned
from asyncpull.store.store import Store
from tests.store.made import commit_image

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.store.config import StoreConfig

LAYER = "a" * 64


def test_only_those_of_dead_programs_are_abandoned(tmp_path: Path) -> None:
    root = tmp_path / "run/leases"
    assert list(abandoned(root)) == []
    lease = Lease.begin(root, LAYER)
    assert not lease.is_counted
    lease.count()
    assert list(abandoned(root)) == []
    lease.leave()
    (found,) = abandoned(root)
    assert (found.layer, found.is_counted) == (LAYER, True)
    found.discount()
    assert not found.is_counted
    found.end()
    assert os.listdir(root) == []


_PROGRAM = """
import asyncio, sys
from pathlib import Path
from asyncpull.store.config import StoreConfig
from asyncpull.store.store import Store

async def main() -> None:
    async with Store.open(StoreConfig(Path(sys.argv[1]), Path(sys.argv[2]))) as store, store.mounted("one") as path:
        print(path, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def _killed_while_mounted(config: StoreConfig) -> str:
    """Have a program mount the container ``one`` and kill it; the path."""
    words = [sys.executable, "-c", _PROGRAM, str(config.graph_root), str(config.run_root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        path = program.stdout.readline().strip()
        assert path
        program.send_signal(signal.SIGKILL)
    return path


@pytest.mark.root
async def test_a_program_that_was_killed(store: Store, config: StoreConfig) -> None:
    await store.create_container(None, "one")
    path = _killed_while_mounted(config)
    assert path in kernel.mounts_below(config.graph_root)
    async with Store.open(config) as other:
        assert await other.mounts() == []
    assert kernel.mounts_below(config.graph_root) == []
    assert os.listdir(config.run_root / "asyncpull/overlay-leases") == []


@pytest.mark.root
async def test_whoever_else_mounted_it_keeps_it(store: Store, config: StoreConfig) -> None:
    await store.create_container(None, "one")
    async with store.mounted("one") as path:
        assert _killed_while_mounted(config) == str(path)
        assert [mount.count for mount in await store.mounts()] == [2]
        async with Store.open(config) as other:
            assert [mount.count for mount in await other.mounts()] == [1]
        assert kernel.is_mount_point(path)
    assert await store.mounts() == []


@pytest.mark.root
async def test_what_was_removed_meanwhile(store: Store, config: StoreConfig) -> None:
    container = await store.create_container(None, "one")
    _killed_while_mounted(config)
    await store.remove_container(container, force=True)
    async with Store.open(config) as other:
        assert await other.mounts() == []
    assert os.listdir(config.run_root / "asyncpull/overlay-leases") == []


@pytest.mark.root
async def test_a_body_that_raises_or_is_cancelled_leaves_no_lease(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", {"a": b""})

    async def body(started: asyncio.Event) -> None:
        async with store.mounted("app:1"):
            started.set()
            await asyncio.sleep(60)

    started = asyncio.Event()
    task = asyncio.create_task(body(started))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ZeroDivisionError):
        async with store.mounted("app:1"):
            raise ZeroDivisionError
    assert kernel.mounts_below(config.graph_root) == []
    assert os.listdir(config.run_root / "asyncpull/overlay-leases") == []


@pytest.mark.root
async def test_what_somebody_unmounts_by_force_is_told(store: Store, config: StoreConfig) -> None:
    await store.create_container(None, "one")
    with pytest.raises(MountError, match="not mounted"):
        async with store.mounted("one"):
            await store.unmount("one", force=True)
    assert os.listdir(config.run_root / "asyncpull/overlay-leases") == []


@pytest.mark.root
async def test_cancelled_at_any_moment_it_leaves_nothing(store: Store, config: StoreConfig) -> None:
    """However far it came: begun, waiting for a lock, mounted, in the body, or unmounting."""
    await store.create_container(None, "one")

    async def work() -> None:
        async with store.mounted("one") as path:
            (path / "written").touch()

    for moment in range(25):
        task = asyncio.create_task(work())
        await asyncio.sleep(moment * 0.0005)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        assert await store.mounts() == []
        assert kernel.mounts_below(config.graph_root) == []
    assert os.listdir(config.run_root / "asyncpull/overlay-leases") == []
