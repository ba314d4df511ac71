"""Containers of ours and of podman's in one store: found, mounted, counted and removed by either."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.config import StoreConfig
from asyncpull.store.containers import ContainerSpec
from asyncpull.store.store import Store
from tests.support.samples import rich_image

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root


@pytest.fixture
def reference(store: SharedStore, registry: Registry) -> str:
    reference = registry.push("containers/rich", "1", rich_image())
    store.pull(reference)
    return reference


def _run(store: SharedStore, reference: str, script: str) -> list[str]:
    return store.run_side_by_side(f"image={shlex.quote(reference)}\n{script}").splitlines()


async def test_podman_knows_all_kinds_of_ours(store: SharedStore, reference: str) -> None:
    """Names, items, volatile records, none of an image: read, checked and kept by podman, and removed by it.

    Debian's podman is older than the files for volatile records, and looks past them.
    """
    known = ("one", "empty", "lost") if store.peer.name == "newest" else ("one", "empty")
    async with Store.open(StoreConfig(store.root, store.run_root)) as opened:
        spec = ContainerSpec(names=("one", "uno"), big_data=(("state", b"{}"), ("Odd/Key", b"odd")))
        one = await opened.create_container(reference, spec=spec)
        await opened.create_container(reference, "lost", spec=ContainerSpec(is_volatile=True))
        await opened.create_container(None, "empty")
        (await opened.container_directory(one)).joinpath("mine").write_bytes(b"mine")
        listed = store.podman("ps", "-a", "--external", "--format", "{{.Names}}").splitlines()
        assert {name.partition(",")[0] for name in listed} == set(known)
        store.check()
        store.podman("create", "-q", "--name", "theirs", "--network", "none", reference, "sh")
        assert await opened.container("uno") == one
        assert await opened.container_data("one", "Odd/Key") == b"odd"
        assert (await opened.container("lost")).volatile
        for name in known:
            store.podman("rm", name)
        for container in await opened.containers():
            assert container.names in (("theirs",), ("lost",))
            await opened.remove_container(container)
        assert not (store.root / "overlay-containers" / one.id).exists()
    store.check()


def test_a_mount_of_both_is_counted_by_both(store: SharedStore, reference: str) -> None:
    said = _run(
        store,
        reference,
        """
        theirs create -q --name theirs --rm --network none "$image" sh >/dev/null
        path=$(theirs mount theirs)
        test "$(ours mount theirs)" = "$path"
        if ours mount --read-only theirs 2>/dev/null; then echo mounted; else echo refused; fi
        echo written >"$path/etc/new"
        theirs umount theirs >/dev/null
        cat "$path/etc/new"
        theirs mount theirs >/dev/null
        ours unmount theirs >/dev/null
        cat "$path/etc/new"
        ours unmount --force theirs >/dev/null
        test ! -e "$path/etc/new"
        path=$(ours mount --read-only theirs)
        cat "$path/etc/new"
        if touch "$path/etc/more" 2>/dev/null; then echo writable; else echo read-only; fi
        ours unmount --all >/dev/null
        theirs mount theirs >/dev/null
        touch "$path/etc/more"
        theirs umount --all >/dev/null
        ours mount
        theirs rm theirs >/dev/null
        """,
    )
    assert said[:5] == ["refused", "written", "written", "written", "read-only"]
    assert said[5].split() == ["MOUNTED", "COUNT", "PATH"]
    store.check()
