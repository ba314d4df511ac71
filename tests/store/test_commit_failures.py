"""Commits that fail half-way: a full disk, and writers killed at any moment. Nothing may be left but what was."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asyncpull.errors import NoSpaceError
from asyncpull.store.store import Store
from tests.store.made import commit_image, config_at, leftovers, made, new_image, stage_layers
from tests.support.disks import fill_up

BASE, MIDDLE = {"etc/a": b"a"}, {"etc/b": b"b"}


def _trees(root: Path) -> set[str]:
    return {path.name for path in (root / "overlay").iterdir()} - {"l", "tempdirs", ".has-mount-program"}


@pytest.mark.root
async def test_a_full_disk_leaves_the_store_as_it_was(place: Path) -> None:
    """A small tmpfs, filled up so that the commit fails at ever later points, until there is room for it."""
    root = place / "g"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(root)], check=True)
    failures = 0
    async with Store.open(config_at(place)) as store:
        await commit_image(store, "localhost/old:1", BASE, MIDDLE)
        layers, images = await store.layers(), await store.images()
        for room in range(40):
            async with store.stage() as staging:
                contents = made(BASE, *({"n": b"%d" % number} for number in range(6)))
                image = new_image("localhost/new:1", stage_layers(staging, contents))
                fill_up(root / "filler", room)
                try:
                    await store.commit(staging, image)
                except NoSpaceError:
                    failures += 1
                else:
                    break
                finally:
                    (root / "filler").unlink()
            assert leftovers(root) == []
            assert await store.layers() == layers
            assert await store.images() == images
            assert b"flags" not in (root / "overlay-layers/layers.json").read_bytes()
            assert set(os.listdir(root / "overlay-images")) == {"images.json", "images.lock", images[0].id}
            assert _trees(root) == {layer.id for layer in layers}
            assert len(os.listdir(root / "overlay/l")) == 2
    assert failures > 2
    assert len(await _images(place)) == 2


async def _images(place: Path) -> list[str]:
    async with Store.open(config_at(place)) as store:
        return [image.id for image in await store.images()]


_WRITER = """
import asyncio, sys
from pathlib import Path
from asyncpull.store.store import Store
from tests.store.made import commit_image, config_at

async def main(place, start):
    async with Store.open(config_at(Path(place))) as store:
        print("ready", flush=True)
        for turn in range(1000):
            number = int(start) + turn
            contents = [{"shared": b"s"}, *({"n": b"%d.%d" % (number, n)} for n in range(5))]
            await commit_image(store, f"localhost/app:{number}", *contents, remark=str(number))
            if turn % 3 == 2:
                await store.remove_image(f"localhost/app:{number - 1}")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_killed_at_any_moment_the_store_heals(place: Path) -> None:
    """A writer that commits and removes without pause is killed, again and again; whatever it left must be sound."""
    config = config_at(place)
    chance = random.Random(2)
    for turn in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(place), str(turn * 1000)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        # The moment itself is what is tried; nothing waits for it to have an effect.
        await asyncio.sleep(chance.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        async with Store.open(config) as store:
            await _require_sound(store, config.graph_root)
            await commit_image(store, "localhost/afterwards:1", BASE)
            assert _left(config.graph_root) == []
            await _require_sound(store, config.graph_root)


def _left(root: Path) -> list[str]:
    """What is left over, but for locks without directories, whose makers may be about to make them (tempdirs, 5)."""
    found = leftovers(root)
    return [name for name in found if "/lock-" not in name or name.replace("/lock-", "/temp-dir-") in found]


async def _require_sound(store: Store, root: Path) -> None:
    layers = {layer.id: layer for layer in await store.layers()}
    # A half-written file is ignored by everybody, and swept away by whoever writes next.
    assert [name for name in _left(root) if "/.tmp-" not in name] == []
    for image in await store.images():
        layer = image.layer
        while layer is not None:
            assert (root / f"overlay/{layer}/diff").is_dir()
            assert (root / f"overlay-layers/{layer}.tar-split.gz").is_file()
            layer = layers[layer].parent
        for key, size in image.big_data_sizes.items():
            assert len(await store.big_data(image, key)) == size
    assert _trees(root) == set(layers)
    assert len(os.listdir(root / "overlay/l")) == len(layers)
