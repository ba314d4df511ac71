"""Images of 40, 200 and 499 layers are mounted and run; one of 510 is refused at once (format, 13.4, point 10)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images import Image, image
from tests.support.samples import base_layer, static_shell
from tests.support.tars import directory, file, tar, whiteout

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

OLD_LIMIT = 128
"""Layers that overlay mounts of storage before 1.50 (podman 4.3) can have."""


def _tall(count: int) -> Image:
    """Return an image of ``count`` layers of which each adds a file and removes the one that the layer below added."""
    layers = [base_layer(static_shell())]
    for number in range(1, count):
        gone = [whiteout(f"floor/{number - 1}")] if number > 1 else []
        layers.append(tar([directory("floor"), *gone, file(f"floor/{number}", b"%d\n" % number)]))
    return image(layers, comment=f"{count} layers")


@pytest.mark.parametrize("count", [40, 200, 499])
def test_mounted_and_run(store: SharedStore, registry: Registry, count: int) -> None:
    if count >= OLD_LIMIT and store.peer.name == "debian":
        pytest.skip("older podman mounts no more than 128 layers")
    wanted = _tall(count)
    reference = registry.push("tall/image", str(count), wanted)
    assert store.pull(reference) == wanted.id

    ours = store.asyncpull("mount", reference)
    try:
        assert [path.name for path in Path(ours, "floor").iterdir()] == [str(count - 1)]
    finally:
        store.asyncpull("unmount", reference)

    if static_shell() is not None:
        assert store.podman_run(reference, "ls", "/floor").split() == [str(count - 1)]
    if count < OLD_LIMIT:  # podman mounts each layer by itself, which takes it a minute with 499 of them
        store.check()


def test_too_many_are_refused_before_anything_is_fetched(store: SharedStore, registry: Registry) -> None:
    wanted = _tall(510)
    reference = registry.push("tall/image", "510", wanted)
    before = len(registry.requests())

    done = store.run_asyncpull("pull", reference)

    assert done.returncode == 65
    assert "510" in done.stderr
    assert "Traceback" not in done.stderr
    layers = {layer.digest for layer in wanted.layers}
    assert not [line for line in registry.requests()[before:] if line.rpartition("/")[2] in layers]
    assert store.image_records() == store.layer_records() == []
    assert store.leftovers() == store.spooled() == []
