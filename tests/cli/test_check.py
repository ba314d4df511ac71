"""``check`` and ``gc``: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncpull.demo.image import REPOSITORY, demo_image
from asyncpull.demo.registry import DemoRegistry
from tests.support import tars
from tests.support.command import Command
from tests.support.images import image
from tests.support.ordinary_user import UID, OrdinaryUser
from tests.support.registry_simulator import RegistrySimulator
from tests.support.samples import CAPABILITY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest_asyncio.fixture
async def filled(tmp_path: Path) -> AsyncIterator[Command]:
    """The command on a store with the demo image."""
    command = Command(tmp_path)
    async with DemoRegistry([demo_image()]) as registry:
        name = f"{registry.domain}/{REPOSITORY}:latest"
        pulled = await asyncio.to_thread(command, "pull", "-q", "--tls-verify=false", name)
    assert pulled.code == 0
    yield command


def test_clean(filled: Command) -> None:
    quick, full = filled("check", "--quick", "--json"), filled("check", "--json")

    assert (quick.code, full.code) == (0, 0)
    assert full.json()["findings"] == []
    assert (quick.json()["full"], full.json()["full"]) == (False, True)
    plain = filled("check")
    assert (plain.code, plain.out, plain.err) == (0, "", "")


def test_damage_is_told_and_repaired(filled: Command) -> None:
    (link,) = list(filled.root.glob("overlay/*/lower"))[:1]
    link.unlink()
    layer = link.parent.name

    found = filled("check", "--quick")
    assert found.code == 1
    assert found.out == f"layer {layer}: its file lower does not name its parents ({link})\n"
    (finding,) = filled("check", "--json").json()["findings"]
    assert finding == {
        "damage": "lower-wrong",
        "subject": "layer",
        "id": layer,
        "path": str(link),
        "message": "its file lower does not name its parents",
        "remedy": "remake",
        "repairable": True,
        "repaired": False,
    }

    repaired = filled("check", "--repair")
    assert repaired.code == 0
    assert repaired.out == found.out.rstrip() + " [repaired]\n"
    assert filled("check").code == 0


def test_hopeless(filled: Command) -> None:
    (filled.root / "overlay-images/images.json").write_text("[{")

    for options in ((), ("--repair", "--force")):
        ended = filled("check", *options)
        assert ended.code == 1
        assert ended.out.startswith("store: is not JSON")
        assert ended.err == ""


def test_garbage(filled: Command) -> None:
    old = filled.root / "asyncpull/spool" / f"sha256-{'a' * 64}"
    old.mkdir()
    (filled.root / "overlay-images" / ("b" * 64)).mkdir()
    week = time.time() - 7 * 86400
    os.utime(old, (week, week))

    said = filled("gc", "--dry-run")
    assert (said.code, said.out) == (0, f"store: data of an image that is not recorded ({'b' * 64})\n")
    assert old.exists()

    done = filled("gc", "--json")
    assert done.code == 0
    assert [each["damage"] for each in done.json()["removed"]] == ["stray-image-data"]
    assert done.json()["spools"] == 1
    assert not old.exists()
    assert filled("gc").out == ""


@pytest.mark.parametrize("age", ["soon", "", "-1h", "5 weeks"])
def test_an_age_that_is_none(command: Command, age: str) -> None:
    ended = command("check", "--max", age)
    assert ended.code == 64
    assert "is no duration" in ended.err


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
async def test_a_store_of_an_ordinary_user(tmp_path: Path, driver: str) -> None:
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")
    user = OrdinaryUser(tmp_path, f"{UID}:200000:65536\n")
    everything = [
        *(tars.directory(name) for name in ("d", "old")),
        tars.file("d/setuid", b"#!", 0o4755).with_(uid=7, gid=8),
        tars.file("d/capable", b"ping", 0o755).with_(xattrs={"security.capability": CAPABILITY}),
        tars.file("d/marked", b"m").with_(xattrs={"user.comment": b"1", "trusted.comment": b"2"}),
        tars.hard_link("d/linked", "d/setuid", 0o4755).with_(uid=7, gid=8),
        tars.character_device("d/null", 1, 3),
        tars.hard_link("d/null-too", "d/null", 0o666),
        tars.file("old/file", b"x"),
    ]
    wanted = image(
        [tars.tar(everything), tars.tar([tars.directory("old"), tars.opaque("old"), tars.whiteout("d/null")])]
    )
    roots = ("--root", "storage", "--runroot", "run", "--storage-driver", driver)
    async with RegistrySimulator() as registry:
        registry.add_image("a/b", "1", wanted)
        arguments = (*roots, "pull", "-q", "--tls-verify=false", f"{registry.address}/a/b:1")
        ended = await asyncio.to_thread(user.asyncpull, *arguments)
    assert ended.stderr == ""

    ended = user.asyncpull(*roots, "check")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")

    os.chown(next(tmp_path.glob("storage/*/**/d/marked")), 200_005, 200_005)
    ended = user.asyncpull(*roots, "check")
    assert ended.returncode == 1
    assert "its owner is 6:6, expected 0:0" in ended.stdout
    assert user.asyncpull(*roots, "check", "--repair").returncode == 0
    assert user.asyncpull(*roots, "check").stdout == ""
