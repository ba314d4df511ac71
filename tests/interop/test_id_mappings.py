"""Containers with a user namespace of their own: podman's mounted by us, ours by podman, and the owners in both."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.samples import CAPABILITY, base_layer
from tests.support.tars import directory, file, hard_link, symlink, tar, whiteout

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.images import Image
    from tests.support.peers import Peer
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

MAPPING = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536")
LIST = r"""
    list() { (cd "$1" && find . -mindepth 1 -printf '%p %y %U:%G %m %l %n\n' | sort) }
"""


def _image() -> Image:
    """Return an image with what changes its owner in a way of its own, in both of its layers."""
    owned = file("etc/owned", b"x" * 5000, 0o640).with_(uid=1000, gid=1001)
    upper = [
        directory("etc"),
        owned,
        hard_link("etc/link-of-owned", "etc/owned", 0o640).with_(uid=1000, gid=1001),
        symlink("etc/dangling", "nowhere").with_(uid=7, gid=8),
        file("etc/setuid", b"#!\n", 0o6755).with_(uid=1, gid=2),
        file("etc/capable", b"ping", 0o755).with_(uid=3, xattrs={"security.capability": CAPABILITY}),
        whiteout("etc/gone"),
    ]
    return image([base_layer(), tar(upper)])


@pytest.fixture
def reference(store: SharedStore, registry: Registry) -> str:
    reference = registry.push("mappings/owners", "1", _image())
    store.pull(reference)
    return reference


def _run(store: SharedStore, script: str) -> str:
    return store.run_side_by_side(LIST + script)


def _copies(store: SharedStore) -> list[str]:
    """Return the copies of the top layer that the only image has."""
    (image,) = store.image_records()
    layers = image.get("mapped-layers", [])
    assert isinstance(layers, list)
    return layers


def _same(store: SharedStore, *names: str) -> str:
    """Mount containers by both, one after the other, and return what both see, which must be the same."""
    listings = {
        _run(store, f'path=$({who} mount {name})\nlist "$path"\n{who} unmount {name} >/dev/null')
        for name in names
        for who in ("theirs", "ours")
    }
    (listing,) = listings
    return listing


def test_both_see_the_same_owners_through_mapped_lower_layers(store: SharedStore, reference: str) -> None:
    mapping = shlex.join(MAPPING)
    _run(
        store,
        f"""
        theirs create -q --name theirs --network none {mapping} {reference} sh
        ours create --name ours {mapping} {reference}
        """,
    )
    assert _copies(store) == []
    listing = _same(store, "theirs", "ours")
    assert "./etc/base f 100000:200000 644 " in listing
    assert "./etc/owned f 101000:201001 640  2" in listing
    assert "./etc/gone" not in listing
    said = _run(
        store,
        """
        path=$(ours mount theirs)
        echo written >"$path/etc/new"
        again=$(theirs mount theirs)
        test "$path" = "$again"
        ours unmount theirs >/dev/null
        cat "$path/etc/new"
        theirs umount theirs >/dev/null
        grep -c mapped /proc/self/mountinfo || true
        """,
    )
    assert said.split() == ["written", "0"]
    store.podman("rm", "theirs")
    store.asyncpull("rm", "ours")
    assert all("uidmap" not in layer for layer in store.layer_records())
    store.check()
    assert store.asyncpull("check") == ""


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("peer", ["newest"], indirect=True)
def test_a_copy_with_other_owners_serves_both(
    store: SharedStore, reference: str, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    before = {str(layer["id"]) for layer in store.layer_records()}
    for name in (first, "theirs" if first == "ours" else "ours"):
        if name == "ours":
            store.asyncpull("create", "--name", "ours", *MAPPING, reference)
        else:
            store.podman("create", "-q", "--name", "theirs", "--network", "none", *MAPPING, reference, "sh")
    (mapped,) = _copies(store)
    listing = _same(store, "theirs", "ours")
    assert "./etc/base f 100000:200000 644 " in listing
    if first == "ours":  # podman does not give directories their times back when it links files in them again
        store.check()
    assert store.asyncpull("check") == ""
    store.podman("rm", "theirs")
    store.asyncpull("rm", "ours")
    assert {str(layer["id"]) for layer in store.layer_records()} == before | {mapped}
    if first == "ours":
        store.podman("rmi", reference)
    else:
        store.asyncpull("rmi", reference)
    assert store.layer_records() == []
    store.check()


@pytest.mark.parametrize("peer", ["newest"], indirect=True)
def test_our_copy_is_podmans(store: SharedStore, reference: str, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """File by file, the stacks that both leave on the disk."""
    monkeypatch.setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    store.asyncpull("create", "--name", "ours", *MAPPING, reference)
    (ours,) = _copies(store)
    other = tuple(option.replace("100000", "300000") for option in MAPPING)
    store.podman("create", "-q", "--name", "theirs", "--network", "none", *other, reference, "sh")
    _, theirs = _copies(store)
    listings = []
    for layer, first in ((ours, 100000), (theirs, 300000)):
        directory = store.root / "overlay" / layer
        said = peer.run("sh", "-euc", f'{LIST} cd "$1"; ls; list diff; list diff1; cat lower-layers', "sh", directory)
        listings.append(re.sub(rf" {first // 100000}(\d{{5}}):", r" +\1:", said))
    assert listings[0] == listings[1]
