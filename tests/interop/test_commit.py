"""Images that we make of containers, as others see them: podman checks, runs, pushes and removes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.test_export import change
from tests.support.images import image
from tests.support.samples import base_layer, static_shell
from tests.support.stores import SharedStore
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.images import Flavour
    from tests.support.peers import Peer

pytestmark = pytest.mark.root


@pytest.mark.parametrize("flavour", ["oci", "docker"])
def test_podman_takes_what_we_committed(store: SharedStore, registry: Registry, place: Path, flavour: Flavour) -> None:
    shell = static_shell()
    if shell is None:
        pytest.skip("no busybox that needs no libraries")
    below = image([base_layer(shell), tar([directory("etc"), file("etc/added", b"added")])], flavour=flavour)
    reference = registry.push("commit/base", flavour, below)
    store.podman_pull(reference)
    store.podman("create", "--name", "c", "--network", "none", reference, "sh")
    change(Path(store.asyncpull("mount", "c")))
    store.asyncpull("unmount", "c")

    made = store.asyncpull("commit", "-m", "why", "-a", "me", "-c", 'CMD=["cat","/etc/base"]', "c", "made")

    store.check("-m", "0s") if store.can_check else store.check()
    (seen,) = json.loads(store.podman("image", "inspect", made))
    assert seen["RepoTags"] == ["localhost/made:latest"]
    assert seen["RootFS"]["Layers"][:2] == list(below.diff_ids)
    assert (seen["Author"], seen["Config"]["Cmd"]) == ("me", ["cat", "/etc/base"])
    assert ("oci" in seen["ManifestType"]) is (flavour == "oci")
    assert store.podman_run("localhost/made", "cat", "/etc/base", "/bin/deep/er/file") == "changed\nx"
    # In the container and in the image of it, the same was changed.
    changed = sorted(store.podman("diff", "c").splitlines())
    assert sorted(store.podman("diff", made).splitlines()) == changed
    # A copy has blobs whose digests are the diff IDs of the config: the tar was rebuilt as it was.
    target = place / "copy"
    store.podman("push", "-q", "localhost/made", f"dir:{target}")
    blobs = {f"sha256:{path.name}": path for path in target.iterdir() if len(path.name) == 64}
    for layer in seen["RootFS"]["Layers"]:
        assert f"sha256:{hashlib.sha256(blobs[layer].read_bytes()).hexdigest()}" == layer

    store.podman("rm", "c")
    store.podman("rmi", made)
    store.podman("rmi", reference)
    store.check()
    assert store.image_records() == store.layer_records() == []


def test_a_container_of_ours_in_podman_and_back(store: SharedStore, registry: Registry) -> None:
    """An image of ours on an image of ours, whose container podman commits, whose image we commit again."""
    reference = registry.push("commit/back", "1", image([base_layer()]))
    store.pull(reference)
    store.asyncpull("create", "--name", "one", reference)
    (Path(store.asyncpull("mount", "one")) / "first").write_text("1")
    store.asyncpull("unmount", "one")
    store.asyncpull("commit", "one", "localhost/one")
    store.podman("create", "--name", "two", "--network", "none", "localhost/one", "sh")
    store.peer.run("sh", "-c", 'printf 2 >"$1/second"', "sh", store.podman("mount", "two"))
    store.podman("umount", "two")
    store.podman("commit", "-q", "two", "localhost/two")
    store.asyncpull("create", "--name", "three", "localhost/two")
    (Path(store.asyncpull("mount", "three")) / "first").unlink()
    store.asyncpull("unmount", "three")
    made = store.asyncpull("commit", "three", "localhost/three")

    store.check()
    assert len(store.layer_ids(made)) == 4
    assert store.podman("diff", "localhost/three") == store.asyncpull("diff", "localhost/three") == "D /first"


def test_in_a_store_of_complete_trees(place: Path, peer: Peer, registry: Registry) -> None:
    (place / "vfs").mkdir()
    store = SharedStore(peer, place / "vfs", "vfs")
    reference = registry.push(
        "commit/vfs", "1", image([base_layer(), tar([directory("etc"), file("etc/added", b"a")])])
    )
    store.pull(reference)
    store.podman("create", "--name", "c", "--network", "none", reference, "sh")
    change(Path(store.asyncpull("mount", "c")))
    store.asyncpull("unmount", "c")
    changed = sorted(store.podman("diff", "c").splitlines())
    assert len(changed) > 8
    assert sorted(store.asyncpull("diff", "c").splitlines()) == changed

    made = store.asyncpull("commit", "c", "made")

    store.check()
    assert sorted(store.podman("diff", made).splitlines()) == changed
    target = place / "copy"
    store.podman("push", "-q", "localhost/made", f"dir:{target}")
    assert len([path for path in target.iterdir() if len(path.name) == 64]) == 4
