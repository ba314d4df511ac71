"""Podman and buildah build upon an image of ours, and images are removed in any order (format, 13.4, point 12)."""

from __future__ import annotations

import itertools
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

BUILT, COMMITTED = "localhost/built:latest", "localhost/committed:latest"


@pytest.fixture
def pulled(store: SharedStore, registry: Registry) -> tuple[str, Image]:
    wanted = rich_image()
    reference = registry.push("build/rich", "1", wanted)
    store.pull(reference)
    return reference, wanted


def _build(store: SharedStore, context: Path, reference: str) -> None:
    """Build an image with one layer more, without running anything in it."""
    context.mkdir()
    (context / "Containerfile").write_text(f"FROM {reference}\nCOPY added /etc/added\n")
    (context / "added").write_text("added\n")
    store.podman("build", "-q", "--pull=never", "-t", BUILT, context)


def _commit(store: SharedStore, reference: str) -> None:
    """Commit a container of buildah's in which a file was changed."""
    buildah = ("buildah", *store.arguments)
    container = store.peer.run(*buildah, "from", "--pull-never", reference).strip()
    mounted = store.peer.run(*buildah, "mount", container).strip()
    store.peer.run("sh", "-c", 'echo committed >"$1/etc/base"', "sh", mounted)
    store.peer.run(*buildah, "umount", container)
    store.peer.run(*buildah, "commit", "-q", container, COMMITTED)
    store.peer.run(*buildah, "rm", container)


def test_podman_builds_upon_our_image(store: SharedStore, place: Path, pulled: tuple[str, Image]) -> None:
    reference, wanted = pulled
    _build(store, place / "context", reference)

    (seen,) = json.loads(store.podman("image", "inspect", BUILT))
    assert seen["RootFS"]["Layers"][: len(wanted.diff_ids)] == list(wanted.diff_ids)
    store.check()


def test_buildah_commits_a_container_of_our_image(store: SharedStore, pulled: tuple[str, Image]) -> None:
    reference, wanted = pulled
    if not store.peer.has("buildah"):
        pytest.skip("no buildah")
    _commit(store, reference)

    (seen,) = json.loads(store.podman("image", "inspect", COMMITTED))
    assert seen["RootFS"]["Layers"][: len(wanted.diff_ids)] == list(wanted.diff_ids)
    store.check()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=lambda order: "".join(map(str, order)))
def test_removed_in_any_order(
    store: SharedStore, place: Path, pulled: tuple[str, Image], order: tuple[int, ...]
) -> None:
    """Podman removes one image, we the next, podman the last one; the layers go with their last user."""
    reference, _ = pulled
    if not store.peer.has("buildah"):
        pytest.skip("no buildah")
    _build(store, place / "context", reference)
    _commit(store, reference)
    names = (reference, BUILT, COMMITTED)

    store.podman("rmi", names[order[0]])
    store.check()
    store.asyncpull("rmi", names[order[1]])
    store.check()
    store.podman("rmi", names[order[2]])

    store.check()
    assert store.image_records() == store.layer_records() == []
