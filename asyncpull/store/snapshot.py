"""The store at one moment, as values: what a plan asks, and what an administrator wants to know."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpull.spec.digest import Digest
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """All complete layers and all images by ID."""

    layers: Mapping[str, LayerRecord]
    images: Mapping[str, ImageRecord]
    _by_diff_digest: Mapping[str, LayerRecord] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        plain = [layer for layer in self.layers.values() if not layer.is_id_mapped]
        object.__setattr__(self, "_by_diff_digest", {layer.diff_digest: layer for layer in reversed(plain)})

    def has_layer(self, layer_id: str) -> bool:
        """Whether a complete layer has this ID."""
        return layer_id in self.layers

    def layer_with_diff_id(self, diff_id: Digest) -> str | None:
        """The ID of a complete layer with this diff ID, on whatever parents, whose tree is as the archive says."""
        layer = self._by_diff_digest.get(str(diff_id))
        # Without a tar-split, as of a partial pull, the layer cannot be copied whole; those have a TOC digest.
        return layer.id if layer is not None and not layer.toc_digest else None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What ``asyncpull info`` shows. Sizes are bytes; ``layer_bytes`` counts the uncompressed layers, each once."""

    driver: str
    driver_reason: str
    graph_root: str
    run_root: str
    rootless: bool
    options: Mapping[str, str]
    images: int
    layers: int
    containers: int
    mounts: int
    layer_bytes: int
    image_bytes: int
    spool_bytes: int
    backing_file_system: str
    free_bytes: int
    free_inodes: int
    versions: Mapping[str, str]


def status_of(
    config: StoreConfig,
    layers: Mapping[str, LayerRecord],
    images: Mapping[str, ImageRecord],
    containers: Mapping[str, ContainerRecord],
    mounts: int,
    spool_root: Path,
) -> StoreStatus:
    """Put the status together. Raises OSError."""
    from asyncpull import __version__

    room = os.statvfs(config.graph_root)
    return StoreStatus(
        driver=config.driver,
        driver_reason=config.reason,
        graph_root=str(config.graph_root),
        run_root=str(config.run_root),
        rootless=config.rootless,
        options=dict(config.options),
        images=len(images),
        layers=len(layers),
        containers=len(containers),
        mounts=mounts,
        layer_bytes=sum(layer.diff_size for layer in layers.values()),
        image_bytes=sum(sum(image.big_data_sizes.values()) for image in images.values()),
        spool_bytes=_bytes_on_disk(spool_root),
        backing_file_system=_file_system_of(config.graph_root),
        free_bytes=room.f_bavail * room.f_frsize,
        free_inodes=room.f_favail,
        versions={
            "asyncpull": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
        },
    )


def _bytes_on_disk(spool_root: Path) -> int:
    """What spools take; pulls make and remove them meanwhile."""
    total = 0
    for directory, _, names in os.walk(spool_root):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total


def _file_system_of(path: Path) -> str:
    """The type of the file system at ``path``: that of the last mount on the way down to it."""
    best, kind = -1, "unknown"
    text = os.fspath(path)
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        inside = text == point or text.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind
