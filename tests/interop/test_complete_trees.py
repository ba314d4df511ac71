"""Stores of vfs and btrfs, where each layer is a complete tree, shared with podman (format, section 9)."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.loops import loop_mounted
from tests.support.samples import base_layer, rich_image
from tests.support.stores import SharedStore
from tests.support.tars import directory, file, tar, whiteout
from tests.support.trees import TreeEntry, differences, list_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer

    StoreMaker = Callable[[str], SharedStore]

pytestmark = pytest.mark.root


@pytest.fixture(params=["vfs", "btrfs"])
def driver(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def new_store(driver: str, place: Path, peer: Peer) -> Iterator[StoreMaker]:
    with _btrfs(place / "disk", peer) if driver == "btrfs" else nullcontext(place) as disk:

        def make(name: str) -> SharedStore:
            (disk / name).mkdir()
            return SharedStore(peer, disk / name, driver)

        yield make


@contextmanager
def _btrfs(directory: Path, peer: Peer) -> Iterator[Path]:
    """A btrfs that both see: the peer's root directory may be one that does not see what we mount."""
    with loop_mounted(directory, "btrfs") as disk:
        if peer.run("stat", "-f", "-c", "%T", disk).strip() == "btrfs":
            yield disk
            return
        device = subprocess.run(["findmnt", "-no", "SOURCE", disk], check=True, capture_output=True, text=True).stdout
        peer.run("mount", device.strip(), disk)
        try:
            yield disk
        finally:
            peer.run("umount", "-R", disk)


def _tree(root: Path) -> dict[str, TreeEntry]:
    """List a tree without the time of its root, which podman leaves to chance where the archive does not say."""
    tree = list_tree(root)
    tree["."] = replace(tree["."], mtime_ns=0)
    return tree


def test_the_same_trees_and_records(new_store: StoreMaker, registry: Registry) -> None:
    wanted = rich_image()
    reference = registry.push("complete/same", "1", wanted)
    ours, theirs = new_store("ours"), new_store("theirs")
    assert ours.pull(reference) == theirs.podman_pull(reference) == wanted.id

    layer_ids = ours.layer_ids(wanted.id)
    assert layer_ids == theirs.layer_ids(wanted.id)
    for layer_id in layer_ids:
        assert differences(_tree(ours.diff(layer_id)), _tree(theirs.diff(layer_id))) == []
    ours.check()


def test_each_goes_on_with_the_store_of_the_other(new_store: StoreMaker, registry: Registry) -> None:
    base = base_layer()
    one = registry.push("complete/one", "1", image([base, tar([directory("etc"), file("etc/one", b"1")])]))
    two = registry.push("complete/two", "1", image([base, tar([directory("etc"), whiteout("etc/gone")])]))
    store = new_store("store")
    store.podman_pull(one)
    store.pull(two)
    layers = {str(record["id"]) for record in store.layer_records()}
    assert len(layers) == 3

    mounted = store.podman("image", "mount", two)
    assert store.peer.run("ls", f"{mounted}/etc").split() == ["base"]
    store.podman("image", "unmount", two)
    made = store.asyncpull("create", "--name", "c", one)
    theirs = store.podman("mount", made)
    (store.diff(_layer_of(store, made)) / "etc" / "written").write_text("here")
    assert store.peer.run("cat", f"{theirs}/etc/written") == "here"
    ours = store.asyncpull("mount", "c")
    assert ours == theirs
    store.podman("unmount", made)
    store.asyncpull("unmount", "c")
    store.podman("rm", "c")
    assert "written" not in {path.name for path in (store.diff(store.layer_ids(_id(store, one))[-1]) / "etc").iterdir()}

    store.podman("rmi", one)
    store.asyncpull("rmi", two)
    assert store.layer_records() == store.image_records() == []
    trees = store.diff("x").parent
    assert list(trees.iterdir()) == []
    assert store.leftovers() == []


def _layer_of(store: SharedStore, container: str) -> str:
    records = json.loads((store.root / f"{store.driver}-containers" / "containers.json").read_bytes())
    return next(str(record["layer"]) for record in records if record["id"] == container)


def _id(store: SharedStore, name: str) -> str:
    return next(str(record["id"]) for record in store.image_records() if name in str(record["names"]))


def test_a_layer_on_another_parent_is_not_fetched(new_store: StoreMaker, registry: Registry) -> None:
    top = tar([directory("etc"), file("etc/top", b"top"), whiteout("etc/gone")])
    first = image([base_layer(), top])
    second = image([base_layer(), tar([file("between", b"b")]), top])
    store = new_store("store")
    store.podman_pull(registry.push("complete/first", "1", first))
    reference = registry.push("complete/second", "1", second)
    store.pull(reference)
    _, middle, upper = store.layer_ids(second.id)
    assert (store.diff(upper) / "between").read_bytes() == b"b"
    assert (store.diff(upper) / "etc" / "top").read_bytes() == b"top"
    assert not (store.diff(upper) / "etc" / "gone").exists()
    assert (store.diff(middle) / "etc" / "gone").exists()
    store.check()
