"""Stores that fuse-overlayfs mounts: podman with the same program reads ours, and we read podman's."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.support.samples import rich_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

PROGRAM = "/usr/bin/fuse-overlayfs"
OPTION = ("--storage-opt", f"overlay.mount_program={PROGRAM}")
LOOK = """
cat "$path/etc/base" "$path/odd/owned"
ls "$path/var/lib/old"
test ! -e "$path/etc/gone"
"""
SEEN = ["base", "changed", "new"]


@pytest.fixture
def store(store: SharedStore) -> SharedStore:
    if not store.peer.has(PROGRAM) or not os.path.exists(PROGRAM) or not os.path.exists("/dev/fuse"):
        pytest.skip("fuse-overlayfs is not installed here or at the peer, or there is no /dev/fuse")
    return store


@pytest.fixture
def reference(registry: Registry) -> str:
    return registry.push("program/rich", "1", rich_image())


def _run(store: SharedStore, reference: str, script: str) -> list[str]:
    """Run the script where both see the same mounts; ``ours`` has no option, the store says what it is."""
    script = f"image={shlex.quote(reference)}\n{script}"
    return store.run_side_by_side(script, podman_options=OPTION).splitlines()


def _marker(store: SharedStore) -> str:
    return (store.root / "overlay/.has-mount-program").read_text()


def _listing(directory: Path) -> list[tuple[str, int, int, int]]:
    """All below a layer's root: path, mode, owner."""
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found.append((str(path.relative_to(directory)), status.st_mode, status.st_uid, status.st_gid))
    return found


def test_podman_reads_and_extends_what_we_write(store: SharedStore, reference: str) -> None:
    store.asyncpull(*OPTION, "pull", reference)
    assert _marker(store) == "true"
    said = _run(
        store,
        reference,
        f"""
        path=$(theirs image mount "$image")
        {LOOK}
        theirs image unmount "$image" >/dev/null
        theirs create -q --name theirs --network none "$image" sh >/dev/null
        path=$(theirs mount theirs)
        rm "$path/etc/base"
        echo written >"$path/etc/new"
        test "$(ours mount theirs)" = "$path"
        theirs umount theirs >/dev/null
        cat "$path/etc/new"
        ours unmount theirs >/dev/null
        path=$(ours mount theirs)
        test ! -e "$path/etc/base"
        cat "$path/etc/new"
        ours unmount theirs >/dev/null
        theirs rm theirs >/dev/null
        grep -c "$path" /proc/self/mountinfo || true
        """,
    )
    assert said == [*SEEN, "written", "written", "0"]
    assert _marker(store) == "true"


def test_we_read_and_extend_what_podman_writes(store: SharedStore, reference: str) -> None:
    store.podman(*OPTION, "pull", "-q", "--tls-verify=false", reference)
    assert _marker(store) == "true"
    said = _run(
        store,
        reference,
        f"""
        path=$(ours mount "$image")
        {LOOK}
        ours unmount "$image" >/dev/null
        ours create --name mine "$image" >/dev/null
        path=$(ours mount mine)
        echo written >"$path/etc/new"
        theirs images -q >/dev/null
        cat "$path/etc/new"
        ours unmount mine >/dev/null
        ours rm mine >/dev/null
        theirs rmi "$image" >/dev/null
        ours layers -q
        """,
    )
    assert said == [*SEEN, "written"]


def test_layers_are_the_same_as_podmans(
    store: SharedStore, new_store: Callable[[str], SharedStore], reference: str
) -> None:
    theirs = new_store("theirs")
    theirs.podman(*OPTION, "pull", "-q", "--tls-verify=false", reference)
    image = store.asyncpull(*OPTION, "pull", reference)
    layers = store.layer_ids(image)
    assert layers == theirs.layer_ids(image)
    assert any(".wh." in path for layer in layers for path, *_ in _listing(store.diff(layer)))
    for layer in layers:
        assert _listing(store.diff(layer)) == _listing(theirs.diff(layer))


def test_marks_are_not_mixed(store: SharedStore, reference: str) -> None:
    store.pull(reference)
    assert _marker(store) == "false"
    refused = store.run_asyncpull(*OPTION, "images")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "mount_program" in refused.stderr
    assert _marker(store) == "false"
