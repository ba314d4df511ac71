"""The verbs that tell what changed, and take layers and containers out of the store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncpull.store.config import StoreConfig
from asyncpull.store.store import Store
from tests.store.archived import put_archives
from tests.support.command import Command
from tests.support.tars import directory, file, tar, whiteout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.root

BASE = tar([directory("etc"), file("etc/a", b"a"), file("etc/b", b"b"), directory("run"), file("bin", b"x" * 3000)])
TOP = tar([directory("etc"), whiteout("etc/a"), file("etc/c", b"c")])
NAME = "localhost/made:1"


@pytest_asyncio.fixture
async def filled(tmp_path: Path) -> AsyncIterator[Command]:
    """The command on a store with an image of two layers, and a container ``c`` that has changed something."""
    command = Command(tmp_path)
    async with Store.open(StoreConfig(command.root, command.run_root, rootless=False)) as store:
        image = await put_archives(store, [BASE, TOP], NAME)
        container = await store.create_container(image, "c")
        async with store.mounted(container) as rootfs:
            (rootfs / "etc" / "b").unlink()
            (rootfs / "etc" / "hosts").write_text("made for a mount")
            os.close(os.open(os.fsencode(rootfs / "etc") + b"/odd \xff\n\x1b[2J", os.O_CREAT))
    yield command
    await asyncio.to_thread(command, "unmount", "--all", "--force")


def raw(command: Command, *arguments: str) -> bytes:
    return subprocess.run([*command.arguments, *arguments], capture_output=True, check=True, timeout=60).stdout


def test_diff_leaves_out_what_a_runtime_makes_and_changes_does_not(filled: Command) -> None:
    odd = b"A /etc/odd \xff\\n\\x1b[2J\n"
    assert raw(filled, "diff", "c") == b"C /etc\nD /etc/b\n" + odd
    assert raw(filled, "changes", "c") == b"C /etc\nD /etc/b\nA /etc/hosts\n" + odd
    assert filled("diff", NAME).out == "C /etc\nD /etc/a\nA /etc/c\n"
    assert filled("diff", "--json", NAME).json() == {"changed": ["/etc"], "deleted": ["/etc/a"], "added": ["/etc/c"]}
    assert raw(filled, "diff", NAME, "c").splitlines()[1] == b"A /etc/b"
    assert filled("diff", "c", "nothing").code == 2


def test_export_writes_a_whole_file_or_none(filled: Command, tmp_path: Path) -> None:
    assert raw(filled, "export", NAME) == TOP
    target = tmp_path / "out" / "layer.tar"
    target.parent.mkdir()
    target.write_bytes(b"older")
    assert filled("export", "-o", str(target), NAME).code == 0
    assert target.read_bytes() == TOP
    (inside,) = filled.root.glob("overlay/*/diff/etc/c")
    inside.write_bytes(b"C")
    ended = filled("export", "-o", str(target), NAME)
    assert ended.code == 65
    assert "etc/c" in ended.err
    assert target.read_bytes() == TOP
    assert os.listdir(target.parent) == ["layer.tar"]
    assert filled("export", "-o", str(tmp_path / "not" / "there"), "c").code == 73
    assert filled("export", "nothing").code == 2


def test_export_leaves_a_device_what_it_is(filled: Command, tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o020666, os.makedev(1, 3))
    assert filled("export", "-o", str(device), NAME).code == 0
    assert device.is_char_device()


def test_commit(filled: Command) -> None:
    options = ("-a", "me", "-m", "why", "-c", "USER=app", "--created", "2026-01-02T03:04:05Z")
    made = filled("commit", *options, "c", "new", "quay.io/x/y").out.strip()
    again = filled("commit", *options, "--json", "c").json()
    assert again["id"] == made
    assert again["names"] == ["localhost/new:latest", "quay.io/x/y:latest"]
    config = json.loads(filled("inspect", "--config", "containers-storage:localhost/new").out)
    assert (config["author"], config["config"]["User"], config["history"][-1]["comment"]) == ("me", "app", "why")
    archive = raw(filled, "export", made)
    assert config["rootfs"]["diff_ids"][-1] == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert filled("check").code == 0
    assert filled("commit", "-c", "RUN x", "c").code == 64
    assert filled("commit", "nothing").code == 2
