"""Additional image stores: graph roots of somebody else, whose layers and images serve here too.

Nothing is ever written there, lock files included. Their locks are taken shared, each for the time of reading one
file, and never together with another lock: so nobody can wait for us in a circle. What was read may be gone a moment
later; that is the bargain of these stores, and their owner's to keep.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.store.files import disk_errors
from asyncpull.store.records import IMAGES, LAYERS, big_data_file_name
from asyncpull.store.table import Table
from asyncpull.store.views import ImageRecord, LayerRecord

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.errors import StoreCorruptError
    from asyncpull.store.records import Raw
    from asyncpull.store.table import Rows


class AdditionalStore:
    """The tables of one such store."""

    def __init__(self, graph_root: Path, driver: str) -> None:
        self.graph_root = graph_root
        self.layers: Table[LayerRecord] = Table(graph_root / f"{driver}-layers", LAYERS, _lent_layer)
        self.images: Table[ImageRecord] = Table(graph_root / f"{driver}-images", IMAGES, _lent_image)

    def tar_split_path(self, layer_id: str) -> Path:
        """The tar-split file of a layer there."""
        return self.layers.directory / f"{layer_id}.tar-split.gz"

    def read_image(self, rows: Rows[ImageRecord], image_id: str) -> LentImage | None:
        """An image there with all of its data. Needs the lock that ``rows`` were read under. Raises StoreError."""
        record = rows.by_id.get(image_id)
        if record is None:
            return None
        directory = self.images.directory / image_id
        with disk_errors(directory):
            items = [(key, (directory / big_data_file_name(key)).read_bytes()) for key in record.big_data_names]
        return LentImage(record, rows.raw(image_id), tuple(items))


@dataclass(frozen=True, slots=True)
class LentImage:
    """All that an image is besides its layers: its record, as it is on disk too, and its items of big data."""

    record: ImageRecord
    raw: Raw
    items: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Lent:
    """What one such store has at one moment; ``unreadable`` says why the records are missing that are None."""

    store: AdditionalStore
    layers: Rows[LayerRecord] | None
    images: Rows[ImageRecord] | None
    unreadable: tuple[StoreCorruptError, ...] = ()


def _lent_layer(raw: Raw, volatile: bool) -> LayerRecord:
    return replace(LayerRecord.from_raw(raw, volatile), read_only=True)


def _lent_image(raw: Raw, volatile: bool) -> ImageRecord:
    return replace(ImageRecord.from_raw(raw, volatile), read_only=True)
