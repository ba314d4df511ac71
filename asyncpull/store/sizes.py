"""How much of a store belongs to which image: what it shares with others, and what would go with it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpull.store.views import ImageRecord, LayerRecord


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Bytes of one image: ``total``, of which ``shared`` are in layers that other images have too.

    Layers count with the length of their uncompressed archives, as everybody counts them, and big data with its own.
    """

    total: int
    shared: int

    @property
    def unique(self) -> int:
        """Bytes that nobody needs when this image is gone, containers aside."""
        return self.total - self.shared


def layers_of(top: str | None, layers: Mapping[str, LayerRecord]) -> list[LayerRecord]:
    """The layers from ``top`` down to the base; a chain that is broken, or a ring, ends where it breaks."""
    found: dict[str, LayerRecord] = {}
    layer = layers.get(top or "")
    while layer is not None and layer.id not in found:
        found[layer.id] = layer
        layer = layers.get(layer.parent or "")
    return list(found.values())


def image_sizes(images: Mapping[str, ImageRecord], layers: Mapping[str, LayerRecord]) -> dict[str, ImageSize]:
    """The size of each image, by image ID; copies of a top layer for other ID mappings count as the image's own."""
    chains = {
        image.id: {
            layer.id: layer for top in (image.layer, *image.mapped_layers) for layer in layers_of(top, layers)
        }.values()
        for image in images.values()
    }
    users = Counter(layer.id for chain in chains.values() for layer in chain)
    sizes = {}
    for image in images.values():
        documents = sum(image.big_data_sizes.values())
        total = sum(max(layer.diff_size, 0) for layer in chains[image.id])
        shared = sum(max(layer.diff_size, 0) for layer in chains[image.id] if users[layer.id] > 1)
        sizes[image.id] = ImageSize(total + documents, shared)
    return sizes
