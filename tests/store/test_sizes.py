"""Sizes of images, shared and unique, from records alone."""

from __future__ import annotations

import pytest

from asyncpull.store.sizes import ImageSize, image_sizes, layers_of
from asyncpull.store.views import ImageRecord, LayerRecord

TIME = "2026-01-01T00:00:00Z"


def _layers(**sizes_and_parents: tuple[int, str | None]) -> dict[str, LayerRecord]:
    return {
        name: LayerRecord.from_raw({"id": name, "parent": parent, "diff-size": size, "created": TIME}, volatile=False)
        for name, (size, parent) in sizes_and_parents.items()
    }


def _image(name: str, top: str | None, documents: int = 0, mapped: list[str] | None = None) -> ImageRecord:
    raw: dict[str, object] = {"id": name, "layer": top, "created": TIME, "mapped-layers": mapped or []}
    return ImageRecord.from_raw(raw | {"big-data-sizes": {"manifest": documents}})


LAYERS = _layers(base=(100, None), left=(20, "base"), right=(3, "base"), copy=(20, "base"), lone=(7, None))


@pytest.mark.parametrize(
    ("images", "sizes"),
    [
        ([_image("a", "left", 1)], {"a": ImageSize(121, 0)}),
        ([_image("a", "left", 1), _image("b", "right", 2)], {"a": ImageSize(121, 100), "b": ImageSize(105, 100)}),
        ([_image("a", "left"), _image("b", "base")], {"a": ImageSize(120, 100), "b": ImageSize(100, 100)}),
        ([_image("a", "left"), _image("b", "left", 5)], {"a": ImageSize(120, 120), "b": ImageSize(125, 120)}),
        # a copy for other owners is the image's own, and what is below both counts once
        ([_image("a", "left", mapped=["copy"])], {"a": ImageSize(140, 0)}),
        ([_image("a", None, 9), _image("b", "lone")], {"a": ImageSize(9, 0), "b": ImageSize(7, 0)}),
        ([_image("a", "gone", 9)], {"a": ImageSize(9, 0)}),
    ],
)
def test_what_is_shared_is_counted_for_each_and_said(images: list[ImageRecord], sizes: dict[str, ImageSize]) -> None:
    assert image_sizes({image.id: image for image in images}, LAYERS) == sizes


def test_unique_is_what_would_go() -> None:
    assert ImageSize(105, 100).unique == 5


def test_a_layer_of_unknown_size_counts_nothing() -> None:
    layers = _layers(base=(10, None), partial=(-1, "base"))
    assert image_sizes({"a": _image("a", "partial")}, layers) == {"a": ImageSize(10, 0)}


def test_a_ring_of_layers_ends() -> None:
    layers = _layers(one=(1, "two"), two=(2, "one"))
    assert [layer.id for layer in layers_of("one", layers)] == ["one", "two"]
