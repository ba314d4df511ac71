"""The user namespace of an ordinary user."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from asyncpull.cli.namespace import granted_ranges, mapping
from tests.support.ordinary_user import UID, OrdinaryUser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Command

# A namespace that maps many IDs and then allows no more of them, with an ordinary user in it.
FORBIDDEN = """
import ctypes, os, subprocess, sys
ready, begin = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    ctypes.CDLL(None).unshare(0x10000000)
    os.write(ready[1], b"x")
    os.read(begin[0], 1)
    with open("/proc/sys/user/max_user_namespaces", "w") as limit:
        limit.write("0")
    os.setgroups([]), os.setresgid(1000, 1000, 1000), os.setresuid(1000, 1000, 1000)
    os._exit(subprocess.call(sys.argv[1:]))
os.read(ready[0], 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(begin[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_ranges_by_name_and_by_number() -> None:
    text = "somebody:1:2\nuser:100000:65536\n1000:300000:10\nuser:x:5\nuser:5:0\n\n# user:7:7\nuser:9"
    assert granted_ranges(text, ["user", "1000"]) == [(100000, 65536), (300000, 10)]
    assert granted_ranges("", ["user"]) == []
    assert granted_ranges(f"user:1:{'9' * 5000}\nuser:{'9' * 5000}:1", ["user"]) == []


def test_mapping_puts_our_own_id_first() -> None:
    assert mapping(1000, []) == [0, 1000, 1]
    assert mapping(1000, [(100000, 65536), (300000, 10)]) == [0, 1000, 1, 1, 100000, 65536, 65537, 300000, 10]


@pytest.mark.root
def test_one_id_where_nothing_is_granted(tmp_path: Path) -> None:
    ended = OrdinaryUser(tmp_path).asyncpull("unshare", "sh", "-c", "id -u; cat /proc/self/uid_map; env; exit 7")
    lines = ended.stdout.splitlines()
    assert (ended.returncode, lines[0], lines[1].split()) == (7, "0", ["0", str(UID), "1"])
    assert "_CONTAINERS_USERNS_CONFIGURED=done" in lines
    assert f"_CONTAINERS_ROOTLESS_UID={UID}" in lines


@pytest.mark.root
def test_many_ids_where_they_are_granted(tmp_path: Path) -> None:
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")
    user = OrdinaryUser(tmp_path, f"{UID}:200000:1000\n")
    ended = user.asyncpull("unshare", "cat", "/proc/self/uid_map", "/proc/self/gid_map")
    assert ended.stderr == ""
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert rows == [["0", str(UID), "1"], ["1", "200000", "1000"]] * 2


@pytest.mark.root
def test_not_allowed_is_77_and_says_what_would_help(tmp_path: Path) -> None:
    user = OrdinaryUser(tmp_path)
    ended = user.run_as_root(sys.executable, "-c", FORBIDDEN, user.python, "-m", "asyncpull", "unshare", "true")
    assert ended.returncode == 77
    assert "user namespace is missing" in ended.stderr
    assert "max_user_namespaces" in ended.stderr


@pytest.mark.root
def test_a_mount_that_would_not_last_is_refused(tmp_path: Path) -> None:
    ended = OrdinaryUser(tmp_path).asyncpull("mount", "something")
    assert ended.returncode == 77
    assert "asyncpull unshare" in ended.stderr


@pytest.mark.root
def test_root_needs_no_namespace(command: Command) -> None:
    ended = command("unshare", "readlink", "/proc/self/ns/user")
    assert ended.out.strip() == os.readlink("/proc/self/ns/user")
