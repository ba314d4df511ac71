"""What other stores lend: every damage that matters to a borrower is found, and nothing there is touched.

The damages are those of an own store. What is no matter of a borrower's: layers that nobody needs, directories without
a record, containers.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.check.findings import Damage, Subject
from asyncpull.store.store import Store
from tests.store.made import commit_image, config_at
from tests.support.damages import CASES, ODD, PLAIN, Victim
from tests.support.pulls import bench_at
from tests.support.trees import list_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.store.config import StoreConfig

pytestmark = pytest.mark.root

_NOT_FOR_BORROWERS = {Damage.LAYER_UNREFERENCED, Damage.STRAY_TREE}
_CASES = {
    name: case
    for name, case in CASES.items()
    if case.damage not in _NOT_FOR_BORROWERS and "container" not in name and not case.is_full
}


@pytest.fixture(scope="module")
def sound() -> Iterator[Path]:
    """A store with two images and a container, made once."""
    directory = Path(tempfile.mkdtemp(prefix="s-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def lender(sound: Path, place: Path) -> Path:
    if not (sound / "graph").exists():
        async with bench_at(sound) as bench:
            await bench.puller.pull(bench.offer(ODD, "odd"))
            plain = await bench.puller.pull(bench.offer(PLAIN, "plain"))
            await bench.store.create_container(plain.id, "c")
    subprocess.run(["cp", "-a", sound / "graph", place / "lender"], check=True)
    return place / "lender"


@pytest.fixture
def borrower(lender: Path, place: Path) -> StoreConfig:
    return replace(config_at(place), additional_roots=(lender,))


async def test_what_a_sound_store_lends_is_sound(borrower: StoreConfig) -> None:
    async with Store.open(borrower) as store:
        await store.create_container(ODD.id, "c")
        assert (await store.check(max_age_seconds=0)).findings == ()


@pytest.mark.parametrize("name", _CASES)
async def test_each_damage_is_found_and_left_to_its_owner(borrower: StoreConfig, lender: Path, name: str) -> None:
    case = _CASES[name]
    is_full = name == "digest-off"  # a config that does not fit it any more is what a quick look tells
    case.do(Victim(lender))
    before = list_tree(lender)
    async with Store.open(borrower) as store:
        for repair in (False, True):
            report = await store.check(full=is_full, repair=repair, force=True)
            assert case.damage in {finding.damage for finding in report.findings}
            assert not any(finding.is_repairable or finding.is_repaired for finding in report.findings)
    assert list_tree(lender) == before


@pytest.mark.parametrize(("noun", "record_id"), [("images", PLAIN.id), ("layers", None)])
async def test_a_name_that_two_records_have_is_found(
    borrower: StoreConfig, lender: Path, noun: str, record_id: str | None
) -> None:
    victim = Victim(lender)
    for record in victim.records(noun):
        if record_id is None or record["id"] in (record_id, ODD.id):
            victim.change(noun, record["id"], names=["localhost/same:1"])
    async with Store.open(borrower) as store:
        report = await store.check(full=False)
    subject = Subject.IMAGE if noun == "images" else Subject.LAYER
    found = [finding for finding in report.findings if finding.damage is Damage.DUPLICATE_NAME]
    assert len(found) >= 2
    assert {finding.subject for finding in found} == {subject}


async def test_data_of_a_lent_layer_that_cannot_be_read_is_found(borrower: StoreConfig, lender: Path) -> None:
    victim = Victim(lender)
    victim.change("layers", victim.layer("odd"), big_data_names=["something"])
    async with Store.open(borrower) as store:
        (finding,) = (await store.check(full=False)).findings
    assert (finding.damage, finding.subject, finding.id) == (Damage.DATA_MISSING, Subject.LAYER, victim.layer("odd"))


async def test_what_the_store_has_itself_is_not_looked_at_elsewhere(borrower: StoreConfig, lender: Path) -> None:
    own = {"a": b"a"}
    async with Store.open(config_at(lender.parent / "other")) as other:
        image = await commit_image(other, "localhost/a:1", own)
    config = replace(borrower, additional_roots=(other.config.graph_root,))
    async with Store.open(config) as store:
        shutil.rmtree(other.config.graph_root / "overlay" / str(image.layer) / "diff")
        (finding,) = (await store.check(full=False)).findings
        assert finding.damage is Damage.TREE_MISSING
    async with Store.open(config_at(lender.parent)) as store:
        await commit_image(store, "localhost/a:1", own)
    async with Store.open(config) as store:
        assert (await store.check(full=False)).findings == ()


async def test_the_files_of_an_own_layer_on_lent_ones_are_looked_at_and_made_anew(borrower: StoreConfig) -> None:
    async with Store.open(borrower) as store:
        container = await store.create_container(ODD.id, "c")
        lower = borrower.graph_root / "overlay" / container.layer / "lower"
        whole = lower.read_text()
        lower.write_text(whole[:28])
        (finding,) = (await store.check(full=False)).findings
        assert (finding.damage, finding.path) == (Damage.LOWER_WRONG, str(lower))
        (finding,) = (await store.check(full=False, repair=True)).findings
        assert finding.is_repaired
        assert lower.read_text() == whole


async def test_a_layer_that_has_come_here_too_serves_by_either_name(borrower: StoreConfig, lender: Path) -> None:
    """An own layer names the lent layer that it was put upon, also when the same one is here by now."""
    base = {"base": b"b"}
    async with Store.open(config_at(lender.parent / "other")) as other:
        await commit_image(other, "localhost/a:1", base)
    config = replace(borrower, additional_roots=(other.config.graph_root,))
    async with Store.open(config) as store:
        lent = [layer.id for layer in await store.layers()]
        await commit_image(store, "localhost/b:1", base, {"top": b"t"}, reuse=lent)
    async with Store.open(config_at(lender.parent)) as store:
        await commit_image(store, "localhost/a:1", base)
    async with Store.open(config) as store:
        assert [layer.read_only for layer in await store.layers()] == [False, False]
        assert (await store.check(full=False)).findings == ()
