"""The protocol of temporary directories: nobody else touches what is held, everybody clears what is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asyncpull.errors import StoreError
from asyncpull.store.tempdirs import GRACE_SECONDS, TempDir, find_abandoned, remove_abandoned

_PROJECT = Path(__file__).parents[2]


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root))


def make_older(root: Path, seconds: float) -> None:
    """Have everything in ``root`` changed so long ago."""
    moment = time.time() - seconds
    for path in root.iterdir():
        os.utime(path, (moment, moment))


def test_a_directory_and_its_lock(tmp_path: Path) -> None:
    root = tmp_path / "tempdirs"
    made = TempDir.create(root)
    assert root.stat().st_mode & 0o7777 == 0o700
    assert made.path.stat().st_mode & 0o7777 == 0o700
    key = made.path.name.removeprefix("temp-dir-")
    assert names(root) == [f"lock-{key}", f"temp-dir-{key}"]
    assert [made.addition().name, made.addition().name] == ["0-addition", "1-addition"]
    made.addition().mkdir()
    made.remove()
    assert names(root) == []  # and the root stays


def test_what_is_held_is_left_alone(tmp_path: Path) -> None:
    first, second = TempDir.create(tmp_path), TempDir.create(tmp_path)
    remove_abandoned(tmp_path)
    assert first.path.is_dir()
    assert second.path.is_dir()
    first.remove()
    second.remove()
    assert names(tmp_path) == []


def test_podman_finds_it_locked(tmp_path: Path) -> None:
    made = TempDir.create(tmp_path)
    program = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    lock = str(made.path).replace("temp-dir-", "lock-")
    assert subprocess.run([sys.executable, "-c", program, lock], capture_output=True, check=False).returncode == 1
    made.remove()


def test_things_are_taken_in(tmp_path: Path) -> None:
    made = TempDir.create(tmp_path / "tempdirs")
    (tmp_path / "layer").mkdir()
    assert made.take(tmp_path / "layer")
    assert not made.take(tmp_path / "layer")
    assert names(made.path) == ["0-layer"]
    made.remove()


def test_what_a_dead_program_left_is_removed(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from asyncpull.store.tempdirs import TempDir
made = TempDir.create(Path(sys.argv[1]))
(made.addition() / "diff/deep").mkdir(parents=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=_PROJECT, check=False)
    assert len(names(tmp_path)) == 2
    remove_abandoned(tmp_path)
    assert names(tmp_path) == []


def test_half_of_what_a_dead_program_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    """Somebody who does not look whether his lock is still there may be making the other half."""
    (tmp_path / "temp-dir-1/0-addition").mkdir(parents=True)
    (tmp_path / "lock-2").touch()
    (tmp_path / "neither").mkdir()
    for age in (0.0, GRACE_SECONDS / 2, -GRACE_SECONDS / 2):
        make_older(tmp_path, age)
        remove_abandoned(tmp_path)
        assert names(tmp_path) == ["lock-2", "neither", "temp-dir-1"]
        assert names(tmp_path / "temp-dir-1") == ["0-addition"]
        assert find_abandoned(tmp_path) == []
    make_older(tmp_path, GRACE_SECONDS + 60)
    assert find_abandoned(tmp_path) == [tmp_path / "temp-dir-1", tmp_path / "lock-2"]
    remove_abandoned(tmp_path)
    assert names(tmp_path) == ["neither"]
    remove_abandoned(tmp_path / "missing")


def test_a_posix_lock_of_another_program_protects_too(tmp_path: Path) -> None:
    (tmp_path / "temp-dir-7").mkdir()
    program = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "lock-7")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        remove_abandoned(tmp_path)
        assert names(tmp_path) == ["lock-7", "temp-dir-7"]
        other.communicate()
    remove_abandoned(tmp_path)
    assert names(tmp_path) == []


def test_many_at_once_never_lose_one_to_the_others(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from asyncpull.store.tempdirs import TempDir, remove_abandoned
root = Path(sys.argv[1])
for _ in range(100):
    made = TempDir.create(root)
    mark = made.addition()
    mark.mkdir()
    remove_abandoned(root)
    assert mark.is_dir(), "taken away while held"
    made.remove()
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=_PROJECT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert names(tmp_path) == []


def test_a_child_that_inherited_the_lock_protects_the_directory(tmp_path: Path) -> None:
    made = TempDir.create(tmp_path)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(made.lock_fd,))
    # As if this process had died: its descriptor goes, without unlocking.
    os.close(os.dup(made.lock_fd))
    descriptor = made.lock_fd
    spare = os.open("/dev/null", os.O_RDONLY)
    os.dup2(spare, descriptor)
    remove_abandoned(tmp_path)
    assert made.path.is_dir()
    child.communicate()
    remove_abandoned(tmp_path)
    assert names(tmp_path) == []
    os.close(spare)
    os.close(descriptor)


@pytest.mark.root
def test_what_cannot_be_deleted_is_left_for_the_next(tmp_path: Path) -> None:
    made = TempDir.create(tmp_path)
    stuck = made.addition()
    stuck.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(stuck)], check=True)
    (stuck / "kept").touch()
    try:
        made.remove()
        assert len(names(tmp_path)) == 2
        assert names(stuck) == ["kept"]  # what is mounted is not ours to delete
    finally:
        subprocess.run(["umount", str(stuck)], check=True)
    remove_abandoned(tmp_path)
    assert names(tmp_path) == []


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        TempDir.create(tmp_path / "none" / "tempdirs")
    assert names(tmp_path) == []
