"""Finding layers, images and containers: by ID, beginning of an ID, name and digest; and what they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import NotInStoreError, StoreError
from tests.store.made import commit_image

if TYPE_CHECKING:
    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord

pytestmark = pytest.mark.root

BASE = {"etc/base": b"base"}
ABOVE = {"etc/above": b"above!"}


@pytest.fixture
async def images(store: Store) -> tuple[ImageRecord, ImageRecord]:
    """Two images; the second has both layers of the first the other way round."""
    first = await commit_image(store, "docker.io/library/first:1", BASE, ABOVE)
    second = await commit_image(store, "docker.io/library/second:1", ABOVE, BASE)
    return first, second


async def test_a_layer_by_id_beginning_and_digest(store: Store, images: tuple[ImageRecord, ImageRecord]) -> None:
    lone = (await store.layers())[0]
    assert await store.layer(lone.id) == lone
    assert await store.layer(lone.id[:20]) == lone
    assert await store.layers_with_digest("sha256:" + "0" * 64) == []
    both = await store.layers_with_digest(lone.diff_digest)
    assert len(both) == 2
    assert {layer.parent is None for layer in both} == {True, False}
    with pytest.raises(StoreError, match="several layers"):
        await store.layer(lone.diff_digest)
    await store.remove_image(images[1])
    assert await store.layer(lone.diff_digest) == lone
    with pytest.raises(NotInStoreError):
        await store.layer("sha256:" + "0" * 64)


async def test_an_image_by_all_that_podman_takes_and_by_bare_digest(
    store: Store, images: tuple[ImageRecord, ImageRecord]
) -> None:
    first, _ = images
    targets = [
        first.id,
        first.id[:12],
        "docker.io/library/first:1",
        "first:1",
        f"docker.io/library/first@{first.digest}",
    ]
    assert [(await store.image(target)).id for target in targets] == [first.id] * len(targets)
    assert await store.images_with_digest(first.digest) == [first]
    assert await store.images_with_digest(f"sha256:{first.id}") == [first]
    assert await store.images_with_digest("sha256:" + "0" * 64) == []


async def test_a_container_by_id_beginning_and_name(store: Store, images: tuple[ImageRecord, ImageRecord]) -> None:
    made = await store.create_container(images[0], "c1")
    for target in (made.id, made.id[:12], "c1"):
        assert (await store.container(target)).id == made.id
    layer = await store.layer(made.layer[:16])
    assert layer.parent == images[0].layer


async def test_sizes_shared_and_unique(store: Store, images: tuple[ImageRecord, ImageRecord]) -> None:
    first, second = images
    sizes = await store.image_sizes()
    documents = {image.id: sum(image.big_data_sizes.values()) for image in images}
    assert {name: (size.total, size.shared) for name, size in sizes.items()} == {
        first.id: (10 + documents[first.id], 0),
        second.id: (10 + documents[second.id], 0),
    }
    third = await commit_image(store, None, BASE, {"etc/other": b"123"})
    sizes = await store.image_sizes()
    assert (sizes[first.id].shared, sizes[third.id].shared, sizes[second.id].shared) == (4, 4, 0)
