"""Mounts of a store: counted, shared, private, never buried; and gone without a trace afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from asyncpull import kernel
from asyncpull.errors import InUseError, MountError, NotInStoreError, StoreCorruptError
from asyncpull.lockfile import LockMode, locked
from asyncpull.store.containers import ContainerSpec
from asyncpull.store.mounts import MountRequest
from asyncpull.store.records import format_json, parse_array
from asyncpull.store.store import Store
from tests.store.made import GOLDEN, commit_image, config_at, leftovers
from tests.support.filelocks import waiters

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig

pytestmark = pytest.mark.root

BASE, TOP = {"etc/a": b"a"}, {"etc/b": b"b"}


def counts(config: StoreConfig) -> dict[str, int]:
    path = config.run_root / "overlay-layers/mountpoints.json"
    return {entry["id"]: entry["count"] for entry in orjson.loads(path.read_bytes())} if path.exists() else {}


def mounts_of(config: StoreConfig) -> list[str]:
    return kernel.mounts_below(config.graph_root)


def test_podmans_counts_are_written_back_as_they_were() -> None:
    data = (GOLDEN / "mountpoints.json").read_bytes()
    assert format_json(parse_array(data, "x")) == data


async def test_a_container_is_written_to_and_keeps_it(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE, TOP)
    made = await store.create_container("app:1", "one")
    path = await store.mount("one")
    assert path == config.graph_root / "overlay" / made.layer / "merged"
    assert (path / "etc/a").read_bytes() == b"a"
    (path / "etc/b").unlink()
    (path / "etc/new").write_bytes(b"new")
    assert await store.unmount("one") == 0
    assert mounts_of(config) == []
    assert os.listdir(path) == []
    async with store.mounted(made) as again:
        assert again == path
        assert sorted(os.listdir(path / "etc")) == ["a", "new"]
    assert mounts_of(config) == []


async def test_an_image_is_read_only(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE, TOP)
    for target in (record, "app:1", record.id[:12], str(record.layer)):
        async with store.mounted(target) as path:
            assert sorted(os.listdir(path / "etc")) == ["a", "b"]
            with pytest.raises(OSError, match="Read-only"):
                (path / "etc/new").touch()
    assert counts(config) == {}


async def test_an_image_of_one_layer(store: Store) -> None:
    async with store.mounted(await commit_image(store, "localhost/app:1", BASE)) as path:
        assert os.listdir(path) == ["etc"]


async def test_mounts_are_counted(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    made = await store.create_container("app:1", "one")
    for number in (1, 2, 3):
        await store.mount("one")
        assert counts(config) == {made.layer: number}
    (record,) = await store.mounts()
    assert (record.layer, record.count) == (made.layer, 3)
    assert record.path == config.graph_root / "overlay" / made.layer / "merged"
    assert await store.unmount(record) == 2
    assert await store.unmount("one", force=True) == 0
    assert mounts_of(config) == []
    assert counts(config) == {}
    with pytest.raises(MountError, match="not mounted"):
        await store.unmount("one")


async def test_others_see_the_counts_and_we_see_theirs(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    await store.create_container("app:1", "one")
    async with Store.open(config) as other:
        path = await store.mount("one")
        assert await other.mount("one") == path
        assert await store.unmount("one") == 1
        assert kernel.is_mount_point(path)
        assert await other.unmount("one") == 0
    token = (config.run_root / "overlay-layers/mountpoints.lock").read_bytes()
    assert len(token) == 64


async def test_the_drivers_directory_is_private_while_something_is_mounted(store: Store, config: StoreConfig) -> None:
    home = config.graph_root / "overlay"
    await commit_image(store, "localhost/app:1", BASE)
    await store.create_container("app:1", "one")
    await store.create_container("app:1", "two")
    token = (config.graph_root / "storage.lock").read_bytes() if (config.graph_root / "storage.lock").exists() else b""
    await store.mount("one")
    await store.mount("two")
    assert kernel.is_mount_point(home)
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {home} " in line]
    assert "shared:" not in line
    await store.unmount("one")
    assert kernel.is_mount_point(home)
    await store.unmount("two")
    assert not kernel.is_mount_point(home)
    assert (config.graph_root / "storage.lock").read_bytes() != token  # running services are told to bind again


async def test_another_program_that_starts_does_not_bury_our_mount(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    path = await store.mount("app:1")
    home = config.graph_root / "overlay"
    if not kernel.is_mount_point(home):  # podman binds only if nobody has
        kernel.mount(str(home), home, "none", kernel.MS_BIND)
    kernel.mount("", home, "none", kernel.MS_PRIVATE)
    assert os.listdir(path) == ["etc"]


async def test_a_pull_that_goes_on_does_not_keep_the_binding(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    async with store.stage() as staging:
        await store.mount("app:1")
        staged = staging.new_layer(None)
        with (staged.diff / "file").open("wb") as file:
            await store.unmount("app:1")
            assert mounts_of(config) == []
            file.write(b"still")
        assert (staged.diff / "file").read_bytes() == b"still"
    assert leftovers(config.graph_root) == []


async def test_a_mount_that_nobody_counts_keeps_the_binding(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    await store.mount("app:1")
    uncounted = config.graph_root / "overlay/tempdirs/elsewhere"
    uncounted.mkdir()
    kernel.mount("tmpfs", uncounted, "tmpfs", 0)
    await store.unmount("app:1")
    assert kernel.is_mount_point(uncounted)
    kernel.unmount(uncounted)
    uncounted.rmdir()
    await store.mount("app:1")
    await store.unmount("app:1")
    assert mounts_of(config) == []


async def test_a_file_system_of_its_own_stays(place: Path) -> None:
    config = config_at(place)
    (config.graph_root / "overlay").mkdir(parents=True)
    kernel.mount("tmpfs", config.graph_root / "overlay", "tmpfs", 0)
    async with Store.open(config) as store:
        await commit_image(store, "localhost/app:1", BASE)
        async with store.mounted("app:1"):
            pass
    assert mounts_of(config) == [str(config.graph_root / "overlay")]


async def test_a_count_without_a_mount_begins_anew(store: Store, config: StoreConfig) -> None:
    """As after the end of the mount namespace in which it was mounted."""
    record = await commit_image(store, "localhost/app:1", BASE)
    path = await store.mount(record)
    await store.mount(record)
    kernel.unmount(path)
    assert counts(config) == {str(record.layer): 2}
    assert await store.mount(record) == path
    assert counts(config) == {str(record.layer): 1}
    assert await store.unmount(record) == 0


async def test_what_is_gone_already_is_only_counted_down(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    kernel.unmount(await store.mount(record))
    assert await store.unmount(record) == 0
    assert counts(config) == {}


async def test_a_mount_without_a_count_is_adopted(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    path = await store.mount(record)
    (config.run_root / "overlay-layers/mountpoints.json").unlink()
    assert await store.mount(record) == path
    assert await store.unmount(record) == 0
    assert mounts_of(config) == []


async def test_what_is_mounted_is_not_removed_without_force(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    await store.create_container("app:1", "one")
    path = await store.mount("one")
    (path / "written").touch()
    with pytest.raises(InUseError, match="mounted at"):
        await store.remove_container("one")
    await store.remove_container("one", force=True)
    await store.mount(record)
    with pytest.raises(InUseError, match="mounted at"):
        await store.remove_image("app:1")
    await store.remove_image("app:1", force=True)
    assert mounts_of(config) == []
    assert counts(config) == {}
    assert await store.layers() == []


async def test_targets_that_cannot_be_mounted(store: Store) -> None:
    empty = await commit_image(store, "localhost/empty:1")
    with pytest.raises(MountError, match="no layers"):
        await store.mount(empty)
    with pytest.raises(NotInStoreError, match="nothing"):
        await store.mount("nothing")
    record = await commit_image(store, "localhost/app:1", BASE)
    await store.remove_image(record)
    with pytest.raises(NotInStoreError):
        await store.mount(record)


async def test_broken_counts_are_reported_and_kept(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    path = config.run_root / "overlay-layers/mountpoints.json"
    await store.mounts()
    path.write_bytes(b'[{"id":5}]')
    with pytest.raises(StoreCorruptError):
        await store.mount(record)
    assert path.read_bytes() == b'[{"id":5}]'


async def test_volatile_containers_can_be_mounted_again_and_again(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    made = await store.create_container("app:1", "one")
    path = config.graph_root / "overlay-containers/containers.json"
    (raw,) = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps([{**raw, "flags": {"Volatile": True, "MountOpts": ["noatime"]}}]))
    for _ in range(2):
        async with store.mounted("one") as merged:
            (merged / "file").write_bytes(b"x")
            lines = Path("/proc/self/mountinfo").read_text().splitlines()
            (line,) = [line for line in lines if f" {merged} " in line]
            assert "volatile" in line
            assert "noatime" in line
            # As after a crash: overlay would refuse a second volatile mount.
    assert made.layer


async def test_tall_images_and_a_container_on_one(store: Store, config: StoreConfig) -> None:
    tall = [{f"n{number}": b"%d" % number} for number in range(499)]
    record = await commit_image(store, "localhost/tall:1", *tall)
    async with store.mounted(record) as path:
        assert len(os.listdir(path)) == 499
    await store.create_container(record, "one")
    async with store.mounted("one") as path:
        assert len(os.listdir(path)) == 499
        (path / "n0").unlink()
    assert mounts_of(config) == []


async def test_unmounted_when_the_body_fails_or_is_cancelled(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    with pytest.raises(ZeroDivisionError):
        async with store.mounted(record):
            raise ZeroDivisionError
    assert mounts_of(config) == []

    async def hold() -> None:
        async with store.mounted(record):
            await asyncio.Event().wait()

    for _ in range(3):
        holder = asyncio.create_task(hold())
        while not counts(config):
            await asyncio.sleep(0.001)
        holder.cancel()
        await asyncio.sleep(0)
        holder.cancel()  # also while it cleans up
        await asyncio.wait([holder])
        assert holder.cancelled()
        assert mounts_of(config) == []


async def test_cancelled_at_any_moment_nothing_stays_mounted(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    outcomes = set()
    for delay in range(50):
        job = asyncio.create_task(store.mount(record))
        for _ in range(delay):
            await asyncio.sleep(0.0001)
        job.cancel()
        await asyncio.wait([job])
        outcomes.add(job.cancelled())
        if not job.cancelled():
            await store.unmount(record)
        assert mounts_of(config) == []
        assert counts(config) == {}
    assert True in outcomes


async def test_cancelled_while_it_waits_for_another_program(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/app:1", BASE)
    lock = config.graph_root / "storage.lock"
    async with locked(lock, LockMode.EXCLUSIVE):
        job = asyncio.create_task(store.mount(record))
        while waiters(lock) == 0:
            await asyncio.sleep(0.001)
        job.cancel()
        await asyncio.wait([job])
    assert mounts_of(config) == []
    async with store.mounted(record):
        pass


def test_where_nobody_may_mount_there_is_a_next_step(place: Path) -> None:
    """An ordinary user, in no user namespace, whose layers hold no files of others."""
    program = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from asyncpull.errors import MountError
from asyncpull.store.config import StoreConfig
from asyncpull.store.store import Store
from tests.store.made import commit_image
os.setgroups([]); os.setgid(1000); os.setuid(1000)

async def main(place):
    options = {"ignore_chown_errors": "true"}
    async with Store.open(StoreConfig(place / "g", place / "r", rootless=True, options=options)) as store:
        await commit_image(store, "localhost/app:1", {"etc/a": b"a"})
        try:
            async with store.mounted("app:1"):
                print("mounted")
        except MountError as error:
            print(error.hint)
        await store.remove_image("app:1")

asyncio.run(main(Path(sys.argv[1])))
"""
    place.chmod(0o777)
    project = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, str(place), project], capture_output=True, text=True, check=False
    )
    assert "unshare" in done.stdout, done.stderr
    assert leftovers(place / "g") == []


