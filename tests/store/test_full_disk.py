"""A disk that is full: whatever is asked of a store then fails and leaves it as it was, or is done.

The disk is a small tmpfs, on which each thing is tried with ever more room until there is enough. The records are long
enough for some of them to fit in where others do not.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import NoSpaceError
from asyncpull.store.containers import ContainerSpec
from asyncpull.store.store import Store
from tests.store.made import MadeLayer, commit_image, config_at, everything_in, leftovers, new_image, stage_layers
from tests.support.disks import PAGE, fill_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from asyncpull.store.config import StoreConfig

pytestmark = pytest.mark.root

OLD, OTHER = {"etc/a": b"a"}, {"etc/b": b"b"}


async def _commit_anew(store: Store) -> object:
    """The same image through another manifest, which takes the place of the one that is there."""
    async with store.stage() as staging:
        ids = [layer.id for layer in await store.layers()]
        image = new_image("localhost/other:2", stage_layers(staging, [MadeLayer(OLD), MadeLayer(OTHER)], reuse=ids))
        (config_key, config), *_ = image.big_data
        manifest = json.dumps(
            {"schemaVersion": 2, "config": {"digest": config_key}, "comment": "x" * 3 * PAGE}
        ).encode()
        items = ((config_key, config), ("manifest", manifest))
        return await store.commit(staging, replace(image, big_data=items))


VERBS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "commit": lambda store: commit_image(store, "localhost/new:1", {"n": b"n"}, {"m": b"m"}),
    "commit-anew": _commit_anew,
    "tag": lambda store: store.tag("old:1", "localhost/more:1"),
    "untag": lambda store: store.untag("old:1", "localhost/old:1"),
    "remove-image": lambda store: store.remove_image("old:1"),
    "create": lambda store: store.create_container("old:1", "new", spec=ContainerSpec(big_data=(("k", b"v"),))),
    "data": lambda store: store.set_container_data("c", {"kept": b"new" * PAGE, "more": b"more" * PAGE}),
    "remove-container": lambda store: store.remove_container("c"),
}


@pytest.fixture
def config(place: Path) -> StoreConfig:
    config = config_at(place)
    config.graph_root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,nr_inodes=600", "tmpfs", config.graph_root], check=True)
    return config


def _lengthen(path: Path, pages: int) -> None:
    """Have the first record of a file take so many pages."""
    records = json.loads(path.read_bytes())
    records[0]["metadata"] = " " * pages * PAGE
    path.write_text(json.dumps(records))


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
@pytest.mark.parametrize("longest", ["layers", "images", "containers"])
async def test_it_is_done_or_nothing_is(
    config: StoreConfig, verb: Callable[[Store], Awaitable[object]], longest: str
) -> None:
    root = config.graph_root
    filler = root / "filler"
    async with Store.open(config) as store:
        await commit_image(store, "localhost/old:1", OLD)
        other = await commit_image(store, "localhost/other:1", OLD, OTHER)
        container = await store.create_container(other, "c")
        await store.set_container_data(container, {"kept": b"old"})
        async with store.stage():
            pass  # so that there is a place for temporary things
        _lengthen(root / f"overlay-{longest}/{longest}.json", 9)
        before = everything_in(root)
        for room in range(60):
            fill_up(filler, room)
            try:
                await verb(store)
            except (NoSpaceError, OSError):  # the latter from what the test itself stages
                filler.unlink()
                assert leftovers(root) == []
                assert everything_in(root) == before
            else:
                break
        filler.unlink()
        assert room > 0
        assert leftovers(root) == []
        assert everything_in(root) != before
        assert (await store.check(full=False)).findings == ()


async def test_a_container_is_unmounted_and_removed_where_not_even_a_directory_can_be_made(config: StoreConfig) -> None:
    async with Store.open(config) as store:
        image = await commit_image(store, "localhost/old:1", OLD)
        container = await store.create_container(image, "c")
        await store.mount(container)
        taken = 0
        try:
            while True:
                (config.graph_root / f"taken-{taken}").touch()
                taken += 1
        except OSError:
            pass

        assert await store.unmount(container) == 0

        assert await store.mounts() == []
        for number in range(taken):
            (config.graph_root / f"taken-{number}").unlink()
        await store.remove_container(container)
