"""Every kind of damage: found, by its name; then repaired, or said to be beyond repair; and nothing else lost."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.store import Store
from tests.store.made import config_at, leftovers
from tests.support.damages import CASES, ODD, PLAIN, Case, Victim
from tests.support.pulls import bench_at
from tests.support.trees import TreeEntry, list_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.store.config import StoreConfig

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def sound() -> Iterator[Path]:
    """A store with two images and a container, made once."""
    directory = Path(tempfile.mkdtemp(prefix="s-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def config(sound: Path, place: Path) -> StoreConfig:
    if not (sound / "graph").exists():
        async with bench_at(sound) as bench:
            await bench.puller.pull(bench.offer(ODD, "odd"))
            plain = await bench.puller.pull(bench.offer(PLAIN, "plain"))
            await bench.store.create_container(plain.id, "c")
    subprocess.run(["cp", "-a", sound / "graph", place / "g"], check=True)
    return config_at(place)


def _files(root: Path) -> dict[str, TreeEntry]:
    """All that is in a store, but for what a look at it may change: locks, and where temporary things are made."""
    return {
        path: entry
        for path, entry in list_tree(root).items()
        if not path.endswith(".lock") and path not in ("overlay/tempdirs", "overlay-layers/tmp")
    }


def _content(root: Path) -> dict[str, TreeEntry]:
    """All that is in the trees of layers, to the last bit."""
    return {
        f"{diff.parent.name}/{path}": entry
        for diff in root.glob("overlay/*/diff")
        for path, entry in list_tree(diff).items()
        if path != "." and not (stat.S_ISCHR(entry.mode) and entry.device == 0)
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_found_and_repaired(config: StoreConfig, case: Case) -> None:
    root = config.graph_root
    async with Store.open(config) as store:
        assert (await store.check(max_age_seconds=0)).findings == ()
        sound = _content(root)
        case.do(Victim(root))
        before = _files(root)

        quick = await store.check(full=False, max_age_seconds=0)
        report = await store.check(max_age_seconds=0)

        assert case.damage in {finding.damage for finding in report.findings}
        assert quick.is_clean == case.is_full
        assert _files(root) == before, "a check changes nothing"

        repaired = await store.check(repair=True, max_age_seconds=0)

        assert {each.damage for each in repaired.findings} == {each.damage for each in report.findings}
        assert repaired.is_clean == (not case.is_hopeless and not case.force)
        if case.force:
            repaired = await store.check(repair=True, force=True, max_age_seconds=0)
            assert repaired.is_clean
        if case.is_hopeless:
            assert _files(root) == before
            assert not any(each.is_repairable for each in repaired.findings)
            return
        assert {image.id for image in await store.images()} == case.images
        assert len(await store.containers()) == (0 if case.force else 1)
        assert (await store.check(max_age_seconds=0)).findings == ()
        assert leftovers(root) == []
        if len(case.images) == 2 and not case.force:
            assert _content(root) == sound
