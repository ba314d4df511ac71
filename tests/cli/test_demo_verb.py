"""``asyncpull demo``: as root and as an ordinary user, with and without a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.ordinary_user import OrdinaryUser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Command

pytestmark = pytest.mark.root

ENTRIES = ["bin", "dev", "etc", "home", "lib", "opt", "proc", "root", "srv", "sys", "tmp", "usr", "var"]


def test_twice(command: Command) -> None:
    for _ in range(2):
        ended = command("demo", "--json", "-q")
        assert (ended.code, ended.err) == (0, "")
        (shown,) = ended.json()
        assert shown["entries"] == ENTRIES
        assert not any(layer["reused"] for layer in shown["layers"])
        assert not os.listdir(shown["mounted"])
    assert len(command("images", "-q").out.splitlines()) == 1
    assert command("mount", "--json").json() == []


def test_bars_on_a_terminal(command: Command) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command.arguments, "demo"],
        env=command.environment({"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how a terminal ends
            break
        drawn += piece
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    text = drawn.decode()
    assert "fetch" in text
    assert "extract" in text
    assert "━" in text
    assert "5/5 layers" in text
    assert "mounted read-only at" in out.decode()
    assert "setuid or setgid: usr/bin/become" in out.decode()


def test_as_an_ordinary_user_with_one_id(tmp_path: Path) -> None:
    user = OrdinaryUser(tmp_path)
    ended = user.asyncpull("demo", "--json", "-q")
    assert ended.stderr == ""
    assert ended.returncode == 0
    (shown,) = json.loads(ended.stdout)
    assert shown["entries"] == ENTRIES
    roots = ("--root", ".demo/storage", "--runroot", ".demo/run")
    assert len(user.asyncpull(*roots, "layers", "-q").stdout.splitlines()) == 5
    assert user.asyncpull(*roots, "create", shown["id"], "--name", "box").returncode == 0
    inside = f"{user.python} -m asyncpull {' '.join(roots)}"
    script = f"cd $({inside} mount box) && echo mine >etc/new && cat etc/motd etc/new"
    seen = user.asyncpull("unshare", "sh", "-c", script)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout == "Pulled by asyncpull, layer by layer.\nmine\n"
    # The mount has gone with its namespace, its count has not: that could be of a shell that is still open.
    assert user.asyncpull(*roots, "rm", "box").returncode == 1
    assert user.asyncpull(*roots, "rm", "--force", "box").returncode == 0
    assert user.asyncpull(*roots, "rmi", shown["id"]).returncode == 0
    assert user.asyncpull(*roots, "layers", "-q").stdout == ""
