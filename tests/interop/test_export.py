"""What changed and what comes out as a tar, beside podman on the same store."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.samples import base_layer, rich_image, static_shell
from tests.support.tars import directory, file, tar, whiteout

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root


def change(rootfs: Path) -> None:
    """Add, change and delete, in directories that were there and in new ones."""
    (rootfs / "etc" / "base").write_text("changed\n")
    (rootfs / "etc" / "added").unlink()
    (rootfs / "etc" / "new").write_text("new\n")
    (rootfs / "usr" / "share").chmod(0o700)
    shutil.rmtree(rootfs / "var" / "lib" / "old")
    (rootfs / "var" / "lib" / "old").mkdir()
    (rootfs / "var" / "lib" / "old" / "0").write_text("again\n")
    (rootfs / "bin" / "deep" / "er").mkdir(parents=True)
    (rootfs / "bin" / "deep" / "er" / "file").write_text("x")
    shutil.rmtree(rootfs / "tmp")
    os.symlink("etc", rootfs / "link")


def pull_two(store: SharedStore, registry: Registry) -> tuple[str, str]:
    one = image([base_layer()])
    two = image([base_layer(), tar([directory("etc"), whiteout("etc/gone"), file("etc/added", b"added")])])
    references = registry.push("diff/one", "1", one), registry.push("diff/two", "1", two)
    for reference in references:
        store.podman_pull(reference)
    return references


def test_diff_prints_what_podman_prints(store: SharedStore, registry: Registry) -> None:
    one, two = pull_two(store, registry)
    store.podman("create", "--name", "c", "--network", "none", two, "sh")
    for arguments in ((one,), (two,), ("c",), (two, one), (one, two), ("c", one)):
        theirs = sorted(store.podman("diff", *arguments).splitlines())
        assert sorted(store.asyncpull("diff", *arguments).splitlines()) == theirs, arguments
    rootfs = store.asyncpull("mount", "c")
    change(Path(rootfs))
    store.asyncpull("unmount", "c")
    for arguments in (("c",), ("c", two), ("c", one)):
        theirs = sorted(store.podman("diff", *arguments).splitlines())
        assert theirs
        assert sorted(store.asyncpull("diff", *arguments).splitlines()) == theirs, arguments
    assert store.asyncpull("mount") == "MOUNTED  COUNT  PATH"


def test_a_layer_of_podmans_comes_out_as_it_was(store: SharedStore, registry: Registry, place: Path) -> None:
    wanted = rich_image()
    store.podman_pull(registry.push("export/rich", "1", wanted))
    for layer in store.layer_records():
        target = place / "layer.tar"
        store.asyncpull("export", "-o", target, str(layer["id"]))
        assert f"sha256:{hashlib.sha256(target.read_bytes()).hexdigest()}" == layer["diff-digest"]
        assert target.stat().st_size == layer["diff-size"]


def test_diff_of_a_container_that_podman_ran(store: SharedStore, registry: Registry) -> None:
    """The runtime makes files in the container to mount something there; podman does not tell of them."""
    shell = static_shell()
    if shell is None:
        pytest.skip("no busybox that needs no libraries")
    reference = registry.push("diff/run", "1", image([base_layer(shell)]))
    store.pull(reference)
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
    options = ("--name", "c", "--pull=never", "--network", "none", "--cgroups=disabled", *limits)
    store.peer.run_in_namespace(*store.podman_command, "run", *options, reference, "touch", "/etc/mine")
    told = sorted(store.podman("diff", "c").splitlines())
    assert "A /etc/mine" in told
    assert sorted(store.asyncpull("diff", "c").splitlines()) == told
    assert set(store.asyncpull("changes", "c").splitlines()) > set(told)
