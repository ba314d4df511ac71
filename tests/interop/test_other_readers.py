"""Skopeo, and podman of an older storage generation, read what asyncpull wrote (format, 13.4, point 4)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.samples import rich_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.images import Image
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root


@pytest.fixture
def pulled(store: SharedStore, registry: Registry) -> tuple[str, Image]:
    """The reference of an image that asyncpull has pulled, and the image."""
    wanted = rich_image()
    reference = registry.push("readers/rich", "1", wanted)
    store.pull(reference)
    return reference, wanted


def _blob_names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"version", "manifest.json"}


def test_skopeo_copies_and_inspects(store: SharedStore, place: Path, pulled: tuple[str, Image]) -> None:
    reference, wanted = pulled
    if not store.peer.has("skopeo"):
        pytest.skip("no skopeo")
    source = f"containers-storage:[overlay@{store.root}+{store.run_root}]{reference}"
    out = place / "copied"

    store.peer.run("skopeo", "copy", "--insecure-policy", source, f"dir:{out}")
    seen = json.loads(store.peer.run("skopeo", "inspect", "--no-tags", source))

    assert _blob_names(out) == {digest.removeprefix("sha256:") for digest in (*wanted.diff_ids, wanted.config.digest)}
    assert seen["Digest"] == wanted.manifest.digest
    store.check()


def test_podman_mounts_the_image(store: SharedStore, pulled: tuple[str, Image]) -> None:
    reference, _ = pulled

    mounted = store.podman("image", "mount", reference)
    try:
        assert store.peer.run("cat", f"{mounted}/odd/owned") == "changed\n"
        assert store.peer.run("ls", f"{mounted}/var/lib/old").split() == ["new"]
        store.peer.run("test", "-e", f"{mounted}/etc/gone", expect=1)
    finally:
        store.podman("image", "unmount", reference)
    store.check()


def test_podman_saves_an_archive_that_it_loads_again(
    store: SharedStore, place: Path, pulled: tuple[str, Image]
) -> None:
    reference, wanted = pulled
    archive = place / "saved.tar"

    store.podman("save", "-q", "--format", "oci-archive", "-o", archive, reference)
    store.podman("rmi", reference)
    store.podman("load", "-q", "-i", archive)

    (record,) = store.image_records()
    config = json.loads(wanted.config.data)
    (seen,) = json.loads(store.podman("image", "inspect", str(record["id"])))
    assert seen["RootFS"]["Layers"] == config["rootfs"]["diff_ids"]
    store.check()
