"""Images made for the tests: layers of a few files, committed to a store without any archive."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.spec.digest import Digest
from asyncpull.spec.layerid import layer_id
from asyncpull.store.config import StoreConfig
from asyncpull.store.staging import NewImage, NewLayer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpull.store.staging import StagedLayer, Staging
    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord

GOLDEN = Path(__file__).parent / "golden"


def config_at(directory: Path, **options: str) -> StoreConfig:
    """A store in ``directory``; its names are short, because mount options are."""
    return StoreConfig(directory / "g", directory / "r", rootless=False, options=options)


@dataclass(frozen=True, slots=True)
class MadeLayer:
    """A layer by its content: two with the same content have the same diff ID."""

    content: Mapping[str, bytes]

    @property
    def diff_id(self) -> Digest:
        return Digest.of(
            json.dumps(sorted(self.content), separators=(",", ":")).encode() + b"".join(self.content.values())
        )

    def fill(self, staged: StagedLayer) -> None:
        """Write the content, and something for a tar-split."""
        for name, data in self.content.items():
            path = staged.diff / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        staged.tar_split.write_bytes(gzip.compress(name_of(self).encode()))


def name_of(layer: MadeLayer) -> str:
    """A word that tells layers apart."""
    return layer.diff_id.encoded[:12]


def made(*contents: Mapping[str, bytes]) -> list[MadeLayer]:
    """Layers of these contents, the base layer first."""
    return [MadeLayer(content) for content in contents]


def stage_layers(staging: Staging, layers: Sequence[MadeLayer], *, reuse: Sequence[str] = ()) -> tuple[NewLayer, ...]:
    """Stage layers on top of each other, except those whose IDs are to be reused."""
    staged_layers = []
    parent = None
    for layer in layers:
        new_id = layer_id(parent, layer.diff_id)
        staged = None
        if new_id not in reuse:
            staged = staging.new_layer(parent)
            layer.fill(staged)
        size = sum(map(len, layer.content.values()))
        staged_layers.append(NewLayer(new_id, parent, staged, layer.diff_id, size, layer.diff_id, size, 0, (0,), (0,)))
        parent = new_id
    return tuple(staged_layers)


def new_image(
    name: str | None, layers: tuple[NewLayer, ...], *, remark: str = "", created: str | None = None
) -> NewImage:
    """An image of these layers; ``remark`` makes it another image."""
    diff_ids = [str(layer.diff_digest) for layer in layers]
    config = json.dumps({"remark": remark, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    config_digest = Digest.of(config)
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": str(config_digest)}}).encode()
    digest = Digest.of(manifest)
    return NewImage(
        config_digest.encoded,
        digest,
        (name,) if name else (),
        layers,
        ((str(config_digest), config), (f"manifest-{digest}", manifest), ("manifest", manifest)),
        created,
    )


async def commit_image(
    store: Store,
    name: str | None,
    *contents: Mapping[str, bytes],
    remark: str = "",
    reuse: Sequence[str] = (),
) -> ImageRecord:
    """Commit an image of layers with these contents."""
    async with store.stage() as staging:
        layers = stage_layers(staging, made(*contents), reuse=reuse)
        return await store.commit(staging, new_image(name, layers, remark=remark))


def everything_in(directory: Path) -> dict[str, bytes | str]:
    """All that is below a directory, by relative path: content of files, targets of links, modes of directories.

    Without what a look at a store may change: lock files, and temporary directories that are empty.
    """
    found: dict[str, bytes | str] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = oct(path.stat().st_mode)
        elif not name.endswith(".lock"):
            found[name] = path.read_bytes()
    return found


def leftovers(graph_root: Path) -> list[str]:
    """What no finished operation may leave: temporary directories, their locks, half-written files."""
    places = (graph_root / "overlay/tempdirs", graph_root / "overlay-layers/tmp")
    found = [path for place in places if place.is_dir() for path in place.iterdir()]
    found += graph_root.glob("overlay*/.tmp-*")
    return sorted(str(path.relative_to(graph_root)) for path in found)
