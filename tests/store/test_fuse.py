"""Stores whose layers a FUSE program mounts: fuse-overlayfs itself, on marks as archives have them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.errors import MountError
from asyncpull.store.containers import ContainerSpec
from asyncpull.store.mounts import MountRequest
from asyncpull.store.store import Store
from asyncpull.tree.marks import Marks
from tests.store.made import commit_image, config_at, leftovers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpull.store.config import StoreConfig

PROGRAM = shutil.which("fuse-overlayfs") or ""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not PROGRAM or not os.path.exists("/dev/fuse"), reason="needs fuse-overlayfs and /dev/fuse"),
]

BASE = {"etc/a": b"a", "etc/gone": b"", "var/old": b""}
TOP = {"etc/.wh.gone": b"", "var/.wh..wh..opq": b"", "var/new": b"new"}


@pytest.fixture
def config(place: Path) -> StoreConfig:
    return replace(config_at(place), mount_program=PROGRAM)


@pytest.fixture
async def store(config: StoreConfig) -> AsyncIterator[Store]:
    async with Store.open(config) as opened:
        yield opened


def kind_of(path: Path) -> str:
    """The type of the file system that is mounted at ``path``."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next(line[line.index("-") + 1] for line in reversed(lines) if line[4] == str(path))


def kill_program_of(path: Path) -> None:
    """Kill the process that serves the mount at ``path``, and wait until the kernel knows."""
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == os.fsencode(PROGRAM) and os.fsencode(path) in words:
            os.kill(int(process), signal.SIGKILL)
    for _ in range(1000):
        try:
            os.statvfs(path)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return
        time.sleep(0.01)
    raise AssertionError(f"the mount at {path} still answers")


async def test_what_layers_delete_is_deleted(store: Store, config: StoreConfig) -> None:
    assert store.marks is Marks.AUFS
    image = await commit_image(store, "localhost/app:1", BASE, TOP)
    async with store.mounted(image) as path:
        assert kind_of(path) == "fuse.fuse-overlayfs"
        assert sorted(os.listdir(path / "etc")) == ["a"]
        assert os.listdir(path / "var") == ["new"]
        with pytest.raises(OSError, match="Read-only"):
            (path / "new").touch()
    assert kernel.mounts_below(config.graph_root) == []


async def test_a_container_keeps_what_is_written(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE, TOP)
    made = await store.create_container("app:1", "one")
    async with store.mounted("one") as path:
        (path / "etc/a").unlink()
        (path / "etc/big").write_bytes(b"x" * (1 << 20))
        assert await store.mount("one") == path
        assert await store.unmount("one") == 1
    assert (store.diff_path(made.layer) / "etc/big").stat().st_size == 1 << 20
    async with store.mounted("one", MountRequest(read_only=True)) as path:
        assert os.listdir(path / "etc") == ["big"]
        with pytest.raises(OSError, match="Read-only"):
            (path / "new").touch()
    await store.remove_container("one")
    assert leftovers(config.graph_root) == []


async def test_many_layers(store: Store) -> None:
    image = await commit_image(store, "localhost/app:1", *({f"n{number}": b""} for number in range(60)))
    await store.create_container(image, "one", spec=ContainerSpec(is_volatile=True, mount_options=("nodev",)))
    async with store.mounted("one") as path:
        assert len(os.listdir(path)) == 60
        (path / "n0").unlink()
        assert len(os.listdir(path)) == 59


async def test_a_program_that_died_is_started_anew(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    await store.create_container("app:1", "one")
    path = await store.mount("one")
    (path / "kept").write_bytes(b"kept")
    kernel.sync_file_system(path)
    kill_program_of(path)
    assert await store.mount("one") == path
    assert (path / "kept").read_bytes() == b"kept"
    assert [record.count for record in await store.mounts()] == [1]
    kill_program_of(path)
    await store.unmount("one")
    assert kernel.mounts_below(config.graph_root) == []


async def test_a_program_that_fails(place: Path) -> None:
    program = place / "program"
    program.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    program.chmod(0o755)
    config = replace(config_at(place), mount_program=str(program))
    async with Store.open(config) as store:
        await store.create_container(None, "one")
        with pytest.raises(MountError, match="no such luck"):
            await store.mount("one")
        assert await store.mounts() == []
        program.unlink()
        with pytest.raises(MountError, match="No such file"):
            await store.mount("one")
        await store.remove_container("one")


async def test_the_whole_store_goes_on_without_the_option(config: StoreConfig, store: Store) -> None:
    """As podman does it: the store says what it is."""
    await commit_image(store, "localhost/app:1", BASE, TOP)
    async with Store.open(replace(config, mount_program="")) as other:
        assert other.marks is Marks.AUFS
        async with other.mounted("app:1") as path:
            assert kind_of(path) == "fuse.fuse-overlayfs"
