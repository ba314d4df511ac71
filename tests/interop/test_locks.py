"""Our locks and podman's exclude each other, and die with their holders (format, 13.4, point 7)."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.lockfile import LockMode, LockWait, hearing_waits, locked
from tests.support.filelocks import wait_for_waiter
from tests.support.images import image
from tests.support.peers import TIMEOUT
from tests.support.samples import base_layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

LOCK_FILES = ("overlay-layers/layers.lock", "overlay-images/images.lock")


@contextmanager
def _record_lock(path: Path) -> Iterator[None]:
    """Hold a lock of the kind that podman takes: one that belongs to the process."""
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def pulled(store: SharedStore, registry: Registry) -> str:
    """The ID of an image that is in the store."""
    return store.pull(registry.push("locks/base", "1", image([base_layer()])))


@pytest.mark.parametrize("name", LOCK_FILES)
async def test_podman_waits_for_us(store: SharedStore, pulled: str, name: str) -> None:
    path = store.root / name
    async with locked(path, LockMode.EXCLUSIVE):
        process = store.peer.start(*store.podman_command, "images", "-q", "--no-trunc")
        wait_for_waiter(path, process)
        assert process.poll() is None

    out, _ = process.communicate(timeout=TIMEOUT)
    assert out.strip() == f"sha256:{pulled}"


@pytest.mark.parametrize("name", LOCK_FILES)
def test_we_wait_for_podman(store: SharedStore, registry: Registry, pulled: str, name: str) -> None:
    path = store.root / name
    wanted = image([base_layer()], comment="while locked")
    reference = registry.push("locks/base", "2", wanted)
    with _record_lock(path):
        process = store.start_asyncpull("pull", reference)
        wait_for_waiter(path, process)
        assert process.poll() is None

    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    assert out.strip() == wanted.id
    assert {each["Id"] for each in json.loads(store.podman("images", "--format", "json"))} == {pulled, wanted.id}
    store.check()


async def test_a_podman_that_is_killed_frees_its_locks(store: SharedStore, pulled: str) -> None:
    """While it waits for the lock of the mount counts it has that of the layers; we hear from whom we wait, by name."""
    layers_lock = store.root / "overlay-layers/layers.lock"
    counts_lock = store.run_root / "overlay-layers/mountpoints.lock"
    store.podman("images")  # which makes the run root
    heard: list[LockWait] = []
    async with locked(counts_lock, LockMode.EXCLUSIVE):
        process = store.peer.start(*store.podman_command, "images", "-q")
        await asyncio.to_thread(wait_for_waiter, counts_lock, process)
        with hearing_waits(heard.append, patience=0.01):
            ours = asyncio.create_task(_take(layers_lock))
        while not heard:
            await asyncio.sleep(0.01)
        (holder,) = heard[0].holders
        assert "podman" in holder.command
        assert not ours.done()
        os.kill(holder.pid, signal.SIGKILL)
        await ours
    process.communicate(timeout=TIMEOUT)
    assert store.podman("images", "-q", "--no-trunc") == f"sha256:{pulled}"
    store.check()


async def _take(path: Path) -> None:
    async with locked(path, LockMode.EXCLUSIVE):
        pass
