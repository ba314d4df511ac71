"""``check`` and ``gc``: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncpull.demo.image import REPOSITORY, demo_image
from asyncpull.demo.registry import DemoRegistry
from tests.support.command import Command

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
