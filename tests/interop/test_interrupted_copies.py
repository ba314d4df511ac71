"""A copy that is interrupted or killed, at any moment, to every destination: skopeo finds the old image or the new one.

The next copy goes through, leaves nothing besides the image, and to a layout it asks only for what is missing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.journal import read_records
from tests.support import images, tars
from tests.support.command import Command
from tests.support.peers import TIMEOUT, CommandError
from tests.support.registry_faults import stall
from tests.support.registry_simulator import RegistrySimulator
from tests.support.transports import HELD, assert_kept

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.images import Image
    from tests.support.transports import Yard

HALF = 1_000_000
SLACK = 100_000  # what may have been received without having been recorded
SIGNALS = {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
MOMENTS = ["before a layer", "within a layer", "at the commit"]
ALL = [(moment, number) for moment in MOMENTS for number in SIGNALS]
# Each destination meets every moment, and each moment both signals; in full, every combination.
CASES = [(destination, *each) for destination in HELD for each in ALL]
if not os.environ.get("ASYNCPULL_TEST_FULL"):  # each destination in two ways, and each of those with both signals
    CASES = [case for number, case in enumerate(CASES[2:]) if number % 6 in ((0, 3), (1, 2))[number // 6 % 2]]


def image(comment: str, *, architecture: str = "amd64") -> Image:
    layers = [tars.tar([tars.file(comment, images.noise(len(comment), size))]) for size in (20_000, 2 * HALF, 30_000)]
    return images.image(layers, compression="none", architecture=architecture, comment=comment)


@pytest.mark.root
@pytest.mark.parametrize(("destination", "moment", "number"), CASES)
async def test_what_an_interrupted_copy_leaves(
    yard: Yard, tmp_path: Path, destination: str, moment: str, number: signal.Signals
) -> None:
    name = f"{destination}-{MOMENTS.index(moment)}-{number.name.lower()}"
    old, new = image(f"old {name}"), image(f"the new {name}")
    where, size = yard.place(destination, name), sum(len(blob.data) for blob in new.blobs)
    has_old = destination != "docker-archive"  # which is never changed
    if has_old:
        await asyncio.to_thread(yard.offer, destination, name, old)
    async with RegistrySimulator() as registry:
        source = f"docker://{registry.add_image('a/b', '1', new)}"
        command, scratch = Command(tmp_path), {"TMPDIR": str(tmp_path)}
        arguments = ("copy", "--progress=json", *yard.options("src"), *yard.options("dest"), source, where)
        large = new.layers[1].digest
        match moment:
            case "before a layer":
                registry.on(large, stall(0), times=None)
            case "within a layer":
                registry.on(large, stall(HALF), times=None)
        running = await asyncio.create_subprocess_exec(
            *command.arguments, *arguments, env=command.environment(scratch), stderr=subprocess.PIPE
        )
        assert running.stderr is not None
        async with asyncio.timeout(TIMEOUT):
            if moment == "at the commit":
                while b'"commit_started"' not in (line := await running.stderr.readline()):
                    assert line, "it ended before that"
            else:
                await registry.until_asked(large)
                while moment == "within a layer" and recorded(yard.directory, tmp_path) < HALF - SLACK:
                    await asyncio.sleep(0.01)
            running.send_signal(number)
            await running.communicate()
        assert running.returncode in ((SIGNALS[number], 0) if moment == "at the commit" else (SIGNALS[number],))

        found = await asyncio.to_thread(whole, yard, where, [old, new] if moment == "at the commit" else [old])
        assert (found is not None) or not has_old
        registry.heal()
        sent = registry.sent("/blobs/")
        ended = await asyncio.to_thread(command, *arguments, environment=scratch)
        if destination == "docker-archive" and found is new:
            assert ended.code == 73  # it is there, and not changed
        else:
            assert ended.code == 0, ended.err
        if moment == "within a layer":
            assert registry.sent("/blobs/") - sent < size - HALF + SLACK
        assert await asyncio.to_thread(whole, yard, where, [new]) is new
    assert [str(path) for path in yard.directory.rglob(".*asyncpull*")] == []


def recorded(*places: Path) -> int:
    """How many bytes of blobs are kept below some places for the next copy."""
    journals = [path for place in places for path in place.rglob("journal")]
    return sum(len(record.range) for path in journals for record in read_records(path.parent))


def whole(yard: Yard, where: str, expected: list[Image]) -> Image | None:
    """Which of the images skopeo finds there, all of it; None if it finds none."""
    try:
        found = yard.found(where)
    except CommandError:
        return None
    target = next(each for each in expected if each.config.data == found.config)
    transport = where.partition(":")[0]
    assert_kept(found, target, HELD[transport])
    return target
