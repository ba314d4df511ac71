"""What a record says, typed and frozen: layers, images and containers as the rest of the package sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from asyncpull.dataclass import dataclass
from asyncpull.store.idmap import IDMappings, parse_raw
from asyncpull.store.records import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncpull.store.idmap import IDMaps
    from asyncpull.store.records import Raw

_ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer as it is recorded; digests are text, "" where there is none; sizes are bytes.

    ``volatile`` says that the record is in the file which a reboot may lose. ``uidmap`` and ``gidmap`` say which owners
    the files of its tree were given instead of those of its diff. ``read_only``: it is in an additional image store.
    """

    id: str
    parent: str | None
    names: tuple[str, ...]
    created: str
    compressed_digest: str
    compressed_size: int
    diff_digest: str
    diff_size: int
    toc_digest: str
    compression: int
    uidset: tuple[int, ...]
    gidset: tuple[int, ...]
    mount_label: str
    is_incomplete: bool
    uidmap: IDMaps
    gidmap: IDMaps
    big_data_names: tuple[str, ...]
    volatile: bool
    read_only: bool = False

    @property
    def is_id_mapped(self) -> bool:
        """Whether the tree has other owners than the diff."""
        return bool(self.mappings)

    @property
    def mappings(self) -> IDMappings:
        """``uidmap`` and ``gidmap``."""
        return IDMappings(self.uidmap, self.gidmap)

    @property
    def created_at(self) -> datetime:
        """When the record was made, in UTC, to the microsecond."""
        return parse_time(self.created)

    @classmethod
    def from_raw(cls, raw: Raw, volatile: bool) -> LayerRecord:
        """A view of a checked record."""
        return cls(
            id=_text(raw, "id"),
            parent=_text(raw, "parent") or None,
            names=_texts(raw, "names"),
            created=_text(raw, "created") or _ZERO_TIME,
            compressed_digest=_text(raw, "compressed-diff-digest"),
            compressed_size=_int(raw, "compressed-size"),
            diff_digest=_text(raw, "diff-digest"),
            diff_size=_int(raw, "diff-size"),
            toc_digest=_text(raw, "toc-digest"),
            compression=_int(raw, "compression"),
            uidset=_ints(raw, "uidset"),
            gidset=_ints(raw, "gidset"),
            mount_label=_text(raw, "mountlabel"),
            is_incomplete=_map(raw, "flags").get("incomplete") is True,
            uidmap=parse_raw(raw.get("uidmap")),
            gidmap=parse_raw(raw.get("gidmap")),
            big_data_names=_texts(raw, "big-data-names"),
            volatile=volatile,
        )


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image as it is recorded. ``layer`` is its top layer; ``big_data_digests`` has a digest per big-data key.

    ``read_only``: it is in an additional image store.
    """

    id: str
    digest: str
    names: tuple[str, ...]
    names_history: tuple[str, ...]
    layer: str | None
    mapped_layers: tuple[str, ...]
    metadata: str
    big_data_names: tuple[str, ...]
    big_data_sizes: Mapping[str, int]
    big_data_digests: Mapping[str, str]
    created: str
    read_only: bool = False

    @property
    def created_at(self) -> datetime:
        """When the image was built, in UTC, to the microsecond."""
        return parse_time(self.created)

    @property
    def digests(self) -> frozenset[str]:
        """Every digest by which ``repository@digest`` finds this image."""
        manifests = (digest for key, digest in self.big_data_digests.items() if key.startswith("manifest") and digest)
        return frozenset((*manifests, *((self.digest,) if self.digest else ())))

    @classmethod
    def from_raw(cls, raw: Raw, volatile: bool = False) -> ImageRecord:
        """A view of a checked record; images are never volatile."""
        return cls(
            id=_text(raw, "id"),
            digest=_text(raw, "digest"),
            names=_texts(raw, "names"),
            names_history=_texts(raw, "names-history"),
            layer=_text(raw, "layer") or None,
            mapped_layers=_texts(raw, "mapped-layers"),
            metadata=_text(raw, "metadata"),
            big_data_names=_texts(raw, "big-data-names"),
            big_data_sizes=cast("Mapping[str, int]", _map(raw, "big-data-sizes")),
            big_data_digests=cast("Mapping[str, str]", _map(raw, "big-data-digests")),
            created=_text(raw, "created") or _ZERO_TIME,
        )


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """A container as it is recorded: ``layer`` is its own writable layer, ``image`` an ID or "".

    ``uidmap`` and ``gidmap`` are those of the user namespace that its processes live in.
    """

    id: str
    names: tuple[str, ...]
    image: str
    layer: str
    metadata: str
    big_data_names: tuple[str, ...]
    big_data_sizes: Mapping[str, int]
    big_data_digests: Mapping[str, str]
    created: str
    flags: Mapping[str, object]
    uidmap: IDMaps
    gidmap: IDMaps
    volatile: bool

    @property
    def is_id_mapped(self) -> bool:
        """Whether the container has a user namespace of its own."""
        return bool(self.mappings)

    @property
    def mappings(self) -> IDMappings:
        """``uidmap`` and ``gidmap``."""
        return IDMappings(self.uidmap, self.gidmap)

    @property
    def created_at(self) -> datetime:
        """When the container was created, in UTC, to the microsecond."""
        return parse_time(self.created)

    @classmethod
    def from_raw(cls, raw: Raw, volatile: bool) -> ContainerRecord:
        """A view of a checked record."""
        return cls(
            id=_text(raw, "id"),
            names=_texts(raw, "names"),
            image=_text(raw, "image"),
            layer=_text(raw, "layer"),
            metadata=_text(raw, "metadata"),
            big_data_names=_texts(raw, "big-data-names"),
            big_data_sizes=cast("Mapping[str, int]", _map(raw, "big-data-sizes")),
            big_data_digests=cast("Mapping[str, str]", _map(raw, "big-data-digests")),
            created=_text(raw, "created") or _ZERO_TIME,
            flags=_map(raw, "flags"),
            uidmap=parse_raw(raw.get("uidmap")),
            gidmap=parse_raw(raw.get("gidmap")),
            volatile=volatile,
        )


def _text(raw: Raw, key: str) -> str:
    return cast("str", raw.get(key) or "")


def _texts(raw: Raw, key: str) -> tuple[str, ...]:
    return tuple(cast("list[str]", raw.get(key) or ()))


def _ints(raw: Raw, key: str) -> tuple[int, ...]:
    return tuple(cast("list[int]", raw.get(key) or ()))


def _int(raw: Raw, key: str) -> int:
    return cast("int", raw.get(key) or 0)


def _map(raw: Raw, key: str) -> Mapping[str, object]:
    return cast("Mapping[str, object]", raw.get(key) or {})
