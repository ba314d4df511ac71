"""One image pulled by asyncpull and by podman: both must have written the same (format, 13.4, point 2)."""

from __future__ import annotations

import gzip
import json
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.samples import base_layer, rich_image
from tests.support.stores import SharedStore, workplace
from tests.support.tars import directory, file, symlink, tar, whiteout
from tests.support.trees import TreeEntry, differences, list_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.images import Image
    from tests.support.peers import Peer

    StoreMaker = Callable[[str], SharedStore]

pytestmark = pytest.mark.root

RAW = 2
"""Type of a tar-split object that holds raw bytes of the archive; the other type, 1, stands for a file's payload."""


@pytest.fixture(
    scope="module",
    params=[(name, flavour) for name in ("newest", "debian") for flavour in ("oci", "docker")],
    ids="-".join,
)
def stores(request: pytest.FixtureRequest, registry: Registry) -> Iterator[tuple[SharedStore, SharedStore, Image]]:
    """The same image in a store of ours and in one of podman's, to be looked at by several tests."""
    name, flavour = request.param
    peer: Peer = request.getfixturevalue(name)
    wanted = rich_image(flavour=flavour)
    reference = registry.push(f"same/{flavour}", "1", wanted)
    with workplace(peer) as place:
        ours, theirs = (SharedStore(peer, place / whose) for whose in ("ours", "theirs"))
        for store in (ours, theirs):
            store.directory.mkdir()
        assert ours.pull(reference) == theirs.podman_pull(reference) == wanted.id
        yield ours, theirs, wanted


def _without_times(records: list[dict[str, object]], key: str) -> list[dict[str, object]]:
    return [{name: value for name, value in record.items() if name != key} for record in records]


def _tree(diff: Path) -> dict[str, TreeEntry]:
    """List a layer's directory without what podman leaves to chance: its own time and those of whiteouts."""
    tree = list_tree(diff)
    for path, entry in tree.items():
        if path == "." or (stat.S_ISCHR(entry.mode) and entry.device == 0):
            tree[path] = replace(entry, mtime_ns=0)
    return tree


def test_trees(stores: tuple[SharedStore, SharedStore, Image]) -> None:
    ours, theirs, wanted = stores
    layer_ids = ours.layer_ids(wanted.id)
    assert layer_ids == theirs.layer_ids(wanted.id)

    for layer_id in layer_ids:
        assert differences(_tree(ours.diff(layer_id)), _tree(theirs.diff(layer_id))) == []


def test_tar_splits(stores: tuple[SharedStore, SharedStore, Image]) -> None:
    ours, theirs, wanted = stores

    for layer_id in ours.layer_ids(wanted.id):
        name = f"overlay-layers/{layer_id}.tar-split.gz"
        entries, tail = _split((ours.root / name).read_bytes())
        their_entries, their_tail = _split((theirs.root / name).read_bytes())
        assert entries == their_entries
        assert tail == their_tail


def _split(packed: bytes) -> tuple[list[bytes], list[str]]:
    """Return the lines up to the last entry, and the payloads after it joined.

    How the tail is cut into objects depends on the sizes of Go's reads, so that only its content can be compared.
    """
    lines = gzip.decompress(packed).splitlines()
    objects = [json.loads(line) for line in lines]
    end = max((number for number, each in enumerate(objects) if each["type"] != RAW), default=-1) + 1
    return lines[:end], ["".join(each["payload"].rstrip("=") for each in objects[end:])]


def test_records(stores: tuple[SharedStore, SharedStore, Image]) -> None:
    ours, theirs, _ = stores
    if ours.peer.name != "newest":
        pytest.skip("older podman writes records with fewer keys")

    assert _without_times(ours.layer_records(), "created") == _without_times(theirs.layer_records(), "created")
    assert ours.image_records() == theirs.image_records()


def test_image_data(stores: tuple[SharedStore, SharedStore, Image]) -> None:
    ours, theirs, wanted = stores
    data = [
        {path.name: path.read_bytes() for path in (store.root / "overlay-images" / wanted.id).iterdir()}
        for store in (ours, theirs)
    ]
    # Older podman adds an empty file for the signatures that there are none of.
    assert data[0] == {name: content for name, content in data[1].items() if content}


def test_files_of_the_driver(stores: tuple[SharedStore, SharedStore, Image]) -> None:
    ours, theirs, wanted = stores
    if ours.peer.name != "newest":
        pytest.skip("older podman writes no lower-layers")

    def shape(store: SharedStore, layer_id: str) -> dict[str, str]:
        paths = (store.root / "overlay" / layer_id).iterdir()
        return {path.name: stat.filemode(path.lstat().st_mode) for path in paths}

    for layer_id in ours.layer_ids(wanted.id):
        assert shape(ours, layer_id) == shape(theirs, layer_id)
        lower = ours.root / "overlay" / layer_id / "lower-layers"
        if lower.exists():
            assert lower.read_bytes() == (theirs.root / "overlay" / layer_id / "lower-layers").read_bytes()
        link = (ours.root / "overlay" / layer_id / "link").read_text()
        assert (ours.root / "overlay" / "l" / link).readlink().parts[-2:] == (layer_id, "diff")


def test_implied_directories_are_those_below(new_store: StoreMaker, registry: Registry) -> None:
    """Where a layer has no entry for a directory, ours is as in the layer below; podman makes up a new one."""
    implied = {"etc", "var", "var/lib", "tmp"}
    wanted = image([base_layer(), tar([file("etc/x", b"x"), file("var/lib/y", b"y"), file("tmp/z", b"z")])])
    reference = registry.push("same/implied", "1", wanted)
    ours, theirs = new_store("ours"), new_store("theirs")
    ours.pull(reference)
    theirs.podman_pull(reference)

    below, top = ours.layer_ids(wanted.id)
    our_tree, their_tree, base_tree = _tree(ours.diff(top)), _tree(theirs.diff(top)), list_tree(ours.diff(below))
    for path in implied:
        assert replace(our_tree.pop(path), links=0) == replace(base_tree[path], links=0)
        assert path in their_tree
        del their_tree[path]
    assert differences(our_tree, their_tree) == []
    ours.check()


def test_implied_directory_found_nowhere(store: SharedStore, registry: Registry) -> None:
    """Podman's check expects such a directory to look like its first child, whatever a writer does."""
    wanted = image([base_layer(), tar([file("brand/new/x", b"x")])])
    store.pull(registry.push("same/implied-nowhere", "1", wanted))

    tree = list_tree(store.diff(store.layer_ids(wanted.id)[1]))
    for path in ("brand", "brand/new"):
        assert (stat.filemode(tree[path].mode), tree[path].uid, tree[path].gid) == ("drwxr-xr-x", 0, 0)
    if store.can_check:
        said = store.peer.run_both(*store.podman_command, "system", "check", expect=125)
        assert "brand" in said


def test_directory_in_place_of_a_removed_one_is_empty(store: SharedStore, registry: Registry) -> None:
    """Podman lets the content of the directory below show through here; ours hides it, as the archive says."""
    replaced = [directory("var"), directory("var/lib"), whiteout("var/lib/old"), directory("var/lib/old")]
    wanted = image([base_layer(), tar([*replaced, symlink("var/lib/old/only", "nothing")])])
    reference = registry.push("same/replaced", "1", wanted)
    store.pull(reference)

    mounted = store.podman("image", "mount", reference)
    try:
        assert store.peer.run("ls", f"{mounted}/var/lib/old").split() == ["only"]
    finally:
        store.podman("image", "unmount", reference)
    store.check()
