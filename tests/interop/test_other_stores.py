"""Stores in more than one place, beside podman: additional image stores, images kept apart, transient stores.

Point 14 of the format's list (13.4) is here: our store as an additional image store of another podman's root.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.samples import base_layer, odd_layer
from tests.support.stores import SharedStore, workplace
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer
pytestmark = pytest.mark.root


@pytest.fixture
def references(registry: Registry) -> tuple[str, str]:
    """An image, and another one with a layer more."""
    base = [base_layer(), odd_layer()]
    more = image([*base, tar([directory("etc"), file("etc/more", b"m\n")])], comment="more")
    return registry.push("places/base", "1", image(base)), registry.push("places/more", "1", more)


def _everything(root: Path) -> dict[str, bytes]:
    """The records of a store, and what tells whether somebody wrote there."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.glob("overlay-*/*s.json")}
    return found | {f"overlay/{path.name}": b"" for path in (root / "overlay").glob("?" * 64)}


def _borrowing(new_store: Callable[[str], SharedStore], lender: SharedStore) -> SharedStore:
    return replace(new_store("own"), options=("--storage-opt", f"overlay.imagestore={lender.root}"))


def test_podman_borrows_from_our_store(new_store: Callable[[str], SharedStore], references: tuple[str, str]) -> None:
    lender = new_store("lender")
    image_id = lender.pull(references[0])
    before = _everything(lender.root)
    own = _borrowing(new_store, lender)

    (listed,) = json.loads(own.podman("images", "--format", "json"))
    assert (listed["Id"], listed["ReadOnly"]) == (image_id, True)
    own.podman("create", "--name", "c", "--network", "none", references[0], "sh")
    mounted = own.podman("mount", "c")
    assert mounted
    own.podman("umount", "c")
    own.podman("rm", "c")
    own.podman_pull(references[1])
    assert len(own.layer_records()) == 1
    assert _everything(lender.root) == before


def test_we_borrow_from_podmans_store_and_podman_from_both(
    new_store: Callable[[str], SharedStore], references: tuple[str, str]
) -> None:
    lender = new_store("lender")
    image_id = lender.podman_pull(references[0])
    before = _everything(lender.root)
    own = _borrowing(new_store, lender)

    (listed,) = json.loads(own.asyncpull("images", "--json"))
    assert (listed["id"], listed["read_only"]) == (image_id, True)
    refused = own.run_asyncpull("rmi", references[0])
    assert (refused.returncode, "additional image store" in refused.stderr) == (73, True)
    container = own.asyncpull("create", references[0], "--name", "c")
    path = own.asyncpull("mount", "c")
    assert path.startswith(str(own.root))
    own.asyncpull("unmount", "c")
    own.podman("mount", "c")
    own.podman("umount", "c")
    own.asyncpull("rm", container)
    more = own.pull(references[1])
    assert len(own.layer_records()) == 1
    assert own.podman("image", "inspect", "--format", "{{.Id}}", references[1]) == more
    own.podman("create", "--name", "d", "--network", "none", references[1], "sh")
    own.podman("mount", "d")
    own.podman("umount", "d")
    own.podman("rm", "d")
    assert own.asyncpull("check") == ""
    own.check()
    assert _everything(lender.root) == before


def test_a_pull_of_an_image_whose_layers_are_all_lent_writes_only_its_record(
    new_store: Callable[[str], SharedStore], registry: Registry, references: tuple[str, str]
) -> None:
    lender = new_store("lender")
    lender.podman_pull(references[0])
    own = _borrowing(new_store, lender)
    other = registry.push("places/other", "1", image([base_layer(), odd_layer()], comment="other"))

    own.pull(other)

    assert own.layer_records() == []
    assert not list((own.root / "overlay").glob("?" * 64))
    assert [record["names"] for record in own.image_records()] == [[other]]
    own.podman("create", "--name", "c", "--network", "none", other, "sh")
    own.podman("mount", "c")
    own.podman("umount", "c")
    own.podman("rm", "c")


@pytest.fixture
def borrowers(newest: Peer, place_of_newest: Path, references: tuple[str, str]) -> tuple[SharedStore, SharedStore]:
    """Two stores, for asyncpull and for podman, to which a third lends an image; podman 4.3 did less with it."""
    names = ("lender", "ours", "theirs")
    for name in names:
        (place_of_newest / name).mkdir()
    lender, ours, theirs = (SharedStore(newest, place_of_newest / name) for name in names)
    lender.podman_pull(references[0])
    with_lent = ("--storage-opt", f"overlay.imagestore={lender.root}")
    return replace(ours, options=with_lent), replace(theirs, options=with_lent)


def test_a_lent_image_is_named_as_podman_does_it(
    borrowers: tuple[SharedStore, SharedStore], place_of_newest: Path, references: tuple[str, str]
) -> None:
    ours, theirs = borrowers
    before = _everything(place_of_newest / "lender/root")

    ours.asyncpull("tag", references[0], "localhost/named:1")
    theirs.podman("tag", references[0], "localhost/named:1")

    assert ours.image_records() == theirs.image_records()
    for store in borrowers:
        tags = json.loads(store.podman("image", "inspect", "--format", "{{json .RepoTags}}", "localhost/named:1"))
        assert tags == ["localhost/named:1", references[0]]
        (listed,) = json.loads(store.asyncpull("images", "--json"))
        assert (listed["names"], listed["read_only"]) == (["localhost/named:1", references[0]], False)
        assert store.asyncpull("check", "--quick") == ""
    ours.check()
    ours.asyncpull("untag", references[0], references[0])
    theirs.podman("untag", references[0], references[0])
    assert ours.image_records() == theirs.image_records()
    ours.podman("create", "--name", "c", "--network", "none", "localhost/named:1", "sh")
    ours.podman("rm", "c")
    ours.podman("rmi", "localhost/named:1")
    theirs.asyncpull("rmi", "localhost/named:1")
    assert ours.image_records() == theirs.image_records() == []
    assert _everything(place_of_newest / "lender/root") == before


def test_a_pull_of_a_lent_image_by_another_name_keeps_both(
    borrowers: tuple[SharedStore, SharedStore], registry: Registry, references: tuple[str, str]
) -> None:
    other = registry.push("places/again", "1", image([base_layer(), odd_layer()]))
    ours, theirs = borrowers

    ours.pull(other)
    theirs.podman_pull(other)

    (record,), (expected,) = ours.image_records(), theirs.image_records()
    assert record["names"] == [other, references[0]]
    for key in ("names", "digest", "layer", "created", "big-data-digests"):
        assert record[key] == expected[key]
    assert ours.layer_records() == theirs.layer_records() == []


@pytest.fixture
def apart(newest: Peer, place_of_newest: Path) -> SharedStore:
    """A store whose images are kept apart; podman has the option since 4.7."""
    return SharedStore(newest, place_of_newest, options=("--imagestore", str(place_of_newest / "images")))


@pytest.fixture
def place_of_newest(newest: Peer) -> Iterator[Path]:
    with workplace(newest) as directory:
        yield directory


def _ids(path: Path) -> set[str]:
    return {record["id"] for record in json.loads(path.read_bytes() or b"[]")} if path.exists() else set()


@pytest.mark.parametrize("first", ["asyncpull", "podman"])
def test_images_kept_apart_are_shared_with_podman(apart: SharedStore, references: tuple[str, str], first: str) -> None:
    pulls = [apart.pull, apart.podman_pull]
    if first == "podman":
        pulls.reverse()
    ids = [pull(reference) for pull, reference in zip(pulls, references, strict=True)]
    images = apart.directory / "images"

    assert _ids(images / "overlay-images/images.json") == set(ids)
    layers = _ids(images / "overlay-layers/layers.json")
    assert len(layers) == 3
    assert not _ids(apart.root / "overlay-layers/layers.json")
    for layer in layers:
        assert (images / "overlay" / layer / "diff").is_dir()
        assert (apart.root / "overlay-layers" / f"{layer}.tar-split.gz").is_file()
    assert set(apart.podman("images", "-q", "--no-trunc").split()) == {f"sha256:{each}" for each in ids}
    assert {listed["id"] for listed in json.loads(apart.asyncpull("images", "--json"))} == set(ids)

    apart.asyncpull("create", references[0], "--name", "ours")
    apart.podman("create", "--name", "theirs", "--network", "none", references[1], "sh")
    containers = _ids(apart.root / "overlay-layers/layers.json")
    assert len(containers) == 2
    for layer in containers:
        assert (apart.root / "overlay" / layer / "diff").is_dir()
    for name in ("ours", "theirs"):
        assert apart.asyncpull("mount", name).startswith(str(apart.root))
        apart.asyncpull("unmount", name)
    apart.podman("mount", "theirs")
    apart.podman("umount", "theirs")
    with_image = apart.asyncpull("mount", references[0])
    assert with_image.startswith(str(apart.run_root))
    apart.asyncpull("unmount", references[0])
    assert apart.asyncpull("check") == ""
    apart.check()
    apart.podman("rm", "theirs")
    apart.asyncpull("rm", "ours")
    apart.asyncpull("rmi", references[1])
    assert _ids(images / "overlay-images/images.json") == {ids[0]}
    apart.podman("rmi", references[0])
    assert not _ids(images / "overlay-layers/layers.json")
    assert apart.leftovers() == []


def test_containers_of_a_transient_store_are_in_the_run_root(
    newest: Peer, place_of_newest: Path, references: tuple[str, str]
) -> None:
    store = SharedStore(newest, place_of_newest, options=("--transient-store",))
    store.pull(references[0])
    store.asyncpull("create", references[0], "--name", "ours")
    store.podman("create", "--name", "theirs", "--network", "none", references[0], "sh")

    assert len(_ids(store.run_root / "overlay-containers/volatile-containers.json")) == 2
    assert len(_ids(store.run_root / "overlay-layers/volatile-layers.json")) == 2
    assert not _ids(store.root / "overlay-containers/containers.json")
    assert not _ids(store.root / "overlay-containers/volatile-containers.json")
    assert {c["names"][0] for c in json.loads(store.asyncpull("containers", "--json"))} == {"ours", "theirs"}
    store.asyncpull("mount", "theirs")
    store.asyncpull("unmount", "theirs")
    store.podman("rm", "theirs")
    store.asyncpull("rm", "ours")
    assert not _ids(store.run_root / "overlay-layers/volatile-layers.json")
    assert store.asyncpull("check") == ""
