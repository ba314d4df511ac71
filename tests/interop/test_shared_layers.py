"""A store that asyncpull and podman extend in turn, each using what the other has pulled (format, 13.4, point 3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.samples import base_layer, odd_layer, removing_layer
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.images import Image
    from tests.support.stores import Record, SharedStore

pytestmark = pytest.mark.root


@pytest.fixture
def pair(registry: Registry) -> tuple[tuple[Image, str], tuple[Image, str]]:
    """Two images, with their references, that share their two lower layers."""
    base = [base_layer(), odd_layer()]
    first = image([*base, removing_layer()], comment="first")
    second = image([*base, tar([directory("etc"), file("etc/second", b"2\n")])], comment="second")
    return (first, registry.push("shared/first", "1", first)), (second, registry.push("shared/second", "1", second))


def _blobs_asked_for(registry: Registry, since: int) -> list[str]:
    return [
        line.rpartition("/")[2] for line in registry.requests()[since:] if line.startswith("GET") and "/blobs/" in line
    ]


def _of_all_ages(record: Record) -> Record:
    """Return an image record without what only podman 4.3 adds, about signatures that there are none of."""
    return {key: value for key, value in record.items() if key != "metadata" and not key.startswith("big-data")}


def test_we_use_what_podman_pulled(
    store: SharedStore, registry: Registry, pair: tuple[tuple[Image, str], tuple[Image, str]]
) -> None:
    (_, first_reference), (second, second_reference) = pair
    store.podman_pull(first_reference)
    before = len(registry.requests())

    (told,) = json.loads(store.asyncpull("pull", "--json", second_reference))

    assert [layer["reused"] for layer in told["layers"]] == [True, True, False]
    assert set(_blobs_asked_for(registry, before)) == {second.config.digest, second.layers[2].digest}
    assert len(store.layer_records()) == 4
    store.check()


def test_podman_uses_what_we_pulled(store: SharedStore, pair: tuple[tuple[Image, str], tuple[Image, str]]) -> None:
    (first, first_reference), (_, second_reference) = pair
    store.pull(first_reference)

    said = store.peer.run_both(
        *store.podman_command, "--log-level=debug", "pull", "-q", "--tls-verify=false", second_reference
    )

    for layer in first.layers[:2]:
        assert f"Skipping blob {layer.digest} (already present)" in said
    assert len(store.layer_records()) == 4
    store.check()


def test_podman_adds_only_a_name_to_an_image_of_ours(store: SharedStore, registry: Registry) -> None:
    wanted = image([base_layer(), odd_layer()])
    ours, theirs = registry.push("shared/name", "ours", wanted), registry.push("shared/name", "theirs", wanted)
    store.pull(ours)
    layers, (before,) = store.layer_records(), store.image_records()

    said = store.peer.run_both(*store.podman_command, "--log-level=debug", "pull", "-q", "--tls-verify=false", theirs)

    assert "reusing image ID" in said
    (after,) = store.image_records()
    assert _of_all_ages(after) == _of_all_ages(before) | {"names": [theirs, ours], "names-history": [ours, theirs]}
    assert store.layer_records() == layers
    store.check()


def test_we_add_only_a_name_to_an_image_of_podmans(store: SharedStore, registry: Registry) -> None:
    wanted = image([base_layer(), odd_layer()])
    ours, theirs = registry.push("shared/name", "ours", wanted), registry.push("shared/name", "theirs", wanted)
    store.podman_pull(theirs)
    layers, (before,) = store.layer_records(), store.image_records()
    asked = len(registry.requests())

    assert store.pull(ours) == wanted.id

    (after,) = store.image_records()
    assert _of_all_ages(after) == _of_all_ages(before) | {"names": [ours, theirs], "names-history": [theirs, ours]}
    assert store.layer_records() == layers
    assert set(_blobs_asked_for(registry, asked)) <= {wanted.config.digest}
    store.check()


def test_a_name_moves_to_the_image_pulled_last(store: SharedStore, registry: Registry) -> None:
    old, new = image([base_layer()], comment="old"), image([base_layer(), odd_layer()], comment="new")
    reference = registry.push("shared/moving", "1", old)
    store.podman_pull(reference)
    registry.push("shared/moving", "1", new)

    store.pull(reference)

    names = {str(record["id"]): record.get("names", []) for record in store.image_records()}
    assert names == {old.id: [], new.id: [reference]}
    assert store.podman("image", "inspect", "--format", "{{.Id}}", reference) == new.id
    store.check()


def test_a_layer_with_another_parent_is_copied_not_fetched(store: SharedStore, registry: Registry) -> None:
    """The second image has a layer of the first one upon another parent, and takes its tree from there."""
    first = image([base_layer(), odd_layer()], comment="upon base")
    second = image([tar([directory("other")]), odd_layer()], comment="upon another")
    store.podman_pull(registry.push("shared/moved", "first", first))
    reference = registry.push("shared/moved", "second", second)
    before = len(registry.requests())

    store.pull(reference)

    assert second.layers[1].digest not in _blobs_asked_for(registry, before)
    store.check()