def test_an_ordinary_user_mounts_in_a_user_namespace(place: Path) -> None:
    """With one mapped ID, as `unshare -Urm` gives it; the marks of overlay are then extended attributes of users."""
    program = """
import asyncio, ctypes, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from asyncpull.store.config import StoreOverrides, load_config
from asyncpull.store.store import Store
from tests.store.made import commit_image
os.setgroups([]); os.setgid(1000); os.setuid(1000)
NEWNS, NEWUSER, SET_DUMPABLE = 0x20000, 0x10000000, 4
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(SET_DUMPABLE, 1)  # or /proc/self would still be root's
if libc.unshare(NEWNS | NEWUSER):
    print("skip", os.strerror(ctypes.get_errno()))
    sys.exit()
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text("0 1000 1")
Path("/proc/self/gid_map").write_text("0 1000 1")

async def main(place):
    config = load_config({"HOME": str(place)}, overrides=StoreOverrides(place / "g", place / "r"))
    assert config.rootless
    async with Store.open(config) as store:
        await commit_image(store, "localhost/app:1", {"etc/a": b"a"}, {"b": b"b"})
        await store.create_container("app:1", "one")
        async with store.mounted("one") as merged:
            options = [line for line in open("/proc/self/mountinfo") if f" {merged} " in line]
            assert "userxattr" in options[0], options
            (merged / "etc/a").unlink()
            print(sorted(os.listdir(merged)), os.listdir(merged / "etc"))
        async with store.mounted("app:1") as merged:
            print(os.listdir(merged / "etc"))
        await store.remove_image("app:1", force=True)
        print(await store.layers())

asyncio.run(main(Path(sys.argv[1])))
"""
    os.chown(place, 1000, 1000)
    command = [sys.executable, "-c", program, str(place), str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout.startswith("skip"):
        pytest.skip(f"an ordinary user gets no user namespace here: {done.stdout[5:]}")
    assert done.stdout.splitlines() == ["['b', 'etc'] []", "['a']", "[]"], done.stderr
    assert leftovers(place / "g") == []


async def test_a_container_read_only(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    await store.create_container("app:1", "one")
    await store.create_container("app:1", "ro", spec=ContainerSpec(mount_options=("ro", "noexec")))
    async with store.mounted("one") as path:
        (path / "written").write_bytes(b"x")
    for target, request in (("one", MountRequest(read_only=True)), ("one", MountRequest(words=("ro",))), ("ro", None)):
        async with store.mounted(target, request) as path:
            assert (path / "written").exists() == (target == "one")
            with pytest.raises(OSError, match="Read-only"):
                (path / "new").touch()
            assert bool(os.statvfs(path).f_flag & os.ST_NOEXEC) == (target == "ro")
    assert counts(config) == {}


async def test_what_is_mounted_read_only_is_not_handed_out_as_writable(store: Store, config: StoreConfig) -> None:
    await commit_image(store, "localhost/app:1", BASE)
    made = await store.create_container("app:1", "one")
    for first, second in ((MountRequest(read_only=True), None), (None, MountRequest(read_only=True))):
        await store.mount("one", first)
        with pytest.raises(MountError, match="already") as caught:
            await store.mount("one", second)
        assert caught.value.hint
        assert counts(config) == {made.layer: 1}
        await store.unmount("one")
    assert mounts_of(config) == []


async def test_options_replace_the_recorded_ones(store: Store) -> None:
    await store.create_container(None, "one", spec=ContainerSpec(mount_options=("nosuid",)))
    flags = []
    for request in (None, MountRequest(words=("nodev",))):
        async with store.mounted("one", request) as path:
            flags.append(os.statvfs(path).f_flag & (os.ST_NOSUID | os.ST_NODEV))
    assert flags == [os.ST_NOSUID, os.ST_NODEV]


@pytest.mark.skipif(kernel.has_selinux(), reason="this kernel has SELinux, and takes only labels of its policy")
async def test_labels_mean_nothing_without_selinux(store: Store) -> None:
    label = "system_u:object_r:container_file_t:s0:c1"
    made = await store.create_container(None, "one", spec=ContainerSpec(mount_label=label, process_label=label))
    assert (await store.layer(made.layer)).mount_label == label
    async with store.mounted("one", MountRequest(label=label)) as path:
        (path / "written").touch()


async def test_volatile_containers_are_mounted_without_syncs(store: Store) -> None:
    await store.create_container(None, "one", spec=ContainerSpec(is_volatile=True))
    for _ in range(2):
        async with store.mounted("one") as path:
            (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {path} " in line]
            assert "volatile" in line
