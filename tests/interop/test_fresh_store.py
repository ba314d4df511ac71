"""A store that only asyncpull has written, used by podman in every way (format, 13.4, points 1 and 9)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.images import Index, image, index
from tests.support.samples import base_layer, odd_layer, rich_image, static_shell
from tests.support.tars import directory, tar

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.images import Flavour
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root


@pytest.fixture(params=["oci", "docker"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    chosen: Flavour = request.param
    return chosen


def test_podman_lists_and_inspects_and_checks(store: SharedStore, registry: Registry, flavour: Flavour) -> None:
    wanted = rich_image(flavour=flavour)
    reference = registry.push(f"fresh/{flavour}", "1", wanted)

    assert store.pull(reference) == wanted.id

    listed = json.loads(store.podman("images", "--format", "json"))
    assert [(each["Id"], each["Names"]) for each in listed] == [(wanted.id, [reference])]
    (seen,) = json.loads(store.podman("image", "inspect", reference))
    assert seen["Digest"] == wanted.manifest.digest
    assert seen["RootFS"]["Layers"] == list(wanted.diff_ids)
    assert seen["Config"]["Cmd"] == ["/bin/sh"]
    store.check()


def test_podman_runs_it(store: SharedStore, registry: Registry, flavour: Flavour) -> None:
    if static_shell() is None:
        pytest.skip("no static busybox on this machine")
    reference = registry.push(f"fresh/{flavour}", "1", rich_image(flavour=flavour))
    store.pull(reference)

    said = store.podman_run(reference, "sh", "-c", "id -u; cat /etc/base; ls /etc /var/lib/old; cat /odd/owned")

    assert "0\nbase\n" in said
    assert "gone" not in said
    assert "new" in said
    assert "changed" in said
    store.check()


def test_podman_pushes_the_same_bytes(store: SharedStore, registry: Registry, place: Path, flavour: Flavour) -> None:
    wanted = rich_image(flavour=flavour)
    reference = registry.push(f"fresh/{flavour}", "1", wanted)
    store.pull(reference)
    out = place / "pushed"

    store.podman("push", "-q", reference, f"dir:{out}")

    # The layers come out uncompressed, rebuilt from the tree and the tar-split: their names are then the diff IDs.
    names = {path.name for path in out.iterdir()} - {"version", "manifest.json"}
    assert names == {digest.removeprefix("sha256:") for digest in (*wanted.diff_ids, wanted.config.digest)}
    assert (out / wanted.id).read_bytes() == wanted.config.data


def test_podman_pushes_the_same_manifest(store: SharedStore, registry: Registry, place: Path) -> None:
    # Nothing is compressed, so that nothing changes on the way out and the manifest is the one that was pulled.
    wanted = image([base_layer(), odd_layer()], compression="none")
    reference = registry.push("fresh/manifest", "1", wanted)
    store.pull(reference)
    out = place / "pushed"

    store.podman("push", "-q", reference, f"dir:{out}")

    assert (out / "manifest.json").read_bytes() == wanted.manifest.data
    for blob in wanted.blobs:
        assert (out / blob.digest.removeprefix("sha256:")).read_bytes() == blob.data


def test_removal_leaves_nothing(store: SharedStore, registry: Registry) -> None:
    reference = registry.push("fresh/removed", "1", rich_image())
    store.pull(reference)

    store.podman("rmi", reference)

    kept = {path.name for path in (store.root / "overlay").iterdir() if path.is_dir()}
    assert kept <= {"l", "tempdirs"}
    assert list((store.root / "overlay" / "l").iterdir()) == []
    assert list((store.root / "overlay-layers").glob("*.tar-split.gz")) == []
    assert store.image_records() == []
    assert store.layer_records() == []
    store.check()


def test_index_is_found_by_each_of_its_digests(store: SharedStore, registry: Registry) -> None:
    ours = rich_image()
    both: Index = index([image([tar([directory("arm")])], architecture="arm64", variant="v8"), ours])
    reference = registry.push("fresh/index", "1", both)
    repository = reference.rpartition(":")[0]

    assert store.pull(reference) == ours.id

    for digest in (both.manifest.digest, ours.manifest.digest):
        (seen,) = json.loads(store.podman("image", "inspect", f"{repository}@{digest}"))
        assert seen["Id"] == ours.id
    (record,) = store.image_records()
    assert record["big-data-names"] == [
        ours.config.digest,
        f"manifest-{both.manifest.digest}",
        f"manifest-{ours.manifest.digest}",
        "manifest",
    ]
    assert record["digest"] == both.manifest.digest
    store.check()


def test_pull_by_digest_is_named_by_it(store: SharedStore, registry: Registry) -> None:
    wanted = image([base_layer()], comment="by digest")
    reference = registry.push("fresh/digest", "1", wanted)
    repository = reference.rpartition(":")[0]

    store.pull(f"{repository}@{wanted.manifest.digest}")

    assert (
        store.podman("image", "inspect", "--format", "{{.Id}}", f"{repository}@{wanted.manifest.digest}") == wanted.id
    )
    (record,) = store.image_records()
    assert record["names"] == [f"{repository}@{wanted.manifest.digest}"]
    store.check()
