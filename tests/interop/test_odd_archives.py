"""Odd archives, row by row: our verdict and podman's, and the trees that both make (format, 13.4, point 11).

Each odd layer of tests/support/odd_layers.py is an image of its own. All are pulled by one command of each side, which
goes on after a failure; what the store lists afterwards is the verdict.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.odd_layers import ACCEPTED, REFUSED, STRICTER
from tests.support.peers import TIMEOUT
from tests.support.trees import differences, list_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore
    from tests.support.trees import TreeEntry

    StoreMaker = Callable[[str], SharedStore]

pytestmark = pytest.mark.root

DIFFERENT = {
    "newest": {"global-header-forgets"},
    "debian": {"global-header-forgets", "xattrs"},
}
"""Where trees differ: podman makes an empty directory where a global header's own name would be, and an old one
leaves out attributes without a value."""


def _offer(registry: Registry, layers: Mapping[str, bytes]) -> dict[str, str]:
    """Push an image of each layer; its name by reference."""
    made = {name: image([data], comment=name) for name, data in layers.items()}
    return {registry.push("odd/archive", f"n-{name}".lower(), each): name for name, each in made.items()}


def _listed(store: SharedStore, offered: Mapping[str, str]) -> dict[str, str]:
    """The top layers of what the store lists, by the names of the odd layers."""
    found = {}
    for record in store.image_records():
        names = record["names"]
        assert isinstance(names, list)
        found.update({offered[name]: str(record["layer"]) for name in names})
    return found


def _pull_all(store: SharedStore, offered: Mapping[str, str], *, by_podman: bool) -> None:
    """Pull all that can be pulled."""
    if by_podman:
        command = (*store.podman_command, "pull", "-q", "--tls-verify=false", *offered)
        store.peer.start(*command).communicate(timeout=TIMEOUT)
    else:
        store.run_asyncpull("pull", *offered)


def _tree(diff: Path, since_ns: int) -> dict[str, TreeEntry]:
    """A layer's tree without times that no archive gave: of its root, of directories only implied, of whiteouts."""
    tree = list_tree(diff)
    return {path: replace(entry, mtime_ns=0) if entry.mtime_ns >= since_ns else entry for path, entry in tree.items()}


@pytest.fixture
def both(new_store: StoreMaker) -> tuple[SharedStore, SharedStore]:
    return new_store("ours"), new_store("theirs")


def test_what_podman_takes_we_take_and_make_the_same_of(
    both: tuple[SharedStore, SharedStore], registry: Registry
) -> None:
    ours, theirs = both
    since = time.time_ns()
    offered = _offer(registry, ACCEPTED)
    _pull_all(ours, offered, by_podman=False)
    _pull_all(theirs, offered, by_podman=True)

    our_layers, their_layers = _listed(ours, offered), _listed(theirs, offered)

    assert our_layers.keys() == ACCEPTED.keys()
    assert our_layers == their_layers
    different = {
        name: found
        for name, layer in our_layers.items()
        if (found := differences(_tree(ours.diff(layer), since), _tree(theirs.diff(layer), since)))
        and name not in DIFFERENT[ours.peer.name]
    }
    assert different == {}


def test_what_podman_refuses_we_refuse(both: tuple[SharedStore, SharedStore], registry: Registry) -> None:
    ours, theirs = both
    offered = _offer(registry, REFUSED)
    _pull_all(ours, offered, by_podman=False)
    _pull_all(theirs, offered, by_podman=True)

    assert _listed(ours, offered) == {}
    assert _listed(theirs, offered) == {}
    ours.check()


def test_what_podman_takes_and_can_never_give_back_we_refuse(
    both: tuple[SharedStore, SharedStore], registry: Registry, place: Path
) -> None:
    ours, theirs = both
    offered = _offer(registry, STRICTER)
    _pull_all(ours, offered, by_podman=False)
    _pull_all(theirs, offered, by_podman=True)

    assert _listed(ours, offered) == {}
    taken = _listed(theirs, offered)
    given_back = []
    for reference, name in offered.items():
        if name in taken:
            command = (*theirs.podman_command, "push", "-q", reference, f"dir:{place / name}")
            done = subprocess.run([*theirs.peer.prefix, *command], capture_output=True, timeout=TIMEOUT, check=False)
            given_back += [name] if done.returncode == 0 else []
    assert set(given_back) <= {"extensions-without-end"}  # which asks for more memory than anybody should give
