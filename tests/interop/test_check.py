"""Our check beside podman's: silent on what podman wrote, and of one mind about damage and about repairs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.damages import CASES, ODD, PLAIN, Victim
from tests.support.images import image
from tests.support.odd_layers import ACCEPTED, BETTER
from tests.support.peers import TIMEOUT
from tests.support.samples import base_layer, odd_layer, removing_layer, rich_image
from tests.support.stores import SharedStore, workplace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer

pytestmark = pytest.mark.root

_IS_FULL = bool(os.environ.get("ASYNCPULL_TEST_FULL"))

# Of the others podman itself keeps what it cannot export again. All of them take it a while to pull.
_SOUND = [layer for name, layer in ACCEPTED.items() if name not in BETTER][:: 1 if _IS_FULL else 4]


def test_silent_on_what_podman_wrote(store: SharedStore, registry: Registry) -> None:
    odd = image([base_layer(), *_SOUND, odd_layer(), removing_layer()], comment="sound")
    store.podman_pull(registry.push("check/rich", "1", rich_image()))
    store.podman_pull(registry.push("check/odd", "1", odd))
    name = store.podman("create", "--network", "none", odd.id, "sh")
    store.podman("mount", name)

    assert store.asyncpull("check") == ""

    store.podman("unmount", name)
    store.podman("rm", name)
    assert store.asyncpull("check", "--max", "0s") == ""


@pytest.mark.parametrize("writer", ["podman", "asyncpull"])
def test_silent_on_complete_trees(peer: Peer, registry: Registry, writer: str) -> None:
    with workplace(peer) as directory:
        store = SharedStore(peer, directory, "vfs")
        reference = registry.push("check/rich", "1", rich_image())
        _ = store.pull(reference) if writer == "asyncpull" else store.podman_pull(reference)

        assert store.asyncpull("check", "--max", "0s") == ""

        top = store.layer_ids(rich_image().id)[-1]
        (store.root / "vfs/dir" / top / "odd/empty").chmod(0o600)
        (finding,) = json.loads(store.asyncpull("check", "--json", expect=1))["findings"]
        assert (finding["damage"], finding["id"]) == ("content-modified", top)
        store.asyncpull("check", "--repair")
        assert store.image_records() == []
        store.check("--max", "0s")


@pytest.fixture(scope="module")
def sound(newest: Peer, registry: Registry) -> Iterator[Path]:
    """A store that we wrote, with both images and a container."""
    odd, plain = (registry.push(f"check/{tag}", "1", each) for tag, each in (("victim", ODD), ("plain", PLAIN)))
    with workplace(newest) as directory:
        store = SharedStore(newest, directory)
        store.pull(odd)
        store.pull(plain)
        store.asyncpull("create", plain, "--name", "c")
        yield store.root


# One of every sort, for podman takes a second for each. All kinds are tried without it in tests/store/check.
_SOME = {
    "files that stack layers": ("link-truncated", "short-name-missing", "lower-missing", "work-missing", "stray-tree"),
    "big data": ("manifest-altered",),
    "sizes": ("data-size-off",),
    "records": ("parent-not-recorded",),
    "a layer of nobody": ("layer-of-nobody",),
    "an archive": ("tar-split-truncated",),
    "a tree": ("file-altered", "setuid-lost", "file-too-many", "hard-link-cut"),
    "what overlay shows": ("content-elsewhere", "whiteout-by-attribute", "directory-of-another-name"),
    "a config": ("config-missing",),
    "a tree of a container": ("tree-of-a-container-missing",),
    "a container": ("container-of-no-image",),
}


_ALL = {name: (name,) for name, case in CASES.items() if not case.is_hopeless}
_TRIED = _ALL if _IS_FULL else _SOME


@pytest.mark.parametrize("names", _TRIED.values(), ids=_TRIED.keys())
def test_podman_agrees_after_a_repair(newest: Peer, sound: Path, names: tuple[str, ...]) -> None:
    cases = [CASES[name] for name in names]
    force = [*(("--force",) if any(case.force for case in cases) else ())]
    with workplace(newest) as directory:
        store = SharedStore(newest, directory)
        subprocess.run(["cp", "-a", sound, store.root], check=True)
        for case in cases:
            case.do(Victim(store.root))

        found = json.loads(store.asyncpull("check", "--json", "--max", "0s", expect=1))["findings"]
        assert {case.damage.value for case in cases} <= {finding["damage"] for finding in found}
        if _IS_FULL:  # otherwise it is asked once about many, below
            ours = {finding[key] for finding in found for key in ("id", "path")}
            assert _found_by_podman(store) <= _and_what_stands_on(Victim(store.root), ours)
        store.asyncpull("check", "--repair", *force, "--max", "0s")

        store.check("--max", "0s")
        kept = frozenset.intersection(*(case.images for case in cases))
        assert {str(record["id"]) for record in store.image_records()} == kept


def _found_by_podman(store: SharedStore) -> set[str]:
    """What podman calls damaged, by ID; not all that is damaged is anything to it, such as a lost setuid bit."""
    said, _ = store.peer.start(*store.podman_command, "system", "check", "--max", "0s").communicate(timeout=TIMEOUT)
    return set(re.findall(r"^Damaged (?:read-only )?\w+ (\w{64})", said, re.MULTILINE))


def _and_what_stands_on(victim: Victim, found: set[str]) -> set[str]:
    """The same with all layers, images and containers on them, which podman calls damaged too."""
    grown = set(found)
    for noun, on in (("layers", ["parent"]), ("images", ["id", "layer"]), ("containers", ["image", "layer"])):
        records = victim.records(noun)
        for _ in records:  # as often as the tallest chain may need
            grown |= {record["id"] for record in records if any(record.get(key) in grown for key in on)}
    return grown


def test_podman_agrees_about_a_store_that_lends(newest: Peer, sound: Path) -> None:
    """podman names what it finds there by the ID, and calls it read-only; it looks at no names in ``l``."""
    with workplace(newest) as directory:
        lender, own = directory / "lender", directory / "own"
        own.mkdir()
        subprocess.run(["cp", "-a", sound, lender], check=True)
        store = SharedStore(newest, own, options=("--storage-opt", f"overlay.imagestore={lender}"))
        assert store.asyncpull("check") == ""
        store.check()

        victim = Victim(lender)
        damaged = {victim.layer("odd"), victim.layer("removing"), victim.layer("base"), ODD.id, PLAIN.id}
        for name in ("file-altered", "manifest-truncated", "tar-split-altered"):
            CASES[name].do(victim)
        victim.change("images", PLAIN.id, layer="9" * 64)
        victim.change("layers", victim.layer("base"), big_data_names=["something"])

        said = newest.run(*store.podman_command, "system", "check", expect=125)
        assert set(re.findall(r"^Damaged read-only \w+ (\w{64})", said, re.MULTILINE)) == damaged
        found = json.loads(store.asyncpull("check", "--json", expect=1))["findings"]
        assert {finding["id"] for finding in found} == damaged


def test_a_quick_look_finds_what_keeps_podman_from_mounting(newest: Peer, sound: Path) -> None:
    """podman mounts every layer to see whether that can be done; we look at the files that it takes."""
    with workplace(newest) as directory:
        store = SharedStore(newest, directory)
        subprocess.run(["cp", "-a", sound, store.root], check=True)
        victim = Victim(store.root)
        container = store.root / "overlay" / victim.records("containers")[0]["layer"]
        (victim.home("base") / "empty").rmdir()
        (victim.home("odd") / "merged").rmdir()
        (victim.home("odd") / "merged").write_text("")
        (victim.home("removing") / "lower-layers").write_text("9" * 64)
        (container / "lower-layers").write_text(":".join([victim.layer("base")] * 501))

        said = newest.run(*store.podman_command, "system", "check", "--quick", expect=125)
        refused = set(re.findall(r"^Damaged layer (\w{64})", said, re.MULTILINE))
        assert refused == {*map(victim.layer, ("base", "odd", "removing")), container.name}
        found = json.loads(store.asyncpull("check", "--quick", "--json", expect=1))["findings"]
        assert refused == {finding["id"] for finding in found}
        assert {finding["damage"] for finding in found} == {"directory-missing", "lower-wrong"}
