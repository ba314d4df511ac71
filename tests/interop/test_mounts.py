"""Mounts of asyncpull and of podman in one mount namespace: neither buries or ends the other's.

Each test is a shell script that runs where both have the same view: inside the peer's root, with our Python reached
through /proc. There ``$ours`` is asyncpull and ``$theirs`` is podman, both on the same store.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.support.samples import rich_image

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root


@pytest.fixture
def reference(store: SharedStore, registry: Registry) -> str:
    reference = registry.push("mounts/rich", "1", rich_image())
    store.pull(reference)
    return reference


def _run(store: SharedStore, reference: str, script: str) -> list[str]:
    """Run the script and return the lines it printed; any command that fails ends it with an error."""
    return store.run_side_by_side(f"image={shlex.quote(reference)}\n{script}").splitlines()


def test_podman_does_not_bury_our_container(store: SharedStore, reference: str) -> None:
    said = _run(
        store,
        reference,
        """
        container=$(ours create --name mine "$image")
        path=$(ours mount mine)
        theirs images -q >/dev/null
        echo written >"$path/etc/new"
        theirs ps -a >/dev/null
        cat "$path/etc/new" "$path/etc/base" "$path/odd/owned"
        theirs images -q >/dev/null
        ours unmount mine >/dev/null
        test ! -e "$path/etc/new"
        path=$(ours mount mine)
        cat "$path/etc/new"
        ours unmount mine >/dev/null
        theirs images -q >/dev/null
        ours rm mine >/dev/null
        grep -c "$path" /proc/self/mountinfo || true
        """,
    )
    assert said == ["written", "base", "changed", "written", "0"]
    store.check()


def test_we_do_not_bury_a_container_of_podmans(store: SharedStore, reference: str) -> None:
    said = _run(
        store,
        reference,
        """
        theirs create -q --name theirs --network none "$image" sh >/dev/null
        path=$(theirs mount theirs)
        ours images >/dev/null
        echo written >"$path/etc/new"
        other=$(ours mount "$image")
        cat "$path/etc/new" "$path/etc/base" "$other/odd/owned"
        ours unmount "$image" >/dev/null
        cat "$path/etc/new"
        ours containers -q | wc -l
        theirs umount theirs >/dev/null
        test ! -e "$path/etc/new"
        theirs rm theirs >/dev/null
        ours containers -q | wc -l
        """,
    )
    assert said == ["written", "base", "changed", "written", "1", "0"]
    store.check()


def test_an_image_mounted_by_both_stays_until_both_are_done(store: SharedStore, reference: str) -> None:
    said = _run(
        store,
        reference,
        """
        ours_path=$(ours mount "$image")
        theirs_path=$(theirs image mount "$image")
        test "$ours_path" = "$theirs_path"
        ours unmount "$image" >/dev/null
        cat "$theirs_path/odd/owned"
        ours mount "$image" >/dev/null
        theirs image unmount "$image" >/dev/null
        cat "$ours_path/odd/owned"
        ours unmount "$image" >/dev/null
        test ! -e "$ours_path/odd/owned"
        """,
    )
    assert said == ["changed", "changed"]
    store.check()


def test_an_image_is_mounted_read_only(store: SharedStore, reference: str) -> None:
    said = _run(
        store,
        reference,
        """
        path=$(ours mount "$image")
        if touch "$path/etc/new" 2>/dev/null; then echo writable; else echo read-only; fi
        ls "$path/var/lib/old"
        test ! -e "$path/etc/gone"
        ours unmount "$image" >/dev/null
        """,
    )
    assert said == ["read-only", "new"]


def test_podman_sees_and_removes_a_container_of_ours(store: SharedStore, reference: str) -> None:
    said = _run(
        store,
        reference,
        """
        ours create --name mine "$image" >/dev/null
        theirs ps -a --external --format '{{.Names}}'
        if theirs rmi "$image" 2>/dev/null; then echo removed; else echo in use; fi
        ours rm mine >/dev/null
        theirs rmi "$image" >/dev/null
        ours images -q | wc -l
        """,
    )
    assert said == ["mine", "in use", "0"]
    store.check()
